package engine

import (
	"fmt"
	"net/netip"
	"slices"

	"sixfour/internal/netcfg"
)

// selfWaiting says why a peer waits whose outer address is one of this host, or "".
// A tunnel to itself takes what it sends for the peer's: whatever is forwarded into
// it would be forwarded again, until its hop limit is used up (RFC 6324 section 3).
func (e *Engine) selfWaiting(p *peer, remote netip.Addr, route netcfg.Route) string {
	t := p.t
	switch {
	case t.automatic() && t.mech.onlyOurs():
		return fmt.Sprintf("a relay or router that is another host: %s is an address of this host itself: correct the configuration, or the name", t.mech.firstHost())
	case t.automatic() || !route.Ours || e.meets(t, remote, route):
		return ""
	case p.remote().Name != "":
		p.isDoubtful() // whether it still has that address
		return fmt.Sprintf("another address of %s: %v is an address of this host itself, so that the tunnel would lead to its own end: correct the name (DNS, /etc/hosts), or set remote to the other host's address", p.remote().Name, remote)
	}
	return fmt.Sprintf("another remote: %v is an address of this host itself, so that the tunnel would lead to its own end: set remote to the other host's address, or remove the address here (ip addr)", remote)
}

// meets reports whether a remote address of this host is the other end of a tunnel
// whose two ends are on this host by intention: they have outer addresses of their
// own, and their interfaces are in different network namespaces, so that nothing goes
// round. The other end may be another process's where our interface is not in the
// daemon's own namespace.
func (e *Engine) meets(t *tunnel, remote netip.Addr, route netcfg.Route) bool {
	local := t.local()
	if !local.IsValid() {
		local = route.Source
	}
	if local == remote {
		return false
	}
	for _, other := range e.tunnels {
		if other.local() == remote && slices.ContainsFunc(other.peers, func(p *peer) bool { return p.outerRemote() == local }) {
			return other.cfg.Netns != t.cfg.Netns
		}
	}
	return t.cfg.Netns != ""
}

// isOurs reports whether an IPv4 address is one of this host, as far as the mechanism
// was told.
func (m *mechanism) isOurs(a netip.Addr) bool {
	return a.IsLoopback() || slices.ContainsFunc(m.links, func(l netip.Prefix) bool { return l.Addr() == a })
}

// onlyOurs reports whether the mechanism needs another host to reach what no address
// shows the way of, and has nothing but this host for it. The relays of a border
// relay, and of a server that relays itself, are colleagues, of whom none is needed.
func (m *mechanism) onlyOurs() bool {
	if isBorderRelay(m.cfg) {
		return false
	}
	known, ours := 0, 0
	for _, a := range slices.Concat(m.hosts...) {
		if known++; m.isOurs(a) {
			ours++
		}
	}
	return known > 0 && known == ours
}

// firstHost is how the configuration, and the address, name the first host.
func (m *mechanism) firstHost() string {
	for i, h := range m.cfg.Hosts() {
		if len(m.hosts[i]) == 0 {
			continue
		}
		if h.Name != "" {
			return fmt.Sprintf("%v, which %s is,", m.hosts[i][0], h.Name)
		}
		return m.hosts[i][0].String()
	}
	return ""
}
