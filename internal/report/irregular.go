package report

import "go.uber.org/zap"

// irregular are the values of the counters of a path's record when they were last logged.
type irregular struct{ odd, wraps uint64 }

// Irregularities logs the irregularities that were counted since the last call. The control
// loop calls it.
func (p *Path) Irregularities() {
	if n := p.path.Record.OddECN(); n > p.irregular.odd {
		p.Log().Warn("packets arrived with a combination of inner and outer ECN fields that is not valid (RFC 6040 section 4.2): a router on the path, or the peer, sets them wrongly", zap.Uint64("packets", n-p.irregular.odd))
		p.irregular.odd = n
	}
	if n := p.path.Record.Wraps(); n > p.irregular.wraps {
		p.Log().Warn("fragments are sent so fast that their identifications repeat while earlier fragments may still be on their way (RFC 6864): give the tunnel a smaller mtu, so that packets are not fragmented", zap.Uint64("times", n-p.irregular.wraps))
		p.irregular.wraps = n
	}
}
