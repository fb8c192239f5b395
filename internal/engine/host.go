package engine

import (
	"net/netip"
	"slices"

	"sixfour/internal/netcfg"
)

// watchAll follows changes in our own namespace and in those of the tunnels' interfaces, and
// stops following others.
func (e *Engine) watchAll(tunnels []*tunnel) {
	e.watcher.Follow(namespacesOf(tunnels), slices.ContainsFunc(tunnels, (*tunnel).mayBypass))
}

// namespacesOf returns the namespaces of the tunnels' interfaces.
func namespacesOf(tunnels []*tunnel) []string {
	namespaces := make([]string, len(tunnels))
	for i, t := range tunnels {
		namespaces[i] = t.cfg.Netns
	}
	return namespaces
}

// changed handles a change reported for a namespace.
func (e *Engine) changed(namespace string, c netcfg.Change) {
	if c != (netcfg.Change{}) {
		e.touch(namespace, c)
	}
	e.somethingChanged()
}

// somethingChanged makes the control loop evaluate everything soon. It never blocks. Any
// goroutine may call it.
func (e *Engine) somethingChanged() {
	select {
	case e.notify <- struct{}{}:
	default:
	}
}

// touch marks the tunnels whose interface or route has changed.
func (e *Engine) touch(namespace string, c netcfg.Change) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, t := range e.tunnels {
		if t.cfg.Netns == namespace && (c.Link != 0 && t.Index.Load() == int64(c.Link) || c.Replaced.IsValid() && slices.ContainsFunc(t.cfg.Routes, func(p netip.Prefix) bool { return p.Masked() == c.Replaced })) {
			t.Touch()
		}
	}
}

// readHost updates what tunnels need to know about the host: its addresses in our own
// namespace and in each namespace with a tunnel's interface.
func (e *Engine) readHost() {
	e.addresses.Read(e.router, namespacesOf(e.tunnels))
	own := e.addresses.Own()
	for _, t := range e.tunnels {
		t.surroundings.Update(&e.addresses, t.cfg.Netns, int(t.Index.Load()), t.behind)
		if t.mech != nil {
			t.mech.SetOwn(own)
		}
	}
}

// isAutomatic reports whether a link is the interface of an automatic tunnel.
func (e *Engine) isAutomatic(namespace string, link int) bool {
	return slices.ContainsFunc(e.tunnels, func(t *tunnel) bool {
		return t.automatic() && t.cfg.Netns == namespace && int(t.Index.Load()) == link
	})
}

// behind returns the prefixes at and behind the tunnel's interface. In a hub, the table of
// peers decides which of them may send a packet.
func (t *tunnel) behind() [][]netip.Prefix {
	behind := [][]netip.Prefix{t.addresses(), t.cfg.Routes}
	for i := range t.cfg.Peers {
		behind = append(behind, t.cfg.Peers[i].Allowed)
	}
	return behind
}
