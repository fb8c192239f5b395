package encap

import (
	"encoding/binary"
	"errors"

	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// Headers are what a stack writes in front of packets of one IP version, for a program
// outside this process that writes the same: one in the kernel.
type Headers struct {
	// The headers, outermost first: one of IPv4 or IPv6, which a GRE header may follow; or
	// one of IPv4 and then one of IPv6. Fields that differ from packet to packet are 0: the
	// lengths, TOS, TTL, hop limit, the checksum, and the flow label unless it is fixed.
	Bytes []byte
	Over  int    // IP version of the outermost header
	Sum   uint32 // of the 16-bit words of an outermost IPv4 header

	Keep, Set byte // outer TOS = inner TOS & Keep | Set
	TTL       byte // of the IPv4 header; InheritTTL: that of the packet in it
	HopLimit  byte // the same for the IPv6 header
	Label     FlowLabelSource

	Limit   TunnelMTU // size of the largest inner packet
	NeedsDF bool      // the headers are those of IPv4 packets with DF; others need more than this
}

// ErrNotCarried means that a stack does not carry packets of the IP version.
var ErrNotCarried = errors.New("the mode does not carry the packets")

// Other errors of Stack.Headers: why a stack's headers cannot be described.
var (
	errLayers      = errors.New("the layers are not one of IPv4 or IPv6, or IPv6 in IPv4")
	errFraming     = errors.New("the header between the IP headers has a field that differs from packet to packet")
	errDestination = errors.New("the outer destination depends on the packet")
	errOptions     = errors.New("the packets have an encapsulation limit")
	errFragmented  = errors.New("the outer packets may be fragmented, and need identifications")
)

// Headers describes what the stack writes in front of packets of an IP version. The error
// says why that cannot be described.
func (s *Stack) Headers(version int) (Headers, error) {
	t := s.enter6
	if version == 4 {
		t = s.enter4
	}
	if t == nil {
		return Headers{}, ErrNotCarried
	}
	last := &t.parts[len(t.parts)-1]
	h := Headers{Over: last.over, Keep: last.keep, Set: last.set, Limit: TunnelMTU(min(t.limit, t.whole))}
	if len(t.parts) > 2 || len(t.parts) == 2 && (last.over != 4 || t.parts[0].over != 6 || t.size != header.IPv4Len+header.IPv6Len) {
		return h, errLayers
	}
	if t.hidden != 0 || t.unfinished {
		return h, errFraming
	}
	for i := range t.parts {
		p := &t.parts[i]
		switch {
		case p.resolver != nil:
			return h, errDestination
		case p.session || !plainFraming(s.layers[len(s.layers)-len(t.parts)+i].Kind):
			return h, errFraming
		case p.over == 4 && p.df != dfSet && (p.df == dfClear || len(t.parts) > 1 || version != 4 || s.options.IgnoreDF):
			return h, errFragmented
		case p.over == 6 && p.size-p.framing != header.IPv6Len:
			return h, errOptions
		}
	}
	h.Bytes = append(h.Bytes, t.bytes[len(t.bytes)-t.size:]...)
	at := 0
	if h.Over == 4 {
		h.TTL, h.Sum, at = last.ttl, last.sum, header.IPv4Len
		if h.NeedsDF = last.df == dfInner; h.NeedsDF {
			binary.BigEndian.PutUint16(h.Bytes[6:], header.DF)
			h.Sum += header.DF
		}
	}
	if first := &t.parts[0]; first.over == 6 {
		h.HopLimit, h.Label = first.ttl, first.label.Source
		if h.Label == FlowLabelFixed {
			binary.BigEndian.PutUint32(h.Bytes[at:], first.label.Fixed)
		}
	}
	return h, nil
}

// plainFraming reports whether the header of a layer's framing is the same in all packets of
// an IP version.
func plainFraming(k Kind) bool {
	switch f := k.framing.(type) {
	case framing.Bare:
		return true
	case framing.GRE:
		return !f.Checksum && !f.Sequence
	}
	return false
}
