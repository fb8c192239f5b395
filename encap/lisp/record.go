package lisp

import (
	"encoding/binary"
	"net/netip"
)

// Flags of locators.
const (
	LocatorReachable uint16 = 1 << iota // R
	LocatorProbed                       // p: the reply to a probe is about this locator
	LocatorLocal                        // L: the locator is the sender's own
)

// Locator is one locator of a record. It can be compared with ==. If its address is in a format
// that is not understood, Addr is not valid, and Other has its bytes, to be passed on unchanged.
type Locator struct {
	Priority, Weight                   uint8
	MulticastPriority, MulticastWeight uint8
	Flags                              uint16
	Addr                               netip.Addr
	Other                              string
}

// Record is the mapping of one prefix. EID is not valid if its address is in a format that is
// not understood.
type Record struct {
	TTL           uint32 // in minutes
	EID           EID
	Action        Action
	Authoritative bool
	Version       uint16 // 12 bits
	Locators      []Locator
}

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
		e.EID = r.eid(bits)
		for j := uint8(0); j < locators && r.err == nil; j++ {
			f := r.take(4)
			l := Locator{Priority: f[0], Weight: f[1], MulticastPriority: f[2], MulticastWeight: f[3]}
			l.Flags = r.u16()
			l.Addr, l.Other = r.locator()
			e.Locators = append(e.Locators, l)
		}
		records = append(records, e)
	}
	return records
}

func appendRecords(b []byte, records []Record) []byte {
	for i := range records {
		e := &records[i]
		b = binary.BigEndian.AppendUint32(b, e.TTL)
		b = append(b, uint8(len(e.Locators)), e.EID.bits())
		w := uint16(e.Action) << 13
		if e.Authoritative {
			w |= 1 << 12
		}
		b = binary.BigEndian.AppendUint16(b, w)
		b = binary.BigEndian.AppendUint16(b, e.Version&0xfff)
		b = appendEID(b, e.EID)
		for _, l := range e.Locators {
			b = append(b, l.Priority, l.Weight, l.MulticastPriority, l.MulticastWeight)
			b = binary.BigEndian.AppendUint16(b, l.Flags)
			if l.Other != "" {
				b = append(b, l.Other...)
			} else {
				b = appendAddr(b, l.Addr)
			}
		}
	}
	return b
}
