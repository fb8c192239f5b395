package configfile

import (
	"fmt"
	"net/netip"
	"slices"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/value"
)

// claims are the addresses and routes, according to the file, of the interfaces of a
// network namespace. Only one interface can have each.
type claims struct {
	addresses map[netip.Addr]claim
	subnets   map[netip.Prefix]claim // with more than one address; the kernel adds a route for each
	routes    map[netip.Prefix]claim
}

// claim is the tunnel that has an address, subnet or route.
type claim struct {
	*draft
	alone bool // an address without a subnet
}

// checkClaims reports addresses, subnets and routes that several interfaces have. The
// kernel would use only the first interface.
func (n *neighbours) checkClaims(r *problem.Report, d *draft) {
	if d.state.Bad["netns"] {
		return
	}
	c := n.claims[d.Netns]
	if c == nil {
		c = &claims{map[netip.Addr]claim{}, map[netip.Prefix]claim{}, map[netip.Prefix]claim{}}
		n.claims[d.Netns] = c
	}
	for i, p := range d.Address {
		if !p.Addr().IsLinkLocalUnicast() { // a link-local address is valid on each interface
			c.address(r, d, p, d.addressAt[i])
		}
	}
	for i, p := range d.Routes {
		c.route(r, d, "routes", p, d.routesAt[i])
	}
}

func (c *claims) address(r *problem.Report, d *draft, p netip.Prefix, at problem.Pos) {
	own := claim{d, p.IsSingleIP()}
	other, taken := c.addresses[p.Addr()]
	// A host prefix brings no subnet: an interface may borrow the address of another one.
	if taken && other.draft != d && !own.alone && !other.alone {
		r.Doubt(at, "address has %v, which the tunnel of line %d has: give each tunnel its own, or write it with /%d in all but one", p.Addr(), other.Source.Header.Line, p.Addr().BitLen())
		return
	}
	if !taken || other.alone {
		c.addresses[p.Addr()] = own
	}
	if own.alone {
		return
	}
	subnet := p.Masked()
	if other, taken := c.subnets[subnet]; taken && other.draft != d {
		r.Doubt(at, "address has %v, of a subnet in which the tunnel of line %d has one: packets to %v would take that tunnel: give each tunnel a subnet of its own", p, other.Source.Header.Line, subnet)
		return
	}
	c.subnets[subnet] = own
	if other, taken := c.routes[subnet]; taken && other.draft != d && subnet.Addr().Is4() {
		r.Doubt(at, "address has %v, and the tunnel of line %d has its subnet in routes: leave one of them out", p, other.Source.Header.Line)
	}
}

// route enters a route that a tunnel has by a key.
func (c *claims) route(r *problem.Report, d *draft, key string, p netip.Prefix, at problem.Pos) {
	if other, taken := c.routes[p]; taken {
		r.Doubt(at, "%s has %v, which the tunnel of line %d has: only one of them can have it: leave it out in the other, or give a tunnel many peers ([[tunnel.peer]])", key, p, other.Source.Header.Line)
		return
	}
	c.routes[p] = claim{d, false}
	if other, taken := c.subnets[p]; taken && p.Addr().Is4() {
		because := "which address adds already"
		if other.draft != d {
			because = fmt.Sprintf("which is the subnet of an address of the tunnel of line %d", other.Source.Header.Line)
		}
		r.Doubt(at, "%s has %v, %s: leave it out", key, p, because)
	}
}

// checkAddresses reports addresses of the interface that no host can have, and routes to
// our own addresses.
func (d *draft) checkAddresses(r *problem.Report) {
	for i, p := range d.Address {
		if what, right := notHost(p); what != "" {
			r.Doubt(d.addressAt[i], "address has %v, which is %s: %s", p, what, right)
		} else if d.fills(p, i) {
			r.Doubt(d.addressAt[i], "address has %v, which leaves none of the subnet's two addresses to the other end: leave one out", p)
		}
		d.checkOther(r, p.Addr(), d.addressAt[i])
	}
	for i, p := range d.Routes {
		switch {
		case p.IsSingleIP() && slices.ContainsFunc(d.Address, func(a netip.Prefix) bool { return a.Addr() == p.Addr() }):
			r.Doubt(d.routesAt[i], "routes has %v, which is an address of the interface itself: leave it out, or write the other end's", p)
		case p.Addr().IsLoopback():
			r.Doubt(d.routesAt[i], "routes has %v, which is of this host itself (loopback): leave it out", p)
		}
	}
	for _, p := range d.peers {
		for i, a := range p.Allowed {
			if a.IsSingleIP() && slices.ContainsFunc(d.Address, func(own netip.Prefix) bool { return own.Addr() == a.Addr() }) {
				r.Doubt(p.allowedAt[i], "allowed has %v, which is an address of this end's interface: write the peer's", a)
			}
		}
	}
}

// fills reports whether the address with an index is the second address of ours in a
// subnet with room for only two hosts.
func (d *draft) fills(p netip.Prefix, index int) bool {
	if host := p.Addr().BitLen() - p.Bits(); host != 1 && (host != 2 || p.Addr().Is6()) {
		return false
	}
	return slices.ContainsFunc(d.Address[:index], func(other netip.Prefix) bool { return other.Masked() == p.Masked() })
}

// checkOwnRemotes reports remote ends that are an address of an interface in the file,
// and so of this host.
func checkOwnRemotes(r *problem.Report, drafts []*draft) {
	owners := map[netip.Addr]*draft{}
	for _, d := range drafts {
		if d.Netns != "" || d.state.Bad["netns"] {
			continue
		}
		for _, p := range d.Address {
			owners[p.Addr()] = d
		}
	}
	for _, d := range drafts {
		for p, path := range d.AllPaths() {
			if owner := owners[path.Remote.Addr]; owner != nil && owner != d {
				r.Doubt(path.At, "remote is %v%s, which is an address of the tunnel of line %d, and so this host itself: set it to the other end's outer address", path.Remote.Addr, ofPeer(p), owner.Source.Header.Line)
			}
		}
	}
}

// notHost says why no host of its subnet can have an address, and returns a correction.
// It returns "" if a host can have it.
func notHost(p netip.Prefix) (what, right string) {
	a, bits := p.Addr(), p.Addr().BitLen()
	const atHome = "it must be one that only this end has"
	switch {
	case p.Bits() == 0:
		return "of a subnet that holds every address", fmt.Sprintf("write %v/%d, and what else is behind the tunnel in routes", a, bits)
	case a.IsLoopback():
		return "a loopback address", atHome
	case config.ThisNetwork.Contains(a):
		return "an address of 0.0.0.0/8, which means this network", atHome
	case bits-p.Bits() < 2: // RFC 3021, RFC 6164
		return "", ""
	case a == p.Masked().Addr() && a.Is4():
		return "the subnet's own address", fmt.Sprintf("it must be a host's, such as %v/%d", a.Next(), p.Bits())
	case a == p.Masked().Addr(): // RFC 4291 section 2.6.1
		return "the address of all routers of its subnet (subnet-router anycast)", fmt.Sprintf("it must be a host's, such as %v/%d", a.Next(), p.Bits())
	case a.Is4() && !p.Contains(a.Next()):
		return "the subnet's broadcast address", fmt.Sprintf("it must be a host's, such as %v/%d", a.Prev(), p.Bits())
	}
	return "", ""
}

// checkOther reports an address of the interface that is also the remote end.
func (d *draft) checkOther(r *problem.Report, a netip.Addr, at problem.Pos) {
	for p, path := range d.AllPaths() {
		inner, outer := slices.Contains(p.InnerRemotes, a), path.Remote.Addr == a && d.Netns == ""
		if !inner && !outer {
			continue
		}
		if inner || d.FwMark != 0 { // otherwise checkLoop reports it
			r.Doubt(at, "address has %v, which is the other end's%s: it must be one that only this end has", a, ofPeer(p))
		}
		return
	}
}

// checkReach reports a tunnel with only one end on this host's loopback: no packet can
// go from one end to the other.
func (d *draft) checkReach(r *problem.Report) {
	if len(d.layers) == 0 {
		return
	}
	l := d.layers[len(d.layers)-1]
	local := d.localOf(l)
	for p, path := range d.AllPaths() {
		if remote := path.Remote.Addr; remote.IsValid() && path.Local.IsValid() && remote.IsLoopback() != path.Local.IsLoopback() {
			r.Doubt(path.At, "remote is %v%s and %s is %v, and the loopback network reaches only this host: correct one of them", remote, ofPeer(p), keyOfLocal(*path, local), path.Local)
		}
	}
}

// checkRouted adds routes to the prefixes of peers to which no packet is routed, or, if the
// file sets routes, reports them. The kernel routes by address and routes, or by the default
// route of the [gateway] table, for the versions for which goes returns true. A tunnel
// without address and routes, or with routes = [], is left alone, because another program
// may add its routes; so is one with a peer that takes everything.
func (d *draft) checkRouted(r *problem.Report, n *neighbours, goes func(version int) bool) {
	if len(d.Routes) == 0 && (d.state.Set["routes"] || len(d.Address) == 0) {
		return
	}
	all := map[int]bool{}
	for _, p := range d.peers {
		for _, a := range p.Allowed {
			all[value.Version(a.Addr())] = all[value.Version(a.Addr())] || a.Bits() == 0
		}
	}
	routed := slices.Concat(d.Address, d.Routes)
	for _, p := range d.peers {
		for i, a := range p.Allowed {
			if all[value.Version(a.Addr())] || a.Addr().IsMulticast() || a.Addr().IsLinkLocalUnicast() || goes(value.Version(a.Addr())) || slices.ContainsFunc(routed, a.Overlaps) {
				continue
			}
			if !d.state.Set["routes"] && !a.Addr().IsLoopback() {
				n.claims[d.Netns].route(r, d, "allowed", a, p.allowedAt[i])
				d.Routes, d.routesAt = append(d.Routes, a), append(d.routesAt, p.allowedAt[i])
				continue
			}
			r.Doubt(p.allowedAt[i], "allowed has %v, to which no packet goes, because it is neither in routes nor a part of the interface's subnets: add it to routes (routes = [] if something else makes the routes)", a)
		}
	}
	if len(d.Routes)+len(d.Address) > len(routed) {
		d.checkLoop(r)
	}
}
