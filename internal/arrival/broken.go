package arrival

import (
	"go.uber.org/zap"

	"sixfour/internal/datapath"
	"sixfour/internal/ports"
	"sixfour/internal/wiring"
	"sixfour/transport"
)

// Broken is a receiver that was closed because it did nothing but fail.
type Broken struct {
	Name  string // what it is, for messages
	Of    []Path // the paths whose packets it received
	Sends []Path // the paths that sent through it
}

// Replace closes a receiver that does nothing but fail, and the other shards of its port. The
// next Arrange opens the port again. Ok is false if it belongs to no open port.
func (s *Set) Replace(rx transport.Receiver, why error) (b Broken, ok bool) {
	if k, of := s.Sockets.Replace(rx); of {
		b, ok = Broken{Name: k.String()}, true
		for p := range s.paths() {
			r := p.Arrival()
			if r.registered != nil && s.isAt(p, r.registered, k) {
				b.Of = append(b.Of, p)
			}
			if w := r.Wire.Load(); w != nil && wiring.HasPorts(w.Outer().Kind) && portOf(p, w) == k {
				b.Sends = append(b.Sends, p)
			}
		}
	} else if port := s.XDP.Replace(rx); port != nil {
		b, ok = Broken{Name: "of AF_XDP"}, true
		for p := range s.registered() {
			if p.Arrival().registered.Hop.Port == port {
				b.Of = append(b.Of, p)
			}
		}
	}
	if ok {
		s.stale = true
		s.log.Warn("a receiver "+b.Name+" fails again and again: opening another one", zap.Error(why))
	}
	return b, ok
}

// isAt reports whether packets of a path's wire, or messages about them, arrive at a port.
func (s *Set) isAt(p Path, w *datapath.Wire, k ports.Key) bool {
	for at := range wiring.Ports(w, p.Mark(), s.shards) {
		if at == k {
			return true
		}
	}
	return false
}
