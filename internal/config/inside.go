package config

import (
	"net/netip"
	"slices"
)

// Pair is an inner address of ours and one that a peer may have.
type Pair struct {
	Local, Remote netip.Addr
	Sure          bool // by the configuration, the peer must have it
	Near          bool // it is in a subnet of ours: no router is between
}

// Inside returns the possible inner addresses of a peer, for the IP versions that the
// tunnel carries. These are the single addresses that only this peer may have as a
// source; if only one of them is in a subnet of ours, the peer must have it. If there is
// only one peer, they are also the other address of a subnet for two hosts, and the
// first two addresses of larger subnets.
func (t *Tunnel) Inside(p *Peer) (all []Pair) {
	for _, own := range t.Address {
		version := 4
		if own.Addr().Is6() {
			version = 6
		}
		if !t.Mode.Carries(version) {
			continue
		}
		hosts, sure := peerHosts(own, p.Allowed)
		for _, h := range hosts {
			all = append(all, Pair{own.Addr(), h, h == sure, own.Contains(h)})
		}
		if t.Hub {
			continue
		}
		others, only := otherHosts(own)
		for _, other := range others {
			all = append(all, Pair{own.Addr(), other, only, true})
		}
	}
	return all
}

// peerHosts returns the single addresses that a peer may have as a source, of the IP
// version of own, and the only one that is in the subnet of own. The latter is invalid
// if there is none or more than one.
func peerHosts(own netip.Prefix, allowed []netip.Prefix) (hosts []netip.Addr, in netip.Addr) {
	n := 0
	for _, a := range allowed {
		if !a.IsSingleIP() || a.Addr().Is4() != own.Addr().Is4() || a.Addr() == own.Addr() {
			continue
		}
		hosts = append(hosts, a.Addr())
		if own.Contains(a.Addr()) {
			in, n = a.Addr(), n+1
		}
	}
	if n != 1 {
		in = netip.Addr{}
	}
	return hosts, in
}

// otherHosts returns addresses that the other end of a subnet may have. If sure is set,
// it must have the only one.
func otherHosts(own netip.Prefix) (others []netip.Addr, sure bool) {
	first := own.Masked().Addr()
	host := own.Addr().BitLen() - own.Bits()
	switch host {
	case 0:
		return nil, false
	case 1: // RFC 3021, RFC 6164: both addresses can be used
		if own.Addr() == first {
			return []netip.Addr{first.Next()}, true
		}
		return []netip.Addr{first}, true
	}
	for a := first.Next(); len(others) < 2 && a.IsValid(); a = a.Next() {
		if a == first.Next().Next().Next() {
			break
		}
		if a != own.Addr() {
			others = append(others, a)
		}
	}
	return others, host == 2 && len(others) == 1
}

// The inner addresses of the two ends of DS-Lite (RFC 6333 section 5.7). Not every AFTR
// answers on its address.
var (
	b4   = netip.AddrFrom4([4]byte{192, 0, 0, 2})
	aftr = netip.AddrFrom4([4]byte{192, 0, 0, 1})
)

// maxProbed is how many pairs are tried at most. Each costs a packet per probe until one
// of them has answered.
const maxProbed = 4

// Probed returns the pairs of addresses between which echo requests test whether a peer
// is reachable. If the configuration has a probe, that is the only one; otherwise they
// are those of Inside, sure ones first. For a peer of a hub only sure ones are used.
func (t *Tunnel) Probed(p *Peer) []Pair {
	if p.Probe.IsValid() {
		return []Pair{{t.SourceFor(p.Probe), p.Probe, true, t.isNeighbour(p.Probe)}}
	}
	var sure, guessed []Pair
	for _, pair := range t.Inside(p) {
		switch {
		case pair.Sure || pair.Local == b4 && pair.Remote == aftr:
			sure = append(sure, pair)
		case !t.Hub && pair.Local != b4:
			guessed = append(guessed, pair)
		}
	}
	sure = append(sure, guessed...)
	return sure[:min(len(sure), maxProbed)]
}

// SourceFor returns the inner address of ours from which an echo request to another one is
// sent: one of the same subnet if there is one. It is invalid if we have none of that IP
// version.
func (t *Tunnel) SourceFor(a netip.Addr) (from netip.Addr) {
	for _, own := range t.Address {
		switch {
		case own.Contains(a):
			return own.Addr()
		case !from.IsValid() && own.Addr().Is4() == a.Is4():
			from = own.Addr()
		}
	}
	return from
}

// isNeighbour reports whether an inner address is in a subnet of ours: no router is in
// between.
func (t *Tunnel) isNeighbour(a netip.Addr) bool {
	return slices.ContainsFunc(t.Address, func(own netip.Prefix) bool { return own.Contains(a) })
}
