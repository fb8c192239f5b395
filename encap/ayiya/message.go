package ayiya

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"math/bits"
	"net/netip"
	"time"
)

// Types of identities, values of the field IDType.
const (
	idNone    = 0
	idInteger = 1
	idText    = 2
)

// Methods of authentication, values of the field AutMeth.
const (
	authNone   = 0
	authSecret = 1
)

// Message is a packet. Its slices are parts of the bytes that were parsed.
type Message struct {
	Hash     Hash // 0: none
	Op       OpCode
	Next     byte   // protocol number of the payload
	Epoch    uint32 // the sender's time in seconds since 1970, modulo 1<<32
	Identity []byte // nil: none
	Payload  []byte

	secret  bool // the signature is made with a shared secret
	integer bool // the identity is a number
	signed  []byte
	at      int // of the signature in signed
}

// The errors of Parse.
var (
	ErrTruncated      = errors.New("the packet is shorter than its header says")
	ErrIdentity       = errors.New("the type of the identity is unknown, or its length contradicts the type")
	ErrHash           = errors.New("the method of hashing is none of md5, sha1 and sha256, or the length of the signature contradicts it")
	ErrAuthentication = errors.New("the method of authentication is not a shared secret")
	ErrOperation      = errors.New("the operation is unknown")
	ErrNextHeader     = errors.New("the next header is not one that the operation may have, or contradicts the version of the inner packet")
	ErrLength         = errors.New("the payload does not end where the inner packet ends, or the operation has another length")
	ErrExtended       = errors.New("the payload ends as one whose signature was computed by length extension")
)

// Parse returns the message that is the whole of b, for which all rules hold that depend on
// its bytes only. It does not verify the signature.
func Parse(b []byte) (m Message, err error) {
	if len(b) < fixedLen {
		return m, ErrTruncated
	}
	idLen, idType := 0, b[0]&15
	switch idType {
	case idNone:
		if b[0]>>4 != 0 {
			return m, ErrIdentity
		}
	case idInteger, idText:
		idLen = 1 << (b[0] >> 4)
	default:
		return m, ErrIdentity
	}
	hash, sigLen, auth := Hash(b[1]&15), int(b[1]>>4)*4, b[2]>>4
	if hash.Size() != sigLen || hash == 0 && sigLen != 0 || hash != 0 && sigLen == 0 {
		return m, ErrHash
	}
	if auth > authSecret || auth == authSecret && hash == 0 {
		return m, ErrAuthentication
	}
	at := fixedLen + idLen
	if len(b) < at+sigLen {
		return m, ErrTruncated
	}
	m = Message{
		Hash: hash, Op: OpCode(b[2] & 15), Next: b[3], Epoch: binary.BigEndian.Uint32(b[4:]),
		Payload: b[at+sigLen:], secret: auth == authSecret, integer: idType == idInteger, signed: b, at: at,
	}
	if idLen > 0 {
		m.Identity = b[fixedLen:at:at]
	}
	return m, m.checkPayload()
}

func (m *Message) checkPayload() error {
	switch m.Op {
	case Forward, EchoForward:
		return checkInner(m.Next, m.Payload)
	case Noop:
		if m.Next == NextNone && len(m.Payload) > 0 {
			return ErrLength
		}
	case EchoRequest, EchoResponse, MOTD:
	case QueryRequest, QueryResponse:
		if m.Next == NextNone && len(m.Payload) < sequenceLen {
			return ErrLength
		}
	default:
		return ErrOperation
	}
	if m.Next != NextNone {
		return ErrNextHeader
	}
	if m.extended() {
		return ErrExtended
	}
	return nil
}

// checkInner checks that an inner packet is of the protocol and fills the payload.
func checkInner(next byte, inner []byte) error {
	switch {
	case next != NextIPv4 && next != NextIPv6:
		return ErrNextHeader
	case len(inner) == 0:
		return ErrLength
	case next == NextIPv4 && inner[0]>>4 != 4, next == NextIPv6 && inner[0]>>4 != 6:
		return ErrNextHeader
	case next == NextIPv4:
		if n := int(inner[0]&15) * 4; n < 20 || len(inner) < n || int(binary.BigEndian.Uint16(inner[2:])) != len(inner) {
			return ErrLength
		}
	case len(inner) < 40 || int(binary.BigEndian.Uint16(inner[4:]))+40 != len(inner):
		return ErrLength
	}
	return nil
}

// extended reports whether the message can be another, valid one with bytes behind it whose
// signature was computed without the password: then the hash's padding follows the other
// message, up to the end of a block (RFC 1321 section 3.1, RFC 3174 section 4, RFC 6234
// section 4.1):
//
//	| other message, n bytes | 0x80 | 0 ... | 8*n in 8 bytes | what was added
//
// A payload contains this by accident with a probability of less than 2^-64.
func (m *Message) extended() bool {
	const block, lengthLen = 64, 8
	first := len(m.signed) - len(m.Payload)
	for end := (first+lengthLen)/block*block + block; end <= len(m.signed); end += block {
		n := binary.BigEndian.Uint64(m.signed[end-lengthLen:])
		if m.Hash == MD5 {
			n = bits.ReverseBytes64(n)
		}
		if n%8 != 0 || n/8 >= uint64(end-lengthLen) || n/8 < uint64(first) {
			continue
		}
		padding := m.signed[n/8 : end-lengthLen]
		if len(padding) > block || padding[0] != 0x80 {
			continue
		}
		zero := true
		for _, b := range padding[1:] {
			zero = zero && b == 0
		}
		if zero {
			return true
		}
	}
	return false
}

// Address returns the identity, if it is an IPv6 address.
func (m *Message) Address() (a [IdentityLen]byte, ok bool) {
	if !m.integer || len(m.Identity) != IdentityLen {
		return a, false
	}
	return [IdentityLen]byte(m.Identity), true
}

// Signature returns the signature; nil: there is none.
func (m *Message) Signature() []byte {
	n := m.Hash.Size()
	if n == 0 {
		return nil
	}
	return m.signed[m.at : m.at+n : m.at+n]
}

// Verify reports whether the message is signed with the key, in a time that does not depend
// on the difference. Meanwhile it changes the bytes of the message.
func (m *Message) Verify(k *Key) bool {
	if !m.secret || m.Hash != k.hash || m.Hash == 0 {
		return false
	}
	var had, want [sha256.Size]byte
	n, field := m.Hash.Size(), m.Signature()
	copy(had[:], field)
	copy(field, k.sum[:])
	m.Hash.sum(&want, m.signed)
	copy(field, had[:])
	return subtle.ConstantTimeCompare(had[:n], want[:n]) == 1
}

// Header is what the header of a packet says. Its identity is an IPv6 address.
type Header struct {
	Op       OpCode
	Next     byte
	Epoch    uint32
	Identity [IdentityLen]byte
}

// Sign writes a header, signed with the key, to the beginning of b, whose first HeaderLen
// bytes are free. The rest of b is the payload.
func Sign(b []byte, h *Header, k *Key) {
	n := k.hash.Size()
	b[0] = 4<<4 | idInteger // 2^4 bytes
	b[1] = byte(n/4)<<4 | byte(k.hash)
	b[2] = authSecret<<4 | byte(h.Op)
	b[3] = h.Next
	binary.BigEndian.PutUint32(b[4:], h.Epoch)
	copy(b[fixedLen:], h.Identity[:])
	field := b[fixedLen+IdentityLen:][:n]
	copy(field, k.sum[:])
	var signature [sha256.Size]byte
	k.hash.sum(&signature, b)
	copy(field, signature[:])
}

// Identity returns an address as an identity.
func Identity(a netip.Addr) [IdentityLen]byte { return a.As16() }

// Epoch returns a time as the header has it: it begins again every 136 years.
func Epoch(now time.Time) uint32 { return uint32(now.Unix()) }

// DefaultWindow is by how much the clocks of both ends may differ.
const DefaultWindow = 120 * time.Second

// Skew returns by how much an epoch is ahead of the time here. It is less than 69 years,
// because epochs begin again every 136 years.
func Skew(epoch uint32, now time.Time) time.Duration {
	return time.Duration(int32(epoch-Epoch(now))) * time.Second
}
