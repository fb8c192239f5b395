package heartbeat

import (
	"net/netip"
	"slices"
	"sync"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// routes finds the links of the clients at an outer address. The locks are held for a look-up
// only, and there are many, so that packets of different clients do not wait for each other.
type routes [64]struct {
	mu    sync.RWMutex
	links map[netip.Addr][]*link // a slice is never changed
}

// shard returns the index of an address.
func shard(outer netip.Addr) int {
	b := outer.As4()
	return int(b[2]^b[3]) % len(routes{})
}

// at returns the links at an address.
func (r *routes) at(outer netip.Addr) []*link {
	s := &r[shard(outer)]
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.links[outer]
}

// add enters a link at an address.
func (r *routes) add(l *link, outer netip.Addr) {
	l.outer.Store(&outer)
	s := &r[shard(outer)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links == nil {
		s.links = make(map[netip.Addr][]*link)
	}
	s.links[outer] = append(slices.Clip(s.links[outer]), l)
}

// remove takes a link from its address.
func (r *routes) remove(l *link) {
	outer := *l.outer.Load()
	s := &r[shard(outer)]
	s.mu.Lock()
	defer s.mu.Unlock()
	var others []*link
	for _, o := range s.links[outer] {
		if o != l {
			others = append(others, o)
		}
	}
	if others == nil {
		delete(s.links, outer)
		return
	}
	s.links[outer] = others
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
	links := s.routes.at(outer)
	switch len(links) {
	case 0:
		return drop.ForeignSource
	case 1:
		return links[0].client.Receive(packet)
	}
	return several(links, packet)
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
