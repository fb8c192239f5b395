package lisp

import (
	"encoding/binary"
	"net/netip"
)

// reader reads fields from the front of b. After an error it reads zeros.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err == nil && len(r.b) < n {
		r.err = ErrShort
	}
	if r.err != nil {
		return make([]byte, min(n, 32))
	}
	f := r.b[:n]
	r.b = r.b[n:]
	return f
}

func (r *reader) u8() uint8   { return r.take(1)[0] }
func (r *reader) u16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) u32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// result returns the error of a message with the first word w that should have type t.
func (r *reader) result(w uint32, t Type) error {
	if r.err == nil && Type(w>>28) != t {
		return ErrType
	}
	return r.err
}

// addr reads a family and an address. An address in the canonical format of RFC 8060 is skipped.
func (r *reader) addr() netip.Addr {
	switch r.u16() {
	case afiNone:
	case afi4:
		return netip.AddrFrom4([4]byte(r.take(4)))
	case afi6:
		return netip.AddrFrom16([16]byte(r.take(16)))
	case afiLCAF:
		r.u32()
		n := int(r.u16())
		r.take(n)
	default:
		if r.err == nil {
			r.err = ErrAddress
		}
	}
	return netip.Addr{}
}

func (r *reader) prefix(bits uint8) netip.Prefix {
	a := r.addr()
	if r.err != nil || !a.IsValid() {
		return netip.Prefix{}
	}
	p, err := a.Prefix(int(bits))
	if err != nil {
		r.err = ErrPrefix
	}
	return p
}

func (r *reader) records(n uint32) []Record {
	var records []Record
	for i := uint32(0); i < n && r.err == nil; i++ {
		var e Record
		e.TTL = r.u32()
		locators := r.u8()
		bits := r.u8()
		w := r.u16()
		e.Action = Action(w >> 13)
		e.Authoritative = w&(1<<12) != 0
		e.Version = r.u16() & 0xfff
		e.EID = r.prefix(bits)
		for j := uint8(0); j < locators && r.err == nil; j++ {
			f := r.take(4)
			l := Locator{Priority: f[0], Weight: f[1], MulticastPriority: f[2], MulticastWeight: f[3]}
			l.Flags = r.u16()
			l.Addr = r.addr()
			e.Locators = append(e.Locators, l)
		}
		records = append(records, e)
	}
	return records
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

func appendRecords(b []byte, records []Record) []byte {
	for i := range records {
		e := &records[i]
		b = binary.BigEndian.AppendUint32(b, e.TTL)
		b = append(b, uint8(len(e.Locators)), uint8(e.EID.Bits()))
		w := uint16(e.Action) << 13
		if e.Authoritative {
			w |= 1 << 12
		}
		b = binary.BigEndian.AppendUint16(b, w)
		b = binary.BigEndian.AppendUint16(b, e.Version&0xfff)
		b = appendAddr(b, e.EID.Addr())
		for _, l := range e.Locators {
			b = append(b, l.Priority, l.Weight, l.MulticastPriority, l.MulticastWeight)
			b = binary.BigEndian.AppendUint16(b, l.Flags)
			b = appendAddr(b, l.Addr)
		}
	}
	return b
}
