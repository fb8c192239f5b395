package engine

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/internal/probe"
)

// table maps packets that arrive to their peers. It is immutable, and all inbounds read it;
// a change replaces it.
type table struct {
	pairs4 map[[8]byte]*end  // by the peer's address and ours, in the order of a packet
	pairs6 map[[32]byte]*end // the same for IPv6
	zoned  map[zoned]*end    // the same if our address is link-local
	any    map[netip.Addr][]*end
}

// zoned is a pair of IPv6 addresses on one link.
type zoned struct {
	pair [32]byte
	zone uint32
}

// end is the entry of one peer in a table.
type end struct {
	path     *dataPath
	arrives  *atomic.Pointer[Wire] // the path that decapsulates packets
	protocol byte
	framing  encap.Framing // it tells packets with the same addresses apart; nil: it cannot
	identity uint64        // of the framing
	local    [16]byte      // our address of the layer that probes test; zero: none
	remote   [16]byte      // the peer's address of that layer
	host     bool          // the interface does not have local, so the daemon answers there
	link     bool          // in table.any: to be asked after the others
	next     *end          // entry with the same addresses, but another protocol or framing
}

// newEnd makes an entry for a path's wire, and for later wires with the same ends.
// HasAddress reports whether the tunnel's interface has an address.
func newEnd(p *dataPath, arrives *atomic.Pointer[Wire], hasAddress func(netip.Addr) bool) *end {
	wire := arrives.Load()
	l := wire.outer()
	e := &end{path: p, arrives: arrives}
	e.frame(l.Kind)
	if ours, theirs, ok := probe.Ends(wire.layers); ok {
		e.local, e.remote = ours.As16(), theirs.As16()
		e.host = !hasAddress(ours)
	}
	return e
}

// frame sets what the framing of an outermost layer shows of its packets.
func (e *end) frame(k encap.Kind) {
	f := k.Properties()
	e.protocol, e.identity = f.Protocol, f.Identity
	if f.Optional {
		e.framing = k.Framing()
	}
}

// wire returns the path that decapsulates the end's packets.
func (e *end) wire() *Wire { return e.arrives.Load() }

// add adds an entry for the addresses of a layer.
func (t *table) add(e *end, l *encap.Layer) {
	switch {
	case l.Resolver != nil:
		// A mechanism that joins groups is a link that any host may be on: other
		// mechanisms get the packet first.
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

// conflict returns a conflicting entry, one that matches the same packets as an entry to be
// added; nil: there is none. The conflicting entry would get no packets any more.
func (t *table) conflict(e *end, l *encap.Layer) *end {
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
	for twin != nil && !twin.matchesSame(e) {
		twin = twin.next
	}
	return twin
}

// matchesSame reports whether two entries with the same addresses match the same packets.
func (e *end) matchesSame(o *end) bool {
	return e.protocol == o.protocol && e.identity == o.identity
}

// from6 returns the first entry for a pair of addresses, on the link of zone unless it is 0.
func (t *table) from6(pair [32]byte, zone uint32) *end {
	if zone != 0 {
		return t.zoned[zoned{pair, zone}]
	}
	return t.pairs6[pair]
}

// find returns the entry for a packet with a complete IP header. Zone is that of our
// link-local address at which the packet arrived, or 0. Nil means that there is no entry,
// but one in any may still match.
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

// match returns the entry that matches a packet, among those with the same addresses.
// Payload is what follows the delivery header. A packet that matches no framing,
// such as GRE with an unknown key, goes to the first entry of its protocol, which drops it.
func (e *end) match(protocol byte, payload []byte) *end {
	var first *end
	for ; e != nil; e = e.next {
		if e.protocol != protocol {
			continue
		}
		if e.framing == nil || e.framing.Matches(payload) {
			return e
		}
		if first == nil {
			first = e
		}
	}
	return first
}

// about returns the entry of the packet that an ICMP message concerns. Quote begins with
// an IP header whose source and destination are those of a packet that we sent. Is selects
// among the entries for these addresses.
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
