package header

import (
	"encoding/binary"
	"net/netip"
)

// Word6 is an IPv6 address as two numbers, so that a comparison takes two instructions.
type Word6 struct{ Hi, Lo uint64 }

// ReadWord6 returns the address in the first 16 bytes of b.
func ReadWord6(b []byte) Word6 {
	return Word6{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:16])}
}

// Word6Of returns an address that is one of IPv6, and not a mapped one.
func Word6Of(a netip.Addr) (Word6, bool) {
	if !a.Is6() || a.Is4In6() {
		return Word6{}, false
	}
	b := a.As16()
	return ReadWord6(b[:]), true
}

// Addr returns the address.
func (w Word6) Addr() netip.Addr {
	var b [16]byte
	w.Put(b[:])
	return netip.AddrFrom16(b)
}

// Put writes the address into the first 16 bytes of b.
func (w Word6) Put(b []byte) {
	binary.BigEndian.PutUint64(b, w.Hi)
	binary.BigEndian.PutUint64(b[8:], w.Lo)
}

// IsLinkLocal reports whether an address is in fe80::/10.
func IsLinkLocal(a Word6) bool { return a.Hi>>54 == 0xfe80>>6 }

// IsMulticast reports whether an address is in ff00::/8.
func IsMulticast(a Word6) bool { return a.Hi>>56 == 0xff }

// Prefix6 is an IPv6 prefix in a form that is fast to compare.
type Prefix6 struct{ Value, Mask Word6 }

// NewPrefix6 returns an IPv6 prefix in this form.
func NewPrefix6(p netip.Prefix) Prefix6 {
	var m Word6
	if p.Bits() > 64 {
		m = Word6{^uint64(0), ^uint64(0) << (128 - p.Bits())}
	} else {
		m.Hi = ^uint64(0) << (64 - p.Bits())
	}
	b := p.Masked().Addr().As16()
	return Prefix6{ReadWord6(b[:]), m}
}

// Contains reports whether an address is in the prefix.
func (p Prefix6) Contains(a Word6) bool {
	return a.Hi&p.Mask.Hi == p.Value.Hi && a.Lo&p.Mask.Lo == p.Value.Lo
}

// Within reports whether an address is in one of the prefixes.
func Within(list []Prefix6, a Word6) bool {
	for i := range list {
		if list[i].Contains(a) {
			return true
		}
	}
	return false
}

// Prefixes6 returns the IPv6 prefixes of a list in this form.
func Prefixes6(list []netip.Prefix) (out []Prefix6) {
	for _, p := range list {
		if p.IsValid() && p.Addr().Is6() {
			out = append(out, NewPrefix6(p))
		}
	}
	return out
}
