package resolve

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// place is a Site in the form that the resolvers of automatic mechanisms use, with the
// checks that they have in common.
type place struct {
	local     uint32
	own4      []uint32       // addresses of this host, including Local
	broadcast []uint32       // broadcast addresses of the host's subnets
	own6      []header.Word6 // the interface's addresses
	strict    bool
	home      []header.Prefix6 // prefixes of this mechanism, in which an address of ours may be embedded
	delegated []header.Prefix6
	elsewhere []header.Prefix6 // subnets of other links
}

func newPlace(at Site, mechanism string) (place, error) {
	local, ok := word4(at.Local)
	if !ok || !unicast4(local) {
		return place{}, fmt.Errorf("%s: local address %v: the mechanism needs an IPv4 address of this host: set local to one", mechanism, at.Local)
	}
	p := place{local: local, own4: []uint32{local}, strict: at.Strict}
	for _, l := range at.Links {
		if a, ok := word4(l.Addr()); ok {
			p.own4 = append(p.own4, a)
			if l.Bits() < 31 { // RFC 3021: a link of two addresses has no broadcast
				p.broadcast = append(p.broadcast, a|(1<<(32-l.Bits())-1))
			}
		}
	}
	for _, o := range at.Own {
		if o.Addr().Is6() {
			b := o.Addr().As16()
			p.own6 = append(p.own6, header.ReadWord6(b[:]))
		}
	}
	p.delegated, p.elsewhere = header.Prefixes6(at.Delegated), header.Prefixes6(at.Elsewhere)
	return p, nil
}

// mine reports whether an IPv4 address is an address of this host.
func (p *place) mine(a uint32) bool { return a == p.local || slices.Contains(p.own4, a) }

// reachable4 reports whether an address can be a remote address on any network: it is
// unicast, and not a broadcast address of this host's subnets.
func (p *place) reachable4(a uint32) bool {
	return unicast4(a) && !slices.Contains(p.broadcast, a)
}

// global4 is reachable4 for the Internet: private addresses are excluded.
func (p *place) global4(a uint32) bool {
	return !Martian4(a, p.strict) && !slices.Contains(p.broadcast, a)
}

// leads checks whether an inner packet may go to an outer address without coming back to
// us (RFC 6324 section 3.1, RFC 6169 section 5).
func (p *place) leads(ip header.IPv6, dst uint32) drop.Reason {
	if p.mine(dst) || p.returns(header.ReadWord6(ip.Source())) || p.returns(header.ReadWord6(ip.Dest())) {
		return drop.Loop
	}
	return drop.None
}

// returns reports whether an inner address embeds an IPv4 address of ours by another
// mechanism: a packet to it, or an answer to it, would be tunnelled to ourselves.
func (p *place) returns(a header.Word6) bool { return p.returnsTo(p.home, a) }

func (p *place) returnsTo(home []header.Prefix6, a header.Word6) bool {
	if !embeds(a) && len(p.delegated) == 0 || header.Within(home, a) {
		return false
	}
	switch {
	case is6to4(a) && p.mine(v4of6to4(a)),
		isISATAP(a) && p.mine(uint32(a.Lo)),
		isTeredo(a) && p.mine(^uint32(a.Lo)):
		return true
	}
	return header.Within(p.delegated, a)
}

// noLink reports whether an inner address is invalid on a link without neighbours, such
// as that of 6to4, 6rd and automatic tunnels. Link-local addresses are, because they do
// not show which node has them; multicast addresses are, because such a link has no
// multicast (RFC 3964 section 5.3.2, RFC 5969 section 10).
func noLink(a header.Word6) bool {
	return a.Hi>>56 == 0xff || header.IsLinkLocal(a) || a.Hi>>54 == 0xfec0>>6
}

// unicast4 reports whether an IPv4 address can be the address of a host.
func unicast4(a uint32) bool { return a>>24 != 0 && a>>24 != 127 && a < 224<<24 }

// private4 reports whether an IPv4 address is one of RFC 1918.
func private4(a uint32) bool { return a>>24 == 10 || a>>20 == 0xac1 || a>>16 == 0xc0a8 }

func source4(o header.Outer) uint32 { return EndpointOf(o.From).IPv4() }

// word4 returns an IPv4 address as a number.
func word4(a netip.Addr) (uint32, bool) {
	a = a.Unmap()
	if !a.Is4() {
		return 0, false
	}
	b := a.As4()
	return binary.BigEndian.Uint32(b[:]), true
}

func addr4(a uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], a)
	return netip.AddrFrom4(b)
}

// outer4 returns the IPv4 addresses of hosts in their order, with those that are down
// last. It omits our own, so that all hosts on a list can have the same list.
func (p *place) outer4(hosts []Host, at Site) (out []uint32) {
	var down []uint32
	for i, h := range hosts {
		addrs := []netip.Addr{h.Addr}
		if !h.Addr.IsValid() && i < len(at.Hosts) {
			addrs = at.Hosts[i]
		}
		for _, a := range addrs {
			w, ok := word4(a)
			switch {
			case !ok || !unicast4(w) || p.mine(w) || slices.Contains(out, w) || slices.Contains(down, w):
			case slices.Contains(at.Down, a):
				down = append(down, w)
			default:
				out = append(out, w)
			}
		}
	}
	return append(out, down...)
}

// mayBeOnLink reports whether a router may announce that a prefix is on this link. It must not
// be a prefix of this host's own addresses of other mechanisms, because the checks of RFC
// 6324 let destinations on this link pass, nor a subnet of another link.
func (p *place) mayBeOnLink(a header.Word6) bool {
	return (!is6to4(a) || !p.mine(v4of6to4(a))) && !header.Within(p.delegated, a) && !header.Within(p.elsewhere, a)
}
