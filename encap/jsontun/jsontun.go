// Package jsontun has the wire format of a tunnel that carries IPv6 packets in a TCP
// connection, after a short dialogue in JSON. It is the protocol of a program of 2013, with
// a proof of identity added.
//
// The dialogue of the original program:
//
//	client  {"Id":"00:11:22:aa:bb:cc"}
//	server  {"Prefix":"2001:db8:77:5::/64"}   or {"Error":"out of prefixes"}, and closes
//
// No line end follows a message. The names of members are case-insensitive, and unknown
// members are ignored. Then both ends send IPv6 packets, one after the other, with nothing
// between them: the length of each is in its header.
//
// If the id has a secret, two messages come in between:
//
//	client  {"Id":"laptop"}
//	server  {"Nonce":"8f4c…"}
//	client  {"Id":"laptop","Auth":"51d2…"}    see Proof
//	server  {"Prefix":"2001:db8:77:5::/64"}
//
// The server does not speak before the client's hello, because a client of the original
// program takes the first message that it receives for the answer to its hello. Such a
// client never gets a nonce, unless its id has a secret, which it cannot prove anyway.
package jsontun

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Port is the TCP port of servers. The original program has no default; this is the port of
// its sample configuration.
const Port = 14629

// Limits of messages.
const (
	MaxMessage = 4096 // bytes, with the white space before it
	MaxDepth   = 8    // of objects and arrays in each other
	MaxID      = 255  // bytes
)

// Message is a message of either end.
type Message struct {
	ID     string `json:"Id,omitempty"` // of the client, in all its messages
	Auth   string `json:",omitempty"`   // of the client: see Proof
	Nonce  string `json:",omitempty"`   // of the server: asks for Auth
	Prefix string `json:",omitempty"`   // of the server: the client's prefix
	Error  string `json:",omitempty"`   // of the server, which then closes the connection
}

// Append appends the message, without a line end, to b.
func (m Message) Append(b []byte) []byte {
	text, err := json.Marshal(m)
	if err != nil { // it has only strings
		panic(err)
	}
	return append(b, text...)
}

// Errors of messages and packets.
var (
	ErrNotObject = errors.New("the message does not begin with {")
	ErrTooLong   = fmt.Errorf("the message has more than %d bytes", MaxMessage)
	ErrTooDeep   = fmt.Errorf("the message has more than %d levels", MaxDepth)
)

// Parse reads the message with which b begins, after white space. It returns its length,
// which is 0 if the end of the message is not in b. What follows the message is not read.
func Parse(b []byte) (m Message, n int, err error) {
	if n, err = end(b); n == 0 || err != nil {
		return Message{}, 0, err
	}
	if !utf8.Valid(b[:n]) { // it would be replaced, and different ids would become one
		return Message{}, 0, errors.New("the message is not valid UTF-8")
	}
	if err := json.Unmarshal(b[:n], &m); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			return Message{}, 0, fmt.Errorf("%s is a JSON %s instead of a string", kind.Field, kind.Value)
		}
		return Message{}, 0, fmt.Errorf("the message is not valid JSON: %w", err)
	}
	return m, n, nil
}

// end returns where the object ends with which b begins. It is 0 if that is not in b.
func end(b []byte) (int, error) {
	at := len(b) - len(TrimSpace(b))
	if at == len(b) {
		return 0, full(b)
	}
	if b[at] != '{' {
		return 0, ErrNotObject
	}
	depth, quoted := 0, false
	for ; at < min(len(b), MaxMessage); at++ {
		switch c := b[at]; {
		case quoted && c == '\\':
			at++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return 0, ErrTooDeep
			}
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return at + 1, nil
			}
		}
	}
	return 0, full(b)
}

// full returns an error if a message without an end is as long as a message may be.
func full(b []byte) error {
	if len(b) >= MaxMessage {
		return ErrTooLong
	}
	return nil
}

// TrimSpace removes the white space of JSON at the beginning of b. There may be some between
// a message and the first packet.
func TrimSpace(b []byte) []byte { return bytes.TrimLeft(b, " \t\r\n") }

// CheckID reports what is wrong with an id: it has 1 to MaxID bytes of UTF-8, all of them
// characters that can be shown.
func CheckID(id string) error {
	switch {
	case id == "":
		return errors.New("the message has no Id")
	case len(id) > MaxID:
		return fmt.Errorf("the Id has %d bytes: at most %d are allowed", len(id), MaxID)
	case !utf8.ValidString(id), strings.ContainsFunc(id, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("the Id has control characters, or is not valid UTF-8")
	}
	return nil
}

// nonceLen is how many random bytes a nonce has. It is sent in hexadecimal.
const nonceLen = 16

// NewNonce returns a nonce.
func NewNonce() string {
	var b [nonceLen]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Proof returns the value of Auth: HMAC-SHA-256 (RFC 2104, FIPS 180-4) in lower-case
// hexadecimal. The key is the secret; the message is the id, a byte 0, and the text of the
// server's nonce.
func Proof(secret []byte, id, nonce string) string {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(id + "\x00" + nonce))
	return hex.EncodeToString(h.Sum(nil))
}

// Proves reports whether a message proves that its sender knows the secret of an id. It
// takes the same time for all values of Auth that have the right length.
func (m *Message) Proves(secret []byte, id, nonce string) bool {
	got, err := hex.DecodeString(m.Auth)
	want, _ := hex.DecodeString(Proof(secret, id, nonce))
	return err == nil && hmac.Equal(got, want)
}

// global are the addresses that are assigned to networks of the Internet (RFC 4291, 2.5.4).
var global = netip.MustParsePrefix("2000::/3")

// ParsePrefix returns the prefix of a server's answer. It must be one of the Internet, with a
// length from 48 to 120: a broker whose provider gave it a single /64 divides that.
func ParsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("the server's prefix %.64q is not valid", s)
	case p.Bits() < 48 || p.Bits() > 120 || !p.Addr().Is6():
		return netip.Prefix{}, fmt.Errorf("the server's prefix %v is not an IPv6 prefix from /48 to /120", p)
	case !global.Contains(p.Addr()):
		return netip.Prefix{}, fmt.Errorf("the server's prefix %v is not in %v, the addresses of the Internet", p, global)
	}
	return p.Masked(), nil
}
