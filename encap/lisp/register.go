package lisp

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// Algorithm is how a registration is authenticated.
type Algorithm uint8

// Algorithms.
const (
	SHA1       Algorithm = 1 // HMAC-SHA-1 with the key
	SHA256     Algorithm = 2 // HMAC-SHA-256 with the key
	SHA256HKDF Algorithm = 3 // HMAC-SHA-256 with a key derived from the key and the nonce
)

// Registration is a Map-Register, a Map-Notify or a Map-Notify-Ack.
type Registration struct {
	Type       Type
	Proxy      bool // P: the map server shall reply itself (Map-Register)
	WantNotify bool // M: the map server shall send a Map-Notify (Map-Register)
	UseTTL     bool // T: the registration lives as long as the TTLs of its records (Map-Register)
	Nonce      uint64
	KeyID      uint8
	Algorithm  Algorithm
	Records    []Record
	// Identified means that XTR and Site follow the records (I, in a Map-Register).
	Identified bool
	XTR        [16]byte
	Site       uint64

	mac  []byte // as received
	ends int    // where the records end
}

// macOffset is where authentication data begins.
const macOffset = 16

// ParseRegistration parses a Map-Register, a Map-Notify or a Map-Notify-Ack. Its contents are
// not to be used before Verify.
func ParseRegistration(b []byte) (*Registration, error) {
	r := reader{b: b}
	w := r.u32()
	m := &Registration{Type: Type(w >> 28), Nonce: r.u64()}
	switch m.Type {
	case TypeRegister:
		m.Proxy = w&bitProxy != 0
		m.WantNotify = w&bitWantNotify != 0
		m.UseTTL = w&bitUseTTL != 0
		m.Identified = w&bitIdentifiers != 0
	case TypeNotify, TypeNotifyAck:
	default:
		if r.err == nil {
			r.err = ErrType
		}
	}
	m.KeyID = r.u8()
	m.Algorithm = Algorithm(r.u8())
	n := r.u16()
	m.mac = r.take(int(n))
	m.Records = r.records(w & 0xff)
	m.ends = len(b) - len(r.b)
	if m.Identified {
		m.XTR = [16]byte(r.take(16))
		m.Site = r.u64()
	}
	return m, r.err
}

// Verify returns nil if the message b, from which m was parsed, was made by someone who has key.
// Authentication data may be whole or cut to the length in the name of the algorithm, and may
// cover the whole message, as implementations do, or end at the last record (RFC 9301 section 5.6).
// In the latter case anyone may have changed what follows, and Verify clears Identified, XTR and Site.
func (m *Registration) Verify(b, key []byte) error {
	whole, cut := m.lengths()
	if n := len(m.mac); n == 0 || n != whole && n != cut {
		return ErrMAC
	}
	b = append([]byte(nil), b...)
	clear(b[macOffset : macOffset+len(m.mac)])
	if hmac.Equal(m.mac, m.sum(b, key)[:len(m.mac)]) {
		return nil
	}
	if hmac.Equal(m.mac, m.sum(b[:m.ends], key)[:len(m.mac)]) {
		m.Identified, m.XTR, m.Site = false, [16]byte{}, 0
		return nil
	}
	return ErrMAC
}

// Append appends the message to b, authenticated with key over the whole of it; b is empty or
// has what precedes the message. Authentication data is not cut, as deployed receivers expect,
// unless cut is set. The algorithm must be known.
func (m *Registration) Append(b, key []byte, cut bool) []byte {
	start := len(b)
	w := uint32(m.Type)<<28 | uint32(len(m.Records))&0xff
	if m.Type == TypeRegister {
		w |= flag(m.Proxy, bitProxy) | flag(m.WantNotify, bitWantNotify) | flag(m.UseTTL, bitUseTTL) | flag(m.Identified, bitIdentifiers)
	}
	n, short := m.lengths()
	if cut {
		n = short
	}
	b = binary.BigEndian.AppendUint32(b, w)
	b = binary.BigEndian.AppendUint64(b, m.Nonce)
	b = append(b, m.KeyID, uint8(m.Algorithm), 0, uint8(n))
	b = append(b, make([]byte, n)...)
	b = appendRecords(b, m.Records)
	if m.Type == TypeRegister && m.Identified {
		b = append(b, m.XTR[:]...)
		b = binary.BigEndian.AppendUint64(b, m.Site)
	}
	copy(b[start+macOffset:][:n], m.sum(b[start:], key))
	return b
}

// Cut reports whether the authentication data of a message that was received is cut to the
// length in the name of its algorithm. An answer is best cut in the same way.
func (m *Registration) Cut() bool {
	_, cut := m.lengths()
	return len(m.mac) == cut
}

// Known reports whether the algorithm is one of the constants of this package.
func (a Algorithm) Known() bool { return a >= SHA1 && a <= SHA256HKDF }

// lengths returns the lengths that authentication data may have: 0 if the algorithm is unknown.
func (m *Registration) lengths() (whole, cut int) {
	switch m.Algorithm {
	case SHA1:
		return sha1.Size, 12
	case SHA256, SHA256HKDF:
		return sha256.Size, 16
	}
	return 0, 0
}

// salts are those of key derivation.
var salts = map[Type]string{
	TypeRegister:  "Map-Register Authentication",
	TypeNotify:    "Map-Notify Authentication",
	TypeNotifyAck: "Map-Notify-Ack Authentication",
}

func (m *Registration) sum(b, key []byte) []byte {
	var h hash.Hash
	switch m.Algorithm {
	case SHA1:
		h = hmac.New(sha1.New, key)
	case SHA256:
		h = hmac.New(sha256.New, key)
	case SHA256HKDF:
		secret := append(binary.BigEndian.AppendUint64(nil, m.Nonce), key...)
		derived, err := hkdf.Key(sha256.New, secret, []byte(salts[m.Type]), "", sha256.Size)
		if err != nil {
			return nil
		}
		h = hmac.New(sha256.New, derived)
	default:
		return nil
	}
	h.Write(b)
	return h.Sum(nil)
}
