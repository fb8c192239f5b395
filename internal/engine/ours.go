package engine

import (
	"cmp"
	"fmt"
	"net/netip"

	"sixfour/internal/netcfg"
)

// selfWaiting returns why a peer waits whose outer address is an address of this host, or
// "". A tunnel to itself receives its own packets as the peer's: a packet forwarded into it
// would be forwarded again and again until its hop limit is used up (RFC 6324 section 3).
func (e *Engine) selfWaiting(p *path, remote netip.Addr, route netcfg.Route) string {
	if p.t.automatic() {
		if host, only := p.t.mech.OnlyOurs(); only {
			return fmt.Sprintf("a relay or router that is another host: %s is an address of this host itself: correct the configuration, or the name", host)
		}
		return ""
	}
	switch {
	case !route.ToThisHost || e.meets(p, remote, route) || p.isBehindProxy():
		return ""
	case p.remote().Name != "":
		p.far.Doubt() // look the name up again
		return fmt.Sprintf("another address of %s: %v is an address of this host itself, so that the tunnel would lead to its own end: correct the name (DNS, /etc/hosts), or set remote to the other host's address", p.remote().Name, remote)
	}
	return fmt.Sprintf("another remote: %v is an address of this host itself, so that the tunnel would lead to its own end: set remote to the other host's address, or remove the address here (ip addr)", remote)
}

// isBehindProxy reports whether peers come to the path through a program on this host, such
// as a web server that passes connections on. Their other end is where they come from before.
func (p *path) isBehindProxy() bool {
	of := p.spec()
	return of.Listen && of.Session != nil && of.Local.IsLoopback()
}

// proxiedMTU is the MTU of paths through a program on this host. That of the loopback
// interface says nothing about the rest of the way.
const proxiedMTU = 1500

// meets reports whether a remote address of this host is the other end of a tunnel with
// both ends intentionally on this host: they have different outer addresses, and their
// interfaces are in different network namespaces, so that there is no loop. If our
// interface is not in the daemon's namespace, the other end may belong to another process.
func (e *Engine) meets(p *path, remote netip.Addr, route netcfg.Route) bool {
	local := cmp.Or(p.local(), route.Source)
	if local == remote {
		return false
	}
	for _, other := range e.tunnels {
		if other.anyPath(func(o *path) bool { return o.local() == remote && o.outerRemote() == local }) {
			return other.cfg.Netns != p.t.cfg.Netns
		}
	}
	return p.t.cfg.Netns != ""
}
