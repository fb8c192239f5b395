package datapath

import (
	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/tun"
)

// This does not compile unless packages transport and tun use the same numbers.
var _ = [1]struct{}{}[(transport.Single-tun.Single)|(transport.Unknown-tun.Unknown)|(transport.Small-tun.Small)]

// segmenter is a receiver that can tell how the kernel merged packets. Wake makes it look
// at the packets that follow: see transport.Segments.
type segmenter interface{ Wake() }

// segment returns what is known of how the kernel merged the current packet. The kernel
// merges no packets with two layers of encapsulation, and none with options in the outer
// IPv4 header. Larger packets may still be what the sending host left to be segmented.
func (in *Inbound) segment(wire *Wire, pkt []byte) int {
	if in.segments == nil {
		return transport.Single
	}
	segment := in.meta[in.Index].Segment
	if segment == transport.Small && (wire.Stack.Depth() > 1 || pkt[0]&0xf > header.IPv4Len/4 && header.Version(pkt) == 4) {
		return transport.Single
	}
	return segment
}
