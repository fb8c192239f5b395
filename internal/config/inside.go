package config

import (
	"net/netip"
	"slices"
)

// Pair is an address of ours inside a tunnel, and one that a peer may have there.
type Pair struct {
	Local, Remote netip.Addr
	Sure          bool // the peer has it, if it is as the configuration says
}

// Inside are what a peer's inner addresses may be, of the IP versions that the tunnel
// carries: the hosts that it alone may have as a source, of which the only one in a
// subnet of ours must be its own; and, where there is one peer only, the other address
// of a subnet for two, and the first two of larger ones.
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
			all = append(all, Pair{own.Addr(), h, h == sure})
		}
		if t.Hub {
			continue
		}
		others, only := otherHosts(own)
		for _, other := range others {
			all = append(all, Pair{own.Addr(), other, only})
		}
	}
	return all
}

// peerHosts are the hosts among the prefixes that a peer may have as a source, of the
// version of an address of ours, and the one that is in its subnet; invalid: there is
// none, or more.
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

// otherHosts are addresses that the other end of a subnet may have; sure: it must be
// that one.
func otherHosts(own netip.Prefix) (others []netip.Addr, sure bool) {
	first := own.Masked().Addr()
	host := own.Addr().BitLen() - own.Bits()
	switch host {
	case 0:
		return nil, false
	case 1: // RFC 3021, RFC 6164: both addresses are hosts
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
// answers there.
var (
	b4   = netip.AddrFrom4([4]byte{192, 0, 0, 2})
	aftr = netip.AddrFrom4([4]byte{192, 0, 0, 1})
)

// maxProbed is how many pairs are tried at most: each is a packet a probe, until one of
// them has answered.
const maxProbed = 4

// Probed are the pairs between which echo requests show whether a peer lives: only that
// of the configuration's probe, if it has one, or else those that Inside shows, the sure
// ones first. To a peer of a hub only sure ones belong.
func (t *Tunnel) Probed(p *Peer) []Pair {
	if p.Probe.IsValid() {
		return []Pair{{t.askFrom(p.Probe), p.Probe, true}}
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
	all := append(sure, guessed...)
	return all[:min(len(all), maxProbed)]
}

// askFrom is the address of ours from which another inner address is asked: of the same
// subnet if there is one; invalid: there is none of its IP version.
func (t *Tunnel) askFrom(a netip.Addr) (from netip.Addr) {
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

// IsNeighbour reports whether an inner address is in a subnet of ours: no router is in
// between.
func (t *Tunnel) IsNeighbour(a netip.Addr) bool {
	return slices.ContainsFunc(t.Address, func(own netip.Prefix) bool { return own.Contains(a) })
}
