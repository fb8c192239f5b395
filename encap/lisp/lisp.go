// Package lisp has the control messages of LISP (RFC 9301) and their authentication.
package lisp

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// UDP ports of LISP.
const (
	DataPort    = 4341
	ControlPort = 4342
)

// Type is the type of a control message, in its first four bits.
type Type uint8

// Types of control messages.
const (
	TypeRequest      Type = 1
	TypeReply        Type = 2
	TypeRegister     Type = 3
	TypeNotify       Type = 4
	TypeNotifyAck    Type = 5
	TypeEncapsulated Type = 8
)

// Action is what an ITR does with packets to a prefix that has no locators.
type Action uint8

// Actions of negative replies.
const (
	NoAction Action = iota
	NativelyForward
	SendMapRequest
	Drop
	DropPolicy
	DropAuth
)

// Errors of parsers.
var (
	ErrShort   = errors.New("lisp: message is truncated")
	ErrType    = errors.New("lisp: message has another type")
	ErrAddress = errors.New("lisp: address of an unknown family")
	ErrPrefix  = errors.New("lisp: prefix has a length that its family does not have")
	ErrMAC     = errors.New("lisp: authentication data is wrong")
	ErrInside  = errors.New("lisp: encapsulated control message has no UDP datagram to the control port")
)

// MessageType returns the type of a control message.
func MessageType(b []byte) (Type, error) {
	if len(b) < 4 {
		return 0, ErrShort
	}
	return Type(b[0] >> 4), nil
}

// Request is a Map-Request.
type Request struct {
	Authoritative bool // A
	Probe         bool // P: asks the locator, not the mapping system
	Solicit       bool // S: asks the receiver to refresh its mapping
	Solicited     bool // s: sent because of one with Solicit
	Nonce         uint64
	Source        EID // an address of the sender; not valid: none
	// Locators are the addresses to which the reply may go, at least one and at most 32.
	// Those of unknown families are not valid.
	Locators []netip.Addr
	// EIDs are those that are asked for. One of an unknown family is not valid.
	EIDs []EID
}

// Bits of the first word of messages.
const (
	bitAuthoritative = 1 << 27 // Map-Request A
	bitHasReply      = 1 << 26 // Map-Request M
	bitProbe         = 1 << 25 // Map-Request P
	bitSolicit       = 1 << 24 // Map-Request S
	bitSolicited     = 1 << 22 // Map-Request s
	bitReplyProbe    = 1 << 27 // Map-Reply P
	bitProxy         = 1 << 27 // Map-Register P
	bitIdentifiers   = 1 << 25 // Map-Register I
	bitUseTTL        = 1 << 11 // Map-Register T
	bitWantNotify    = 1 << 8  // Map-Register M
)

// ParseRequest parses a Map-Request. A mapping of the sender in the request (M) is not read.
func ParseRequest(b []byte) (*Request, error) {
	r := reader{b: b}
	w := r.u32()
	m := &Request{
		Authoritative: w&bitAuthoritative != 0,
		Probe:         w&bitProbe != 0,
		Solicit:       w&bitSolicit != 0,
		Solicited:     w&bitSolicited != 0,
		Nonce:         r.u64(),
	}
	m.Source = r.host()
	for range w>>8&31 + 1 {
		a, _ := r.locator()
		m.Locators = append(m.Locators, a)
	}
	for i := uint32(0); i < w&0xff && r.err == nil; i++ {
		r.u8()
		bits := r.u8()
		m.EIDs = append(m.EIDs, r.eid(bits))
	}
	return m, r.result(w, TypeRequest)
}

// Append appends the message to b.
func (m *Request) Append(b []byte) []byte {
	w := uint32(TypeRequest)<<28 | uint32(len(m.Locators)-1)&31<<8 | uint32(len(m.EIDs))&0xff
	w |= flag(m.Authoritative, bitAuthoritative) | flag(m.Probe, bitProbe)
	w |= flag(m.Solicit, bitSolicit) | flag(m.Solicited, bitSolicited)
	b = binary.BigEndian.AppendUint32(b, w)
	b = binary.BigEndian.AppendUint64(b, m.Nonce)
	b = appendEID(b, m.Source)
	for _, a := range m.Locators {
		b = appendAddr(b, a)
	}
	for _, e := range m.EIDs {
		b = append(b, 0, e.bits())
		b = appendEID(b, e)
	}
	return b
}

// Reply is a Map-Reply.
type Reply struct {
	Probe   bool // P: answers a probe
	Nonce   uint64
	Records []Record
}

// ParseReply parses a Map-Reply.
func ParseReply(b []byte) (*Reply, error) {
	r := reader{b: b}
	w := r.u32()
	m := &Reply{Probe: w&bitReplyProbe != 0, Nonce: r.u64()}
	m.Records = r.records(w & 0xff)
	return m, r.result(w, TypeReply)
}

// Append appends the message to b.
func (m *Reply) Append(b []byte) []byte {
	w := uint32(TypeReply)<<28 | uint32(len(m.Records))&0xff | flag(m.Probe, bitReplyProbe)
	b = binary.BigEndian.AppendUint32(b, w)
	b = binary.BigEndian.AppendUint64(b, m.Nonce)
	return appendRecords(b, m.Records)
}

func flag(set bool, bit uint32) uint32 {
	if set {
		return bit
	}
	return 0
}
