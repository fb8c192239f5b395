package rendezvous

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"net/netip"
	"time"
)

// Size is the length of every message, in bytes.
const Size = 96

// MinSecret is the length of the shortest secret, in bytes.
const MinSecret = 16

// Window is how far the caller's time may be from the listener's.
const Window = 90 * time.Second

const (
	mark    = 0xf5           // the first byte
	version = 1              // of the protocol
	second  = version<<3 | 7 // the second byte; the last three bits are 7 in every version

	typeHello  = 1
	typeAnswer = 2
)

// Offsets of the fields.
const (
	atType           = 2
	atOutcome        = 3
	atCounter        = 4
	atID             = 8
	atTime           = 16
	atLifetime       = 28
	atPort           = 30
	atAddress        = 32
	atCookie         = 48
	atListenersTime  = 64
	atMAC            = 80
	macLen           = Size - atMAC
	cookieLen        = atListenersTime - atCookie
	idLen            = atTime - atID
	lifetimeUnit     = time.Second
	shortestLifetime = 10 * time.Second
	longestLifetime  = time.Hour
)

// IsMessage reports whether the payload of a datagram is a message of this protocol, in any
// version of it. No tunnel packet of FOU, GUE or GRE-in-UDP begins like one.
func IsMessage(b []byte) bool { return len(b) >= 2 && b[0] == mark && b[1]&7 == 7 }

// Outcome says what became of a message.
type Outcome byte

// The outcomes. The first four are sent in answers.
const (
	Accepted   Outcome = iota // the hello is accepted, or the answer says so
	Challenged                // the hello has no valid cookie for its address
	Clock                     // the caller's time is not within Window of the listener's
	Stale                     // the time and the counter are not greater than the last accepted ones
	Malformed                 // a wrong length, mark or type
	Version                   // another version of the protocol
	Stranger                  // the identifier is not that of a known secret
	Forged                    // the MAC is wrong
	Unasked                   // an answer to none of the hellos without an answer

	Outcomes // number of outcomes
)

var outcomes = [Outcomes]string{"accepted", "challenged", "clock", "stale", "malformed", "version", "stranger", "forged", "unasked"}

// String returns a word.
func (o Outcome) String() string {
	if o < Outcomes {
		return outcomes[o]
	}
	return "invalid"
}

// id identifies a secret.
type id [idLen]byte

// Key is what both ends derive from their secret. A Key belongs to one Caller or one peer of
// a Listener, and must not be used by both.
type Key struct {
	id  id
	mac hash.Hash
	sum [sha256.Size]byte
}

// NewKey derives the key from a secret.
func NewKey(secret []byte) (*Key, error) {
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("the secret has %d bytes: use at least %d random bytes, such as from: head -c 24 /dev/urandom | base64", len(secret), MinSecret)
	}
	k := &Key{mac: hmac.New(sha256.New, derive(secret, "sixfour rendezvous: MAC"))}
	copy(k.id[:], derive(secret, "sixfour rendezvous: identifier"))
	return k, nil
}

func derive(secret []byte, purpose string) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(purpose))
	return h.Sum(nil)
}

// of returns the MAC of a message, which is valid until the next call.
func (k *Key) of(b []byte) []byte {
	k.mac.Reset()
	k.mac.Write(b[:atMAC])
	return k.mac.Sum(k.sum[:0])[:macLen]
}

// seal writes the MAC.
func (k *Key) seal(b []byte) { copy(b[atMAC:], k.of(b)) }

// valid reports whether the MAC is right. It takes the same time for every wrong MAC.
func (k *Key) valid(b []byte) bool { return hmac.Equal(b[atMAC:Size], k.of(b)) }

// stamp is the time and the counter of a hello. Stamps of one caller increase.
type stamp struct {
	seconds              int64
	nanoseconds, counter uint32
}

// after reports whether s is greater than t.
func (s stamp) after(t stamp) bool {
	switch {
	case s.seconds != t.seconds:
		return s.seconds > t.seconds
	case s.nanoseconds != t.nanoseconds:
		return s.nanoseconds > t.nanoseconds
	}
	return s.counter > t.counter
}

// minus returns the time of s less t, at most and at least what a time.Duration can be.
func (s stamp) minus(t time.Time) time.Duration { return readTime(s.seconds, s.nanoseconds).Sub(t) }

// readTime returns a time. A time that no sender writes, such as one of which the seconds
// overflow the arithmetic of package time, is the zero time.
func readTime(seconds int64, nanoseconds uint32) time.Time {
	const most = 1 << 40 // in 34,000 years
	if seconds < 0 || seconds > most || nanoseconds >= 1e9 {
		return time.Time{}
	}
	return time.Unix(seconds, int64(nanoseconds))
}

func putTime(b []byte, t time.Time) {
	binary.BigEndian.PutUint64(b, uint64(t.Unix()))
	binary.BigEndian.PutUint32(b[8:], uint32(t.Nanosecond()))
}

func stampOf(b []byte) stamp {
	return stamp{int64(binary.BigEndian.Uint64(b[atTime:])), binary.BigEndian.Uint32(b[atTime+8:]), binary.BigEndian.Uint32(b[atCounter:])}
}

// check returns Accepted for a message of a type, of which the MAC is not checked yet.
func check(b []byte, kind byte) Outcome {
	switch {
	case !IsMessage(b):
		return Malformed
	case b[1] != second:
		return Version
	case len(b) != Size, b[atType] != kind:
		return Malformed
	}
	return Accepted
}

// begin returns a message of a type with a key's identifier.
func begin(kind byte, k *Key) []byte {
	b := make([]byte, Size)
	b[0], b[1], b[atType] = mark, second, kind
	copy(b[atID:], k.id[:])
	return b
}

func putEndpoint(b []byte, a netip.AddrPort) {
	address := a.Addr().As16()
	copy(b[atAddress:], address[:])
	binary.BigEndian.PutUint16(b[atPort:], a.Port())
}

func endpointOf(b []byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[atAddress:])).Unmap(), binary.BigEndian.Uint16(b[atPort:]))
}
