package configfile

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
)

// checkLoop reports routes that certainly lead outer packets into the tunnel again: a
// subnet of the interface that contains the peer, and a route to the peer alone. With a
// shorter prefix this depends on the host's other routes; the daemon queries the kernel
// for them when it runs. If the interface is in another namespace, its routes do not
// affect outer packets; with a mark, a routing rule can bypass these routes.
func (d *draft) checkLoop(r *problem.Report) {
	if d.Netns != "" || d.FwMark != 0 || d.state.Bad["netns"] || d.state.Bad["fwmark"] {
		return
	}
	const remedy = "choose a prefix without it, set netns to move the interface into a namespace of its own, " +
		"or set fwmark and add a rule that routes marked packets elsewhere"
	var remotes bart.Table[*config.Peer]
	for p, path := range d.AllPaths() {
		if a := path.Remote.Addr; a.IsValid() {
			remotes.Insert(netip.PrefixFrom(a, a.BitLen()), p)
		}
	}
	loop := func(key string, prefix netip.Prefix, at problem.Pos) {
		for remote, p := range remotes.Subnets(prefix.Masked()) { // one example is enough
			r.Add(at, "%s has %v, which holds remote %v%s, so that outer packets would go into the tunnel again: %s",
				key, prefix, remote.Addr(), ofPeer(p), remedy)
			break
		}
	}
	for i, p := range d.Address {
		loop("address", p, d.addressAt[i])
	}
	key := "routes"
	if !d.state.Set[key] {
		key = "allowed" // which the routes follow
	}
	for i, p := range d.Routes {
		if p.IsSingleIP() {
			loop(key, p, d.routesAt[i])
		}
	}
}

// ofPeer names a peer in a problem.
func ofPeer(p *config.Peer) string {
	if p.Name == "" {
		return ""
	}
	return " of peer " + problem.Quote(p.Name)
}
