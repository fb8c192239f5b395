package arrival

import (
	"sixfour/internal/xdpports"
	"sixfour/transport/xdp"
)

// takeXDP sets the filters so that the ports receive packets of exactly those peers whose
// packets leave through them.
func (s *Set) takeXDP() {
	wanted := make(xdpports.Wanted)
	for p := range s.paths() {
		if r := p.Arrival(); p.WantsXDP() && r.mayBeTaken() {
			wanted.Add(r.registered.Hop.Port, xdpports.ArrivalOf(r.registered.Outer()), r.Tunnel.Log)
		}
	}
	taken := s.XDP.Take(wanted)
	for p := range s.registered() {
		r := p.Arrival()
		r.Ways.SetTaken(r.mayBeTaken() && taken(r.registered.Hop.Port, xdpports.ArrivalOf(r.registered.Outer())))
	}
}

// mayBeTaken reports whether an XDP filter may take the path's packets. With a static path
// MTU both ends fragment packets that are too large for the path, so it may not.
func (r *Registration) mayBeTaken() bool {
	w := r.registered
	return w != nil && w.Hop.Port != nil && !w.Options.StaticMTU && !r.Ways.Parted()
}

// CloseUnusedXDP closes ports that no path uses.
func (s *Set) CloseUnusedXDP() {
	used := make(map[*xdp.Port]bool)
	for p := range s.paths() {
		if w := p.Arrival().Wire.Load(); w != nil {
			used[w.Hop.Port] = true
		}
	}
	s.XDP.CloseUnused(func(p *xdp.Port) bool { return used[p] })
}
