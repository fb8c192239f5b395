package engine

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/header"
	"sixfour/internal/netcfg"
	"sixfour/transport"
	"sixfour/tun"
)

// This does not compile unless packages transport and tun use the same numbers.
var _ = [1]struct{}{}[(transport.Single-tun.Single)|(transport.Unknown-tun.Unknown)|(transport.Small-tun.Small)]

// segmenter is a receiver that can tell how the kernel merged packets. Wake makes it look
// at the packets that follow: see transport.Segments.
type segmenter interface{ Wake() }

// followAggregates makes segments record how the kernel merged received packets (GRO) if
// packets cannot be carried otherwise: merged datagrams cannot be told apart, and the
// framing's checksum in a merged packet is that of its first segment.
func (e *Engine) followAggregates() {
	if e.segments == nil {
		return
	}
	hold := slices.ContainsFunc(e.tunnels, func(t *tunnel) bool {
		return t.cfg.Outermost().Properties().Summed
	})
	if !hold {
		on, err := netcfg.Features(netcfg.MergesDatagrams, netcfg.MergesLists)
		if err != nil {
			e.log.Debug("cannot find out whether the uplink merges datagrams (GRO)", zap.Error(err))
		}
		hold = len(on) > 0
	}
	if err := e.segments.Hold(hold, time.Now()); err != nil {
		e.log.Warn("cannot find out how the uplink merges packets (GRO)", zap.Error(err))
	}
}

// segment returns what is known of how the kernel merged the current packet. The kernel
// merges no packets with two layers of encapsulation, and none with options in the outer
// IPv4 header. Larger packets may still be what the sending host left to be segmented.
func (in *inbound) segment(wire *Wire, pkt []byte) int {
	if in.segments == nil {
		return transport.Single
	}
	segment := in.meta[in.hand].Segment
	if segment == transport.Small && (wire.stack.Depth() > 1 || pkt[0]&0xf > header.IPv4Len/4 && header.Version(pkt) == 4) {
		return transport.Single
	}
	return segment
}
