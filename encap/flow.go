package encap

import (
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// of returns the flow label for a delivery header in front of inner.
func (f FlowLabel) of(inner []byte, version int) uint32 {
	switch {
	case f.Source == FlowLabelFixed:
		return f.Fixed
	case f.Source == FlowLabelHash:
		return uint32(framing.FlowHash(inner, version) >> 44)
	case version == 6:
		return header.IPv6(inner).FlowLabel()
	}
	return 0
}
