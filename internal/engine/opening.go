package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/iface"
	"sixfour/internal/netns"
	"sixfour/internal/report"
)

// opening is the state of making a tunnel's interface. The control loop owns it.
type opening struct {
	next  time.Time     // earliest time of the next attempt
	lacks string        // why there is no interface, or what it lacks; "": nothing
	whole bool          // it was complete once: what is missing later stops no packets
	lost  report.Repair // kind of repair to count when the interface is back
	text  string        // text of that event; "": none
}

// openTime limits how long the start waits for another process to release interfaces, for
// all tunnels together.
const openTime = 2 * time.Second

// tryOpen makes a tunnel's interface as far as possible now. If it fails, or if addresses
// or routes are missing, the tunnel waits and is retried.
func (e *Engine) tryOpen(t *tunnel) {
	s := t.settings()
	s.Partial, s.NoWait = true, time.Since(e.about.started) > openTime
	if err := e.open(t, s); err != nil {
		t.lack(err)
	}
}

// open makes a tunnel's interface. Peers with a path can then carry packets.
func (e *Engine) open(t *tunnel, s iface.Settings) error {
	t.opening.whole = false
	if err := t.OpenKept(e.sockets.Kept, s, e.interfaceGone); err != nil {
		return err
	}
	t.numbered = s.Addresses
	e.watcher.Made(t.cfg.Netns, t.Link.Namespace())
	if t.lack(t.Link.Missing()); t.waits() != "" {
		return nil
	}
	for p := range t.paths() {
		if wire := p.Wire.Load(); wire != nil {
			p.reportWire(wire)
		}
	}
	return nil
}

// openAgain retries to make or complete an interface when it is due.
func (e *Engine) openAgain(t *tunnel) {
	o := &t.opening
	if t.Link != nil && o.lacks == "" || time.Now().Before(o.next) {
		return
	}
	if t.Link != nil {
		if t.lack(t.Link.AddMissing()); o.lacks == "" {
			t.Log.Info("the interface now has all its addresses and routes")
		}
		return
	}
	e.tryOpen(t)
	if t.Link == nil {
		return
	}
	if o.text != "" {
		t.Log.Info("the interface was made again")
		t.report.Repaired(o.lost, o.text)
		o.text = ""
	}
	t.learn()
}

// lack records why the interface is missing or incomplete; nil: it is complete.
func (t *tunnel) lack(err error) {
	o := &t.opening
	if err == nil {
		o.lacks, o.whole = "", true
		return
	}
	o.next = time.Now().Add(retry)
	o.lacks = "its interface: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	var missing *netns.Error
	if errors.As(err, &missing) {
		o.lacks = "its " + missing.Error()
	}
}

// waits returns what the tunnel waits for before any peer can be reached, or "".
func (t *tunnel) waits() string {
	if t.Link != nil && t.opening.whole {
		return ""
	}
	return t.opening.lacks
}

// interfaceLost handles that a tunnel's interface was deleted.
func (e *Engine) interfaceLost(t *tunnel) {
	e.loseInterface(t, report.Interface, "interface "+t.cfg.Name+" was deleted", "its interface, which was deleted")
	t.opening.text = "interface " + t.cfg.Name + ", which was deleted, was made again"
	t.Log.Error("interface " + t.cfg.Name + " was deleted by another program: making it again; to remove it, delete the tunnel from the configuration and reload")
}

// loseInterface drops an interface that cannot be used any more; it will be made again.
func (e *Engine) loseInterface(t *tunnel, what report.Repair, note, waiting string) {
	for p := range t.paths() {
		p.publish(nil)
	}
	t.Close(t.senders)
	t.Forget(e.sockets.Kept)
	t.opening = opening{next: time.Now().Add(retry), lacks: waiting, lost: what}
	for p := range t.paths() {
		p.report.Note(note)
		p.report.Waits(waiting, p.isLookedUp())
	}
}

// followNamespaces checks whether the namespaces with tunnels' interfaces still exist, and
// reports whether one does not. A deleted namespace exists as long as our interface is in
// it, but nothing can reach the interface there.
func (e *Engine) followNamespaces() (changed bool) {
	type answer struct {
		id  netns.ID
		err error
	}
	var known map[string]answer
	for _, t := range e.tunnels {
		if t.cfg.Netns == "" || t.Link == nil {
			continue
		}
		a, ok := known[t.cfg.Netns]
		if !ok {
			a.id, a.err = netns.Identify(t.cfg.Netns)
			if known == nil {
				known = make(map[string]answer)
			}
			known[t.cfg.Netns] = a
		}
		switch {
		case errors.Is(a.err, fs.ErrNotExist):
			e.namespaceLost(t, a.err)
		case a.err == nil && a.id != t.Link.Namespace():
			e.namespaceLost(t, fmt.Errorf("network namespace %s: it was deleted and made again", t.cfg.Netns))
		default:
			continue
		}
		changed = true
	}
	return changed
}

// namespaceLost drops the interface in a deleted namespace. It is made again at once in the
// namespace that now has the name, or as soon as there is one.
func (e *Engine) namespaceLost(t *tunnel, why error) {
	e.watcher.Lost(t.cfg.Netns)
	t.Discard(e.sockets.Kept)
	e.loseInterface(t, report.Namespace, why.Error(), "its "+why.Error())
	t.opening.next = time.Time{}
	t.opening.text = fmt.Sprintf("interface %s was made again in network namespace %s, which was deleted and made again", t.cfg.Name, t.cfg.Netns)
	t.Log.Warn("the network namespace of interface "+t.cfg.Name+" was deleted: making the interface in the namespace that now has its name", zap.String("netns", t.cfg.Netns))
}
