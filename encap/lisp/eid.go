package lisp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Address family identifiers.
const (
	afiNone = 0
	afi4    = 1
	afi6    = 2
	afiLCAF = 16387
)

// Types of the canonical address format (RFC 8060 section 3).
const lcafInstance = 2

// MaxInstance is the largest instance identifier: data packets have 24 bits for it.
const MaxInstance = 1<<24 - 1

// EID is a prefix of endpoint identifiers in the address space of an instance. It can be
// compared with ==, and is a key of maps.
type EID struct {
	Instance uint32
	Prefix   netip.Prefix // masked
}

// HostEID returns the EID of one address.
func HostEID(instance uint32, a netip.Addr) EID {
	return EID{instance, netip.PrefixFrom(a, a.BitLen())}
}

// IsValid reports whether e has a prefix.
func (e EID) IsValid() bool { return e.Prefix.IsValid() }

// Contains reports whether the prefix of o is within that of e, in the same instance.
func (e EID) Contains(o EID) bool {
	return e.Instance == o.Instance && e.IsValid() && o.IsValid() && e.Prefix.Bits() <= o.Prefix.Bits() && e.Prefix.Contains(o.Prefix.Addr())
}

// String returns the prefix, with the instance in front unless it is 0, as in "[7]2001:db8::/32".
func (e EID) String() string {
	if e.Instance == 0 {
		return e.Prefix.String()
	}
	return fmt.Sprintf("[%d]%v", e.Instance, e.Prefix)
}

// bits is the length of the prefix; 0: there is none.
func (e EID) bits() uint8 { return uint8(max(e.Prefix.Bits(), 0)) }

// address reads an address with its family, and its instance if it has one. It is not valid if
// there is none, or if it is one of the canonical address format that is not read; then raw has
// its bytes from the family on.
func (r *reader) address() (instance uint32, a netip.Addr, raw []byte) {
	start := r.b
	switch r.u16() {
	case afiNone:
	case afi4:
		return 0, netip.AddrFrom4([4]byte(r.take(4))), nil
	case afi6:
		return 0, netip.AddrFrom16([16]byte(r.take(16))), nil
	case afiLCAF:
		typ := r.u32() >> 8 & 0xff
		body := reader{b: r.take(int(r.u16())), err: r.err}
		if typ == lcafInstance {
			instance, a = body.instance()
		}
		if r.err == nil && !a.IsValid() {
			raw = start[:len(start)-len(r.b)]
		}
		return instance, a, raw
	default:
		if r.err == nil {
			r.err = ErrAddress
		}
	}
	return 0, netip.Addr{}, nil
}

// instance reads the body of an address with an instance identifier. A body that is wrong
// inside is one that is not read: its length is known, and what follows it is right.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------------------------------+---------------+---------------+
//	|           AFI = 16387         |     Rsvd1     |     Flags     |
//	+---------------+---------------+-------------------------------+
//	|   Type = 2    | IID mask-len  |             Length            |
//	+---------------+---------------+-------------------------------+
//	|                         Instance ID                           |
//	+-------------------------------+-------------------------------+
//	|              AFI = x          |         Address  ...          |
//	+-------------------------------+-------------------------------+
func (r *reader) instance() (uint32, netip.Addr) {
	id := r.u32()
	var a netip.Addr
	switch r.u16() {
	case afi4:
		a = netip.AddrFrom4([4]byte(r.take(4)))
	case afi6:
		a = netip.AddrFrom16([16]byte(r.take(16)))
	}
	if r.err != nil || len(r.b) > 0 || id > MaxInstance {
		return 0, netip.Addr{}
	}
	return id, a
}

// eid reads a prefix whose length is known.
func (r *reader) eid(bits uint8) EID {
	instance, a, _ := r.address()
	if r.err != nil || !a.IsValid() {
		return EID{}
	}
	p, err := a.Prefix(int(bits))
	if err != nil {
		r.err = ErrPrefix
	}
	return EID{instance, p}
}

// host reads the EID of one address.
func (r *reader) host() EID {
	instance, a, _ := r.address()
	if r.err != nil || !a.IsValid() {
		return EID{}
	}
	return HostEID(instance, a)
}

// locator reads the address of a locator. Other has the bytes of one that is not understood.
func (r *reader) locator() (a netip.Addr, other string) {
	_, a, raw := r.address()
	return a, string(raw)
}

func appendAddr(b []byte, a netip.Addr) []byte {
	switch {
	case a.Is4():
		b = append(b, 0, afi4)
	case a.Is6():
		b = append(b, 0, afi6)
	default:
		return append(b, 0, afiNone)
	}
	return append(b, a.AsSlice()...)
}

// appendEID appends the address of an EID, without the length of its prefix.
func appendEID(b []byte, e EID) []byte {
	a := e.Prefix.Addr()
	if e.Instance != 0 && a.IsValid() {
		b = binary.BigEndian.AppendUint16(b, afiLCAF)
		b = append(b, 0, 0, lcafInstance, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(4+2+a.BitLen()/8))
		b = binary.BigEndian.AppendUint32(b, e.Instance)
	}
	return appendAddr(b, a)
}
