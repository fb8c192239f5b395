// Package resolve decides between which outer addresses a packet travels, and
// whether an inner packet may come from where it came from.
package resolve

import (
	"encoding/binary"
	"net/netip"

	"sixfour/encap/drop"
)

// Fixed is the resolver of a configured tunnel: everything goes to one peer,
// and only from there anything is taken. Both addresses are of one family.
type Fixed struct {
	Local, Remote netip.Addr
}

// Accepts says whether a packet with these outer addresses (each of 4 or each
// of 16 bytes) comes from the peer to us (RFC 4213 3.6, RFC 2473 3.2).
func (f Fixed) Accepts(src, dst []byte) drop.Reason {
	switch {
	case !equal(f.Local, dst):
		return drop.ForeignDestination
	case !equal(f.Remote, src):
		return drop.ForeignSource
	}
	return drop.None
}

// equal compares without allocating.
func equal(a netip.Addr, b []byte) bool {
	if len(b) == 4 {
		return a.Is4() && a.As4() == [4]byte(b)
	}
	return a.Is6() && a.As16() == [16]byte(b)
}

// word6 is an IPv6 address as two numbers, so that a comparison is two
// instructions.
type word6 struct{ hi, lo uint64 }

func readWord6(b []byte) word6 {
	return word6{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}
