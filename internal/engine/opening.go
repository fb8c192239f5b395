package engine

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/iface"
	"sixfour/internal/netns"
	"sixfour/internal/report"
	"sixfour/internal/tunif"
)

// openTime limits how long the start waits for another process to release interfaces, for
// all tunnels together.
const openTime = 2 * time.Second

// tryOpen makes a tunnel's interface as far as possible now. If it fails, or if addresses
// or routes are missing, the tunnel waits and is retried.
func (e *Engine) tryOpen(t *tunnel) {
	s := t.settings()
	s.Partial, s.NoWait = true, time.Since(e.about.started) > openTime
	if err := e.open(t, s); err != nil {
		t.Lack(err)
	}
}

// open makes a tunnel's interface. Peers with a path can then carry packets.
func (e *Engine) open(t *tunnel, s iface.Settings) error {
	if err := t.OpenKept(e.arrivals.Sockets.Kept, s, e.interfaceGone); err != nil {
		return err
	}
	e.watcher.Made(t.cfg.Netns, t.Link.Namespace())
	if t.Waits() != "" {
		return nil
	}
	for p := range t.paths() {
		if wire := p.Wire.Load(); wire != nil {
			p.reportWire(wire)
		}
	}
	return nil
}

// interfaceLost handles that a tunnel's interface was deleted.
func (e *Engine) interfaceLost(t *tunnel) {
	name := "interface " + t.cfg.Name
	e.loseInterface(t, name+" was deleted", tunif.Loss{Waits: "its interface, which was deleted", Repair: report.Interface, Text: name + ", which was deleted, was made again"})
	t.Log.Error(name + " was deleted by another program: making it again; to remove it, delete the tunnel from the configuration and reload")
}

// loseInterface drops an interface that cannot be used any more; it will be made again.
func (e *Engine) loseInterface(t *tunnel, note string, l tunif.Loss) {
	for p := range t.paths() {
		p.publish(nil)
	}
	t.Lose(l, e.arrivals.Sockets.Kept, t.wires.Senders)
	for p := range t.paths() {
		p.report.Note(note)
		p.report.Waits(l.Waits, p.isLookedUp())
	}
}

// followNamespaces checks whether the namespaces with tunnels' interfaces still exist, and
// reports whether one does not. A deleted namespace exists as long as our interface is in
// it, but nothing can reach the interface there.
func (e *Engine) followNamespaces() (changed bool) {
	known := make(netns.IDs)
	for _, t := range e.tunnels {
		if t.cfg.Netns == "" || t.Link == nil {
			continue
		}
		if err := t.NamespaceLost(t.cfg.Netns, known); err != nil {
			e.namespaceLost(t, err)
			changed = true
		}
	}
	return changed
}

// namespaceLost drops the interface in a deleted namespace. It is made again at once in the
// namespace that now has the name, or as soon as there is one.
func (e *Engine) namespaceLost(t *tunnel, why error) {
	e.watcher.Lost(t.cfg.Netns)
	t.Discard(e.arrivals.Sockets.Kept)
	e.loseInterface(t, why.Error(), tunif.Loss{
		Waits: "its " + why.Error(), Repair: report.Namespace, AtOnce: true,
		Text: fmt.Sprintf("interface %s was made again in network namespace %s, which was deleted and made again", t.cfg.Name, t.cfg.Netns),
	})
	t.Log.Warn("the network namespace of interface "+t.cfg.Name+" was deleted: making the interface in the namespace that now has its name", zap.String("netns", t.cfg.Netns))
}
