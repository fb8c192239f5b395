package datapath

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/internal/probe"
)

// Table maps packets that arrive to their paths. All inbounds read it, without a lock; one
// goroutine at a time may change it meanwhile. A reader finds each entry as it was before a
// change or as it is after it.
type Table struct {
	over4 index // entries of paths with two fixed addresses
	over6 index
	any   atomic.Pointer[map[netip.Addr][]*End] // by our address or a group
}

// NewTable returns an empty table for about n paths.
func NewTable(n int) *Table {
	t := &Table{over4: newIndex(n), over6: newIndex(n)}
	t.any.Store(new(map[netip.Addr][]*End))
	return t
}

// Fits reports whether the table has room for n more entries. With more, a new one is
// faster.
func (t *Table) Fits(n int) bool { return t.over4.fits(n) && t.over6.fits(n) }

// End is the entry of one peer in a table.
type End struct {
	at       address
	protocol byte
	host     bool                  // the interface does not have local, so the daemon answers there
	link     bool                  // in Table.any: to be asked after the others
	former   bool                  // of an address that the peer had before: others take precedence
	framing  framing.Framing       // it tells packets with the same addresses apart; nil: it cannot
	next     atomic.Pointer[End]   // in the same bucket
	Arrives  *atomic.Pointer[Wire] // the wire that decapsulates packets
	Path     *Path
	identity uint64 // of the framing
	ports    framing.Ports
	local    [16]byte // our address of the layer that probes test; zero: none
	remote   [16]byte // the peer's address of that layer
}

// NewEnd makes an entry for a path's wire, and for later wires with the same ends. Former
// says that it is for an address that the peer had before. HasAddress reports whether the
// tunnel's interface has an address.
func NewEnd(p *Path, arrives *atomic.Pointer[Wire], former bool, hasAddress func(netip.Addr) bool) *End {
	wire := arrives.Load()
	l := wire.Outer()
	e := &End{Path: p, Arrives: arrives, former: former}
	e.set(l)
	if ours, theirs, ok := probe.Ends(wire.Layers); ok {
		e.local, e.remote = ours.As16(), theirs.As16()
		e.host = !hasAddress(ours)
	}
	return e
}

// set sets what the outermost layer of the packets shows of them.
func (e *End) set(l *encap.Layer) {
	f := l.Kind.Properties()
	e.protocol, e.identity, e.ports = f.Protocol, f.Identity, f.Ports
	if f.Optional {
		e.framing = l.Kind.Framing()
	}
	switch {
	case l.Resolver != nil:
	case l.Kind.Over() == 4:
		remote, local := l.Remote.As4(), l.Local.As4()
		e.at = pair4(append(remote[:], local[:]...))
	default:
		remote, local := l.Remote.As16(), l.Local.As16()
		e.at = pair6(append(remote[:], local[:]...), ZoneOf(l.Local))
	}
}

// takes reports whether a packet has the protocol of an end. In one of IPv6, extension headers
// may stand before it.
func (e *End) takes(pkt []byte) bool {
	if header.Version(pkt) == 6 {
		p := header.IPv6(pkt).NextHeader()
		return p == e.protocol || header.IsExtension(p)
	}
	p := header.IPv4(pkt).Protocol()
	return p == e.protocol || p == e.ports.Beside && p != 0
}

// Wire returns the path that decapsulates the end's packets.
func (e *End) Wire() *Wire { return e.Arrives.Load() }

// Replace replaces entries by others, which must be new; either list may be empty. It takes
// the same time however many entries the table has.
func (t *Table) Replace(old, fresh []*End) {
	for _, e := range fresh {
		if l := e.Wire().Outer(); l.Resolver != nil {
			t.addAny(e, l)
		} else {
			t.index(l).add(e)
		}
	}
	for _, e := range old {
		if l := e.Wire().Outer(); l.Resolver != nil {
			t.removeAny(e)
		} else {
			t.index(l).remove(e)
		}
	}
}

// index returns the index for entries with the delivery header of a layer.
func (t *Table) index(l *encap.Layer) *index {
	if l.Kind.Over() == 4 {
		return &t.over4
	}
	return &t.over6
}

// addAny adds an entry for all packets to an address of ours and to its multicast groups. A
// mechanism that joins groups is a link that any host may be on: other mechanisms get the
// packet first.
func (t *Table) addAny(e *End, l *encap.Layer) {
	groups := Groups(l)
	e.link = len(groups) > 0
	t.changeAny(func(any map[netip.Addr][]*End) {
		for _, group := range groups {
			any[group] = append(slices.Clone(any[group]), e)
		}
		list := slices.Clone(any[l.Local])
		at := slices.IndexFunc(list, func(other *End) bool { return other.link && !e.link })
		if at < 0 {
			at = len(list)
		}
		any[l.Local] = slices.Insert(list, at, e)
	})
}

// removeAny removes what addAny has added.
func (t *Table) removeAny(e *End) {
	t.changeAny(func(any map[netip.Addr][]*End) {
		for a, list := range any {
			if list = slices.DeleteFunc(slices.Clone(list), func(o *End) bool { return o == e }); len(list) > 0 {
				any[a] = list
			} else {
				delete(any, a)
			}
		}
	})
}

// changeAny replaces the map of the entries for any source by a changed copy. There are few.
func (t *Table) changeAny(change func(map[netip.Addr][]*End)) {
	any := maps.Clone(*t.any.Load())
	if any == nil {
		any = make(map[netip.Addr][]*End)
	}
	change(any)
	t.any.Store(&any)
}

// Conflict returns another path's entry that matches the same packets as an entry that is
// to be added; nil: there is none. It would get no packets any more.
func (t *Table) Conflict(e *End) *End {
	l := e.Wire().Outer()
	if l.Resolver != nil {
		return nil
	}
	return t.index(l).find(e.at, func(o *End) bool {
		return o.Path != e.Path && o.protocol == e.protocol && o.identity == e.identity && o.ports.Clash(e.ports)
	})
}

// Find returns the entry for a packet with a complete IP header. Zone is that of our
// link-local address at which the packet arrived, or 0. Nil means that there is no entry,
// but one in any may still match.
func (t *Table) Find(pkt []byte, zone uint32) *End {
	var e *End
	var ok bool
	if header.Version(pkt) == 6 {
		ip := header.IPv6(pkt)
		e, ok = t.over6.match6(pair6(pkt[8:], zone), ip.NextHeader(), ip.Payload())
	} else {
		ip := header.IPv4(pkt)
		e, ok = t.over4.match4(pkt, ip.Protocol(), pkt[min(len(pkt), max(ip.HeaderLen(), header.IPv4Len)):])
	}
	if !ok && e != nil && t.isToAny(pkt) {
		return nil
	}
	return e
}

// isToAny reports whether an entry in any may match a packet: a peer with which there is a tunnel in
// UDP can be a node of an automatic tunnel at other ports, too.
func (t *Table) isToAny(pkt []byte) bool {
	return slices.ContainsFunc(t.toAny(header.Dest(pkt)), func(e *End) bool { return e.ports.Local != 0 && e.takes(pkt) })
}

// about returns the entry of the packet that an ICMP message concerns. Quote begins with
// an IP header whose source and destination are those of a packet that we sent. Is selects
// among the entries for these addresses.
func (t *Table) about(quote []byte, zone uint32, is func(*End) bool) *End {
	var e *End
	if header.Version(quote) == 6 {
		ip := header.IPv6(quote)
		e = t.over6.find(pair6(slices.Concat(ip.Dest(), ip.Source()), zone), is)
	} else {
		ip := header.IPv4(quote)
		e = t.over4.find(pair4(slices.Concat(ip.Dest(), ip.Source())), is)
	}
	if e != nil {
		return e
	}
	for _, e := range t.toAny(header.Source(quote)) {
		if is(e) {
			return e
		}
	}
	return nil
}

// toAny returns the entries for packets from any source to an address of ours or a group.
func (t *Table) toAny(to netip.Addr) []*End { return (*t.any.Load())[to] }

// ZoneOf returns the index of an address's interface; 0: it has no zone.
func ZoneOf(a netip.Addr) uint32 {
	n, _ := strconv.ParseUint(a.Zone(), 10, 32)
	return uint32(n)
}
