package heartbeat

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/transport/access"
)

// routes finds the clients at an outer address. The locks are held for a look-up only, and
// there are many, so that packets of different clients do not wait for each other.
type routes [64]struct {
	mu      sync.RWMutex
	entries map[uint32]entry
}

// entry is what is at an outer address. What a packet needs is in it, so that it is found with
// few accesses to memory when there are many clients.
type entry struct {
	only  access.Client // nil: there are several, or none
	links []*link       // never changed
}

// key returns an address as a number, and the index of its shard.
func key(outer netip.Addr) (k uint32, shard int) {
	b := outer.As4()
	return binary.BigEndian.Uint32(b[:]), int(b[2]^b[3]) % len(routes{})
}

// at returns what is at an address.
func (r *routes) at(outer netip.Addr) entry {
	k, i := key(outer)
	s := &r[i]
	s.mu.RLock()
	e := s.entries[k]
	s.mu.RUnlock()
	return e
}

// set enters the links at an address. It is called with the shard's lock held.
func (r *routes) set(k uint32, i int, links []*link) {
	s := &r[i]
	switch len(links) {
	case 0:
		delete(s.entries, k)
	case 1:
		s.entries[k] = entry{only: links[0].client, links: links}
	default:
		s.entries[k] = entry{links: links}
	}
}

// add enters a link at an address.
func (r *routes) add(l *link, outer netip.Addr) {
	l.outer.Store(&outer)
	k, i := key(outer)
	s := &r[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		s.entries = make(map[uint32]entry)
	}
	r.set(k, i, append(slices.Clip(s.entries[k].links), l))
}

// remove takes a link from its address.
func (r *routes) remove(l *link) {
	k, i := key(*l.outer.Load())
	s := &r[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	var others []*link
	for _, o := range s.entries[k].links {
		if o != l {
			others = append(others, o)
		}
	}
	r.set(k, i, others)
}

// move takes a link to another address.
func (r *routes) move(l *link, outer netip.Addr) {
	r.remove(l)
	r.add(l, outer)
}

// Receive hands over an inner packet that arrived in protocol 41 from an outer address. It
// does not retain the packet, allocates no memory, and may be called concurrently. The reason
// is drop.ForeignSource if no client is at that address.
func (s *Server) Receive(outer netip.Addr, packet []byte) drop.Reason {
	outer = outer.Unmap()
	if !outer.Is4() {
		return drop.ForeignSource
	}
	e := s.routes.at(outer)
	switch {
	case e.only != nil:
		return e.only.Receive(packet)
	case len(e.links) == 0:
		return drop.ForeignSource
	}
	return several(e.links, packet)
}

// several hands over a packet of one of several clients behind a NAT, which are told apart by
// their inner addresses.
func several(links []*link, packet []byte) drop.Reason {
	if len(packet) < header.IPv6Len {
		return drop.Truncated
	}
	source := netip.AddrFrom16([16]byte(packet[8:24]))
	for _, l := range links {
		if lease := l.client.Lease(); lease.Prefix.Contains(source) || lease.Endpoint.Client == source {
			return l.client.Receive(packet)
		}
	}
	return drop.Spoof
}
