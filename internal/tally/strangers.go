package tally

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"sixfour/encap/header"
	"sixfour/internal/api"
)

// maxStrangers limits how many are stored: any host can send from any address.
const maxStrangers = 8

// Strangers stores the most recent sources of packets that belong to no tunnel. It is
// updated when a drop is logged, at most once per second for each receiver, so the lock
// costs nothing.
type Strangers struct {
	mu  sync.Mutex
	all []stranger // the most recent last
}

type stranger struct {
	from, to netip.Addr
	protocol byte
	last     time.Time
}

// note stores the outer addresses of a packet.
func (s *Strangers) note(pkt []byte, now time.Time) {
	one := stranger{last: now}
	switch v := header.Version(pkt); {
	case v == 4 && len(pkt) >= header.IPv4Len:
		ip := header.IPv4(pkt)
		one.from, one.to, one.protocol = ip.Src(), ip.Dst(), ip.Protocol()
	case v == 6 && len(pkt) >= header.IPv6Len:
		ip := header.IPv6(pkt)
		one.from, one.to, one.protocol = ip.Src(), ip.Dst(), ip.NextHeader()
	default:
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(o stranger) bool { return o.from == one.from && o.to == one.to && o.protocol == one.protocol })
	if len(s.all) == maxStrangers {
		s.all = slices.Delete(s.all, 0, 1)
	}
	s.all = append(s.all, one)
}

// List returns what status shows, the most recent first.
func (s *Strangers) List() (all []api.UnknownSource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range slices.Backward(s.all) {
		all = append(all, api.UnknownSource{From: one.from.String(), To: one.to.String(), Protocol: int(one.protocol), Last: time.Now().Add(-time.Since(one.last))})
	}
	return all
}
