package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/netcfg"
)

// opening is how far a tunnel is with its interface. The control loop owns it.
type opening struct {
	next  time.Time // not before: the next attempt
	lacks string    // why there is no interface, or what it lacks; "": nothing
	whole bool      // it has had everything since it was made: what is missing later stops no packets
	lost  repair    // what is to be counted when it is there again,
	text  string    // and told; "": nothing
}

// openTime is how long at most a start waits for another process to let go of
// interfaces, of all tunnels together.
const openTime = 2 * time.Second

// tryOpen makes a tunnel's interface as far as that is possible now. Without it, or with
// less than the configuration says, the tunnel waits, and is tried again.
func (e *Engine) tryOpen(t *tunnel) {
	s := t.settings()
	s.Partial, s.Impatient = true, time.Since(e.started) > openTime
	if err := e.open(t, s); err != nil {
		t.lack(err)
	}
}

// open makes a tunnel's interface. What has a path can carry then.
func (e *Engine) open(t *tunnel, s netcfg.Settings) error {
	t.opening.whole = false
	if err := e.openKept(t, s); err != nil {
		return err
	}
	e.watchNamespace(t)
	if t.lack(t.link.Lacks()); t.waits() != "" {
		return nil
	}
	for _, p := range t.peers {
		if path := p.path.Load(); path != nil {
			p.setPath(path)
		}
	}
	return nil
}

// openAgain tries once more to make an interface, or what it lacks, when it is time.
func (e *Engine) openAgain(t *tunnel) {
	o := &t.opening
	if t.link != nil && o.lacks == "" || time.Now().Before(o.next) {
		return
	}
	if t.link != nil {
		if t.lack(t.link.Complete()); o.lacks == "" {
			t.log.Info("interface has all its addresses and routes now")
		}
		return
	}
	e.tryOpen(t)
	if t.link == nil {
		return
	}
	if o.text != "" {
		t.log.Info("interface is back")
		t.repaired(o.lost, o.text)
		o.text = ""
	}
	t.learn()
}

// lack notes what keeps the interface from being made, or what it lacks; nil: nothing.
func (t *tunnel) lack(err error) {
	o := &t.opening
	if err == nil {
		o.lacks, o.whole = "", true
		return
	}
	o.next = time.Now().Add(retry)
	o.lacks = "its interface: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	var missing *netcfg.NamespaceError
	if errors.As(err, &missing) {
		o.lacks = "its " + missing.Error()
	}
}

// waits is what the tunnel waits for before any of its peers can be reached, or "".
func (t *tunnel) waits() string {
	if t.link != nil && t.opening.whole {
		return ""
	}
	return t.opening.lacks
}

// interfaceLost is what happens when somebody deletes a tunnel's interface.
func (e *Engine) interfaceLost(t *tunnel) {
	e.loseInterface(t, repairInterface, "interface "+t.cfg.Name+" was deleted", "its interface, which was deleted")
	t.opening.text = "interface " + t.cfg.Name + ", which was deleted, was made again"
	t.log.Error("interface " + t.cfg.Name + " was deleted by someone else: making it again; to be rid of it, take the tunnel out of the configuration and reload")
}

// loseInterface gives up an interface that is of no use any more, to make another one.
func (e *Engine) loseInterface(t *tunnel, what repair, note, waiting string) {
	for _, p := range t.peers {
		p.replacePath(nil)
	}
	t.close()
	e.forgetQueues(t)
	t.opening = opening{next: time.Now().Add(retry), lacks: waiting, lost: what}
	for _, p := range t.peers {
		p.note(note)
		p.setState(api.Waiting, waiting)
	}
}

// followNamespaces sees whether the namespaces are still there in which interfaces are,
// and reports whether one is not. A namespace that was deleted lives on as long as our
// interface is in it, and nobody can reach it there.
func (e *Engine) followNamespaces() (changed bool) {
	type answer struct {
		id  netcfg.NamespaceID
		err error
	}
	var known map[string]answer
	for _, t := range e.tunnels {
		if t.cfg.Netns == "" || t.link == nil {
			continue
		}
		a, ok := known[t.cfg.Netns]
		if !ok {
			a.id, a.err = netcfg.Identify(t.cfg.Netns)
			if known == nil {
				known = make(map[string]answer)
			}
			known[t.cfg.Netns] = a
		}
		switch {
		case errors.Is(a.err, fs.ErrNotExist):
			e.namespaceLost(t, a.err)
		case a.err == nil && a.id != t.link.Namespace():
			e.namespaceLost(t, fmt.Errorf("network namespace %s: it was deleted and made again", t.cfg.Netns))
		default:
			continue
		}
		changed = true
	}
	return changed
}

// namespaceLost gives up the interface in a namespace that was deleted. It is made again
// at once in the one that now has the name, or when there is one.
func (e *Engine) namespaceLost(t *tunnel, why error) {
	e.unwatch(watched{t.cfg.Netns, false})
	e.discard(t)
	e.loseInterface(t, repairNamespace, why.Error(), "its "+why.Error())
	t.opening.next = time.Time{}
	t.opening.text = fmt.Sprintf("interface %s was made again in network namespace %s, which was deleted and made again", t.cfg.Name, t.cfg.Netns)
	t.log.Warn("the network namespace of interface "+t.cfg.Name+" was deleted: making the interface in the one that has its name", zap.String("netns", t.cfg.Netns))
}
