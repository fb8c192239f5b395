package datapath

import (
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/internal/probe"
)

// Table maps packets that arrive to their peers. It is immutable, and all inbounds read it;
// a change replaces it.
type Table struct {
	pairs4 map[[8]byte]*End  // by the peer's address and ours, in the order of a packet
	pairs6 map[[32]byte]*End // the same for IPv6
	zoned  map[zoned]*End    // the same if our address is link-local
	any    map[netip.Addr][]*End
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{pairs4: make(map[[8]byte]*End), pairs6: make(map[[32]byte]*End), zoned: make(map[zoned]*End), any: make(map[netip.Addr][]*End)}
}

// zoned is a pair of IPv6 addresses on one link.
type zoned struct {
	pair [32]byte
	zone uint32
}

// End is the entry of one peer in a table.
type End struct {
	Path     *Path
	Arrives  *atomic.Pointer[Wire] // the path that decapsulates packets
	protocol byte
	framing  encap.Framing // it tells packets with the same addresses apart; nil: it cannot
	identity uint64        // of the framing
	local    [16]byte      // our address of the layer that probes test; zero: none
	remote   [16]byte      // the peer's address of that layer
	host     bool          // the interface does not have local, so the daemon answers there
	link     bool          // in table.any: to be asked after the others
	next     *End          // entry with the same addresses, but another protocol or framing
}

// NewEnd makes an entry for a path's wire, and for later wires with the same ends.
// HasAddress reports whether the tunnel's interface has an address.
func NewEnd(p *Path, arrives *atomic.Pointer[Wire], hasAddress func(netip.Addr) bool) *End {
	wire := arrives.Load()
	l := wire.Outer()
	e := &End{Path: p, Arrives: arrives}
	e.frame(l.Kind)
	if ours, theirs, ok := probe.Ends(wire.Layers); ok {
		e.local, e.remote = ours.As16(), theirs.As16()
		e.host = !hasAddress(ours)
	}
	return e
}

// frame sets what the framing of an outermost layer shows of its packets.
func (e *End) frame(k encap.Kind) {
	f := k.Properties()
	e.protocol, e.identity = f.Protocol, f.Identity
	if f.Optional {
		e.framing = k.Framing()
	}
}

// Wire returns the path that decapsulates the end's packets.
func (e *End) Wire() *Wire { return e.Arrives.Load() }

// Add adds an entry for the addresses of a layer, and for its multicast groups.
func (t *Table) Add(e *End, l *encap.Layer) {
	for _, group := range Groups(l) {
		t.any[group] = append(t.any[group], e)
	}
	switch {
	case l.Resolver != nil:
		// A mechanism that joins groups is a link that any host may be on: other
		// mechanisms get the packet first.
		e.link = len(Groups(l)) > 0
		list := t.any[l.Local]
		at := slices.IndexFunc(list, func(other *End) bool { return other.link && !e.link })
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
		if zone := ZoneOf(l.Local); zone != 0 {
			e.next = t.zoned[zoned{pair, zone}]
			t.zoned[zoned{pair, zone}] = e
			return
		}
		e.next = t.pairs6[pair]
		t.pairs6[pair] = e
	}
}

// Conflict returns a conflicting entry, one that matches the same packets as an entry to be
// added; nil: there is none. The conflicting entry would get no packets any more.
func (t *Table) Conflict(e *End, l *encap.Layer) *End {
	var twin *End
	switch {
	case l.Resolver != nil:
		return nil
	case l.Kind.Over() == 4:
		remote, local := l.Remote.As4(), l.Local.As4()
		twin = t.pairs4[[8]byte(append(remote[:], local[:]...))]
	default:
		remote, local := l.Remote.As16(), l.Local.As16()
		twin = t.from6([32]byte(append(remote[:], local[:]...)), ZoneOf(l.Local))
	}
	for twin != nil && !twin.matchesSame(e) {
		twin = twin.next
	}
	return twin
}

// matchesSame reports whether two entries with the same addresses match the same packets.
func (e *End) matchesSame(o *End) bool {
	return e.protocol == o.protocol && e.identity == o.identity
}

// from6 returns the first entry for a pair of addresses, on the link of zone unless it is 0.
func (t *Table) from6(pair [32]byte, zone uint32) *End {
	if zone != 0 {
		return t.zoned[zoned{pair, zone}]
	}
	return t.pairs6[pair]
}

// Find returns the entry for a packet with a complete IP header. Zone is that of our
// link-local address at which the packet arrived, or 0. Nil means that there is no entry,
// but one in any may still match.
func (t *Table) Find(pkt []byte, zone uint32) *End {
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
func (e *End) match(protocol byte, payload []byte) *End {
	var first *End
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
func (t *Table) about(quote []byte, zone uint32, is func(*End) bool) *End {
	var e *End
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

// ZoneOf returns the index of an address's interface; 0: it has no zone.
func ZoneOf(a netip.Addr) uint32 {
	n, _ := strconv.ParseUint(a.Zone(), 10, 32)
	return uint32(n)
}
