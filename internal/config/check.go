package config

import (
	"net/netip"

	"github.com/gaissmai/bart"
)

// checkLoop reports routes that would take the outer packets into the tunnel
// again, and peers through which they would go. In a namespace of its own the
// interface's routes do not concern them, and by a mark a rule can keep them away
// from these routes.
func (d *draft) checkLoop(r *report) {
	if d.Netns != "" || d.FwMark != 0 || d.state.bad["netns"] || d.state.bad["fwmark"] {
		return
	}
	const wayOut = "choose a prefix without it, set netns to move the interface into a namespace of its own, " +
		"or set fwmark and add a rule that routes marked packets elsewhere"
	var remotes bart.Table[*Peer]
	for i := range d.Peers {
		p := &d.Peers[i]
		if a := p.outermost().Addr; a.IsValid() {
			remotes.Insert(netip.PrefixFrom(a, a.BitLen()), p)
		}
	}
	loop := func(key string, prefixes []netip.Prefix, at []pos) {
		for i, prefix := range prefixes {
			if key == "allowed" && prefix.Bits() == 0 {
				continue // everything else is behind the peer; no route follows from it
			}
			for remote, p := range remotes.Subnets(prefix.Masked()) { // one example is enough
				r.add(at[i], "%s has %v, which holds remote %v%s, so that outer packets would go into the tunnel again: %s",
					key, prefix, remote.Addr(), p.whose(), wayOut)
				break
			}
		}
	}
	loop("address", d.Address, d.addressAt)
	loop("routes", d.Routes, d.routesAt)
	for _, p := range d.peers {
		loop("allowed", p.Allowed, p.allowedAt)
	}
}

// outermost is the remote end of the outermost layer; zero if there is none.
func (p *Peer) outermost() Host {
	if len(p.Remotes) == 0 {
		return Host{}
	}
	return p.Remotes[len(p.Remotes)-1]
}

// whose names a peer in a problem.
func (p *Peer) whose() string {
	if p.Name == "" {
		return ""
	}
	return " of peer " + quote(p.Name)
}
