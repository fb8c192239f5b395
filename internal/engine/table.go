package engine

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/internal/probe"
)

// table is where packets that arrive find the peer that they come from. It is
// immutable, and read by all inbounds: a change replaces it.
type table struct {
	pairs4 map[[8]byte]*end  // by the peer's address and ours, as they stand in a packet
	pairs6 map[[32]byte]*end // the same for IPv6
	zoned  map[zoned]*end    // the same where our address is link-local
	any    map[netip.Addr][]*end
}

// zoned is a pair of addresses of IPv6 on one link.
type zoned struct {
	pair [32]byte
	zone uint32
}

// end is one peer's in a table.
type end struct {
	peer     *peer
	arrives  *atomic.Pointer[path] // by which packets are decapsulated
	protocol byte
	gre      encap.GRE
	local    [16]byte // our end of the layer that probes test; zero: there is none
	remote   [16]byte // the peer's
	host     bool     // the interface does not carry it, so that we must answer there
	link     bool     // of those that take packets from everywhere, one to be asked last
	next     *end     // with the same addresses, but another protocol or key
}

// newEnd is a peer's by a path, and by those that replace it between the same ends.
func newEnd(p *peer, arrives *atomic.Pointer[path]) *end {
	path := arrives.Load()
	l := path.outer()
	e := &end{peer: p, arrives: arrives, protocol: l.Kind.Protocol(), gre: l.GRE}
	if ours, theirs, ok := probe.Ends(path.layers); ok {
		e.local, e.remote = ours.As16(), theirs.As16()
		e.host = !slices.ContainsFunc(p.t.cfg.Address, func(a netip.Prefix) bool { return a.Addr() == ours })
	}
	return e
}

// path is by which the end's packets are decapsulated.
func (e *end) path() *path { return e.arrives.Load() }

// add lets packets between a path's addresses come to an end.
func (t *table) add(e *end, l *encap.Layer) {
	switch {
	case l.Resolver != nil:
		// A mechanism that joins groups is a link, on which anybody may be: what
		// another one takes is that one's.
		e.link = len(groups(l)) > 0
		list := t.any[l.Local]
		at := slices.IndexFunc(list, func(other *end) bool { return other.link && !e.link })
		if at < 0 {
			at = len(list)
		}
		t.any[l.Local] = slices.Insert(list, at, e)
	case l.Kind.Over() == 4:
		remote, local := l.Remote.As4(), l.Local.As4()
		pair := [8]byte(append(remote[:], local[:]...))
		e.next = t.pairs4[pair]
		t.pairs4[pair] = e
	default:
		remote, local := l.Remote.As16(), l.Local.As16()
		pair := [32]byte(append(remote[:], local[:]...))
		if zone := zoneOf(l.Local); zone != 0 {
			e.next = t.zoned[zoned{pair, zone}]
			t.zoned[zoned{pair, zone}] = e
			return
		}
		e.next = t.pairs6[pair]
		t.pairs6[pair] = e
	}
}

// twin is an end with the same packets as one that is to be added; nil: there is
// none. It gets none of them then.
func (t *table) twin(e *end, l *encap.Layer) *end {
	var twin *end
	switch {
	case l.Resolver != nil:
		return nil
	case l.Kind.Over() == 4:
		remote, local := l.Remote.As4(), l.Local.As4()
		twin = t.pairs4[[8]byte(append(remote[:], local[:]...))]
	default:
		remote, local := l.Remote.As16(), l.Local.As16()
		twin = t.from6([32]byte(append(remote[:], local[:]...)), zoneOf(l.Local))
	}
	for twin != nil && !twin.alike(e) {
		twin = twin.next
	}
	return twin
}

// alike reports whether nothing but the addresses tells the packets of two ends apart.
func (e *end) alike(o *end) bool {
	keyed, key := e.gre.Inward()
	otherKeyed, other := o.gre.Inward()
	return e.protocol == o.protocol && keyed == otherKeyed && key == other
}

// from6 is the first end with a pair of addresses: if there is a zone, at that link.
func (t *table) from6(pair [32]byte, zone uint32) *end {
	if zone != 0 {
		return t.zoned[zoned{pair, zone}]
	}
	return t.pairs6[pair]
}

// find is the end for a packet with a whole IP header that came to a link-local address
// of ours in a zone, or, if that is 0, to another one; nil: there is none, but perhaps
// one of those that take packets from everywhere.
func (t *table) find(pkt []byte, zone uint32) *end {
	if header.Version(pkt) == 6 {
		ip := header.IPv6(pkt)
		return t.from6([32]byte(pkt[8:]), zone).match(ip.NextHeader(), ip.Payload())
	}
	ip := header.IPv4(pkt)
	e := t.pairs4[[8]byte(pkt[12:])]
	if e == nil {
		return nil
	}
	return e.match(ip.Protocol(), pkt[min(len(pkt), max(ip.HeaderLen(), header.IPv4Len)):])
}

// match is the end among those with the same addresses that a packet is for, of
// which payload follows the delivery header. Where there is a choice of keys, GRE
// packets with none of them go to the first, which refuses them.
func (e *end) match(protocol byte, payload []byte) *end {
	var first *end
	for ; e != nil; e = e.next {
		if e.protocol != protocol {
			continue
		}
		if protocol != header.GRE {
			return e
		}
		if h, _ := header.PeekGRE(payload); e.gre.Takes(&h) {
			return e
		}
		if first == nil {
			first = e
		}
	}
	return first
}

// about is the end whose packet an ICMP error quotes, or that a message from the
// peer's outer address concerns: source and destination are those of what we sent.
// Is says which of those between the addresses it is.
func (t *table) about(quote []byte, zone uint32, is func(*end) bool) *end {
	var e *end
	if header.Version(quote) == 6 {
		ip := header.IPv6(quote)
		e = t.from6([32]byte(append(slices.Clone(ip.Dest()), ip.Source()...)), zone)
	} else {
		ip := header.IPv4(quote)
		e = t.pairs4[[8]byte(append(slices.Clone(ip.Dest()), ip.Source()...))]
	}
	for ; e != nil; e = e.next {
		if is(e) {
			return e
		}
	}
	if header.Version(quote) == 4 {
		for _, e := range t.any[header.IPv4(quote).Src()] {
			if is(e) {
				return e
			}
		}
	}
	return nil
}
