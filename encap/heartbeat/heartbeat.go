// Package heartbeat reads and writes the messages of the SixXS heartbeat protocol
// (draft-massar-v6ops-heartbeat-01), by which the client of a tunnel broker says which outer
// address it has. The tunnel itself is IPv6 in protocol 41.
//
// A message is one UDP datagram to port 3740 of the broker, in ASCII, and is never answered:
//
//	HEARTBEAT TUNNEL 2001:db8:2ff:2::2 sender 1700000000 9ebe6907…
//	HEARTBEAT TUNNEL 2001:db8:2ff:2::2 192.0.2.1 1700000000 1ce3ef50…
//	DISABLE TUNNEL 2001:db8:2ff:2::2 sender 1700000000 158bcedd…
//	HEARTBEAT HOST 2001:db8::2 409100400 bd72fb8d…
//
// The fields are the client's end of the tunnel, its outer address ("sender": the source of the
// datagram), the time in seconds since 1970, and a digest of everything before it, a space, and
// the password. The digest covers the bytes as they were sent, so another spelling of an
// address has another digest.
//
// # Threats
//
// The digest is MD5 with the secret at the end. Whoever has a message can test guesses of the
// password, which must therefore be random. A message in the form "sender" says nothing of the
// address from which it comes: a copy that arrives from another address before the original
// moves the tunnel there, until the next message. The other form does not have this weakness.
// HMAC-SHA-256 is used only between ends that are both configured for it.
//
// The package opens no sockets and reads no clock.
package heartbeat

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"hash"
	"net/netip"
	"strconv"
)

// Port is the UDP port of the broker.
const Port = 3740

// MaxLen is the length of the longest message, in bytes.
const MaxLen = 255

// Command is what a message asks for.
type Command byte

// The commands.
const (
	Tunnel  Command = iota // the tunnel is in use, at an outer address
	Host                   // a host is there; this says nothing of a tunnel
	Disable                // the tunnel is not used any more
)

var commands = [...]string{Tunnel: "HEARTBEAT TUNNEL", Host: "HEARTBEAT HOST", Disable: "DISABLE TUNNEL"}

// String returns the command as it is sent.
func (c Command) String() string {
	if int(c) < len(commands) {
		return commands[c]
	}
	return "invalid"
}

// Digest is a way to compute the digest of a message.
type Digest byte

// The digests. A server tells SHA256 and HMAC from MD5 by their length, and has to be
// configured for one of the two.
const (
	MD5    Digest = iota // of the draft
	SHA256               // of the same text, in place of MD5
	HMAC                 // HMAC-SHA-256 of the text without the password, which is the key
)

// Message is what a message says.
type Message struct {
	Command Command
	Inner   netip.Addr // the client's end of the tunnel; the host's address
	Outer   netip.Addr // the client's outer address; the zero Addr: the source of the datagram
	Epoch   int64      // seconds since 1970
}

// sender stands for the source of the datagram.
const sender = "sender"

// Append appends a message, with the digest and the NUL that ends it.
func Append(b []byte, m Message, secret string, d Digest) []byte {
	start := len(b)
	b = append(b, m.Command.String()...)
	b = append(b, ' ')
	b = m.Inner.AppendTo(b)
	if m.Command != Host {
		b = append(b, ' ')
		if m.Outer.IsValid() {
			b = m.Outer.AppendTo(b)
		} else {
			b = append(b, sender...)
		}
	}
	b = append(b, ' ')
	b = strconv.AppendInt(b, m.Epoch, 10)
	sum := compute(b[start:], secret, d)
	b = append(b, ' ')
	b = hex.AppendEncode(b, sum)
	return append(b, 0)
}

// compute returns the digest of the text before it.
func compute(text []byte, secret string, d Digest) []byte {
	var h hash.Hash
	switch d {
	case HMAC:
		h = hmac.New(sha256.New, []byte(secret))
		h.Write(text)
		return h.Sum(nil)
	case SHA256:
		h = sha256.New()
	default:
		h = md5.New()
	}
	h.Write(text)
	h.Write([]byte{' '})
	h.Write([]byte(secret))
	return h.Sum(nil)
}

// Received is a message that was read, and whose digest is not checked yet.
type Received struct {
	Message
	text   []byte // everything before the digest and the space before that
	digest []byte // in hexadecimal
}

// Errors of Parse.
var (
	ErrLength  = errors.New("a heartbeat has less than 256 bytes")
	ErrCommand = errors.New("not a command of the heartbeat protocol")
	ErrFields  = errors.New("the number of fields of a heartbeat is wrong")
	ErrAddress = errors.New("a heartbeat with something else in place of an address")
	ErrEpoch   = errors.New("a heartbeat with something else in place of a time")
	ErrDigest  = errors.New("a heartbeat with something else in place of a digest")
)

// Parse reads the payload of a datagram, which may end with any number of NUL, CR and LF. The
// result refers to b.
func Parse(b []byte) (Received, error) {
	var r Received
	if len(b) > MaxLen {
		return r, ErrLength
	}
	b = bytes.TrimRight(b, "\x00\r\n")
	rest := b
	field := func() []byte {
		f, after, _ := bytes.Cut(rest, []byte{' '})
		rest = after
		return f
	}
	verb, object := field(), field()
	switch command := string(verb) + " " + string(object); command {
	case commands[Tunnel]:
	case commands[Host]:
		r.Command = Host
	case commands[Disable]:
		r.Command = Disable
	default:
		return r, ErrCommand
	}
	var err error
	if r.Inner, err = netip.ParseAddr(string(field())); err != nil || r.Inner.Zone() != "" {
		return r, ErrAddress
	}
	if r.Command != Host {
		if outer := string(field()); outer != sender {
			if r.Outer, err = netip.ParseAddr(outer); err != nil || r.Outer.Zone() != "" {
				return r, ErrAddress
			}
		}
	}
	if r.Epoch, err = parseEpoch(field()); err != nil {
		return r, err
	}
	if len(rest) == 0 {
		return r, ErrFields
	}
	r.digest = rest
	r.text = b[:len(b)-len(rest)-1]
	if !lowerHex(rest) || len(rest) != hex.EncodedLen(md5.Size) && len(rest) != hex.EncodedLen(sha256.Size) {
		return r, ErrDigest
	}
	return r, nil
}

// parseEpoch reads a time in seconds.
func parseEpoch(b []byte) (int64, error) {
	if len(b) == 0 || b[0] < '0' || b[0] > '9' { // a sign is nothing that is sent
		return 0, ErrEpoch
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return 0, ErrEpoch
	}
	return n, nil
}

// lowerHex reports whether b has only the digits that a client sends.
func lowerHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Verify reports whether the digest is right: MD5, or the other digest that is accepted, if
// there is one. It takes the same time for every wrong digest.
func (r *Received) Verify(secret string, other Digest) bool {
	d := MD5
	if len(r.digest) == hex.EncodedLen(sha256.Size) {
		if other == MD5 {
			return false
		}
		d = other
	}
	var want [2 * sha256.Size]byte
	return subtle.ConstantTimeCompare(r.digest, hex.AppendEncode(want[:0], compute(r.text, secret, d))) == 1
}
