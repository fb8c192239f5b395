package mape

import (
	"fmt"
	"iter"
)

// Ports are the ports of one customer edge (RFC 7597 section 5.1). A port has three parts:
//
//	| A (Offset bits) | PSID (PSIDLen bits) | M (the rest) |
//
// A port belongs to the customer edge with its PSID if A is not 0. With Offset 0 there is no A.
type Ports struct {
	Offset  int
	PSIDLen int    // 0: all ports
	PSID    uint16 // the port set identifier
}

// Check returns an error if there can be no such ports.
func (p Ports) Check() error {
	switch {
	case p.Offset < 0 || p.Offset > 15:
		return fmt.Errorf("a PSID offset of %d bits: there can be 0 to 15", p.Offset)
	case p.PSIDLen < 0 || p.PSIDLen > 16 || p.Offset+p.PSIDLen > 16:
		return fmt.Errorf("a PSID offset of %d bits and a port set identifier of %d: ports have 16 bits", p.Offset, p.PSIDLen)
	case int(p.PSID) >= 1<<p.PSIDLen:
		return fmt.Errorf("port set identifier %d: with %d bits there can be 0 to %d", p.PSID, p.PSIDLen, 1<<p.PSIDLen-1)
	}
	return nil
}

// SetOf returns the PSID of a port. Ok is false if the port belongs to nobody.
func (p Ports) SetOf(port uint16) (psid uint16, ok bool) {
	psid = uint16(uint32(port) << p.Offset & 0xffff >> (16 - p.PSIDLen))
	return psid, p.PSIDLen == 0 || p.Offset == 0 || port>>(16-p.Offset) != 0
}

// Has reports whether a port, or an ICMP identifier, is one of these.
func (p Ports) Has(port uint16) bool {
	psid, ok := p.SetOf(port)
	return ok && psid == p.PSID
}

// Range is a range of ports, both ends included.
type Range struct{ First, Last uint16 }

// String returns FIRST-LAST.
func (r Range) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// Ranges returns the ports in ascending order.
func (p Ports) Ranges() iter.Seq[Range] {
	return func(yield func(Range) bool) {
		if p.PSIDLen == 0 {
			yield(Range{0, 0xffff})
			return
		}
		size := 1 << (16 - p.Offset - p.PSIDLen)
		first := 0
		if p.Offset > 0 {
			first = 1
		}
		for a := first; a < 1<<p.Offset; a++ {
			at := a<<(16-p.Offset) | int(p.PSID)*size
			if !yield(Range{uint16(at), uint16(at + size - 1)}) {
				return
			}
		}
	}
}

// Count returns how many ports there are.
func (p Ports) Count() int {
	n := 0
	for r := range p.Ranges() {
		n += int(r.Last) - int(r.First) + 1
	}
	return n
}
