// Package ayiya is the wire format of AYIYA, Anything In Anything
// (draft-massar-v6ops-ayiya-02), as tunnels in UDP use it:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------+-------+-------+-------+-------+-------+---------------+
//	| IDLen |IDType | SigLen|HshMeth|AutMeth| OpCode|  Next Header  |
//	+-------+-------+-------+-------+-------+-------+---------------+
//	|                          Epoch Time                           |
//	+---------------------------------------------------------------+
//	:             Identity, 2^IDLen bytes: an IPv6 address          :
//	+---------------------------------------------------------------+
//	:             Signature, 4*SigLen bytes: 20 with SHA-1          :
//	+---------------------------------------------------------------+
//	:             Payload                                           :
//	+---------------------------------------------------------------+
//
// The signature is the hash of header and payload, with the hash of the password in the
// signature field. Such a hash is no HMAC: from one packet and its signature, anybody can
// compute the signature of that packet with certain bytes behind it (length extension).
// Therefore an inner packet must fill the payload exactly, and a payload of another kind
// must not look like an extension.
package ayiya

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"strings"
)

// Port is the UDP port of servers.
const Port = 5072

// Hash is a method of hashing. It is a value of the field HshMeth.
type Hash uint8

// The methods. Clients in the field have SHA1. SHA256 is not in the draft, but in a fork of
// the usual client. That fork's number 3, UMAC, is refused.
const (
	MD5    Hash = 1
	SHA1   Hash = 2
	SHA256 Hash = 4
)

// ParseHash returns the method with a name: md5, sha1 or sha256.
func ParseHash(name string) (Hash, error) {
	switch strings.ToLower(name) {
	case "md5":
		return MD5, nil
	case "sha1":
		return SHA1, nil
	case "sha256":
		return SHA256, nil
	}
	return 0, fmt.Errorf("%q is no hash of AYIYA: these are sha1, sha256 and md5", name)
}

// String returns the name of the method.
func (h Hash) String() string {
	switch h {
	case MD5:
		return "md5"
	case SHA1:
		return "sha1"
	case SHA256:
		return "sha256"
	}
	return fmt.Sprintf("hash %d", uint8(h))
}

// Size returns the length of a signature in bytes; 0: it is none of the methods.
func (h Hash) Size() int {
	switch h {
	case MD5:
		return md5.Size
	case SHA1:
		return sha1.Size
	case SHA256:
		return sha256.Size
	}
	return 0
}

// fixedLen is the length of the header up to the identity.
const fixedLen = 8

// IdentityLen is the length of an identity that is an IPv6 address.
const IdentityLen = 16

// HeaderLen returns the length of a header with an IPv6 address as identity: 44 with SHA1,
// 40 with MD5, 56 with SHA256.
func (h Hash) HeaderLen() int { return fixedLen + IdentityLen + h.Size() }

// MaxHeaderLen is the largest HeaderLen.
const MaxHeaderLen = fixedLen + IdentityLen + sha256.Size

// sum writes the hash of b to the beginning of to.
func (h Hash) sum(to *[sha256.Size]byte, b []byte) {
	switch h {
	case MD5:
		s := md5.Sum(b)
		copy(to[:], s[:])
	case SHA1:
		s := sha1.Sum(b)
		copy(to[:], s[:])
	case SHA256:
		*to = sha256.Sum256(b)
	}
}

// Key is the hash of a password. It does not show its value when it is printed. Keys can be
// compared with ==, which takes a time that depends on them.
type Key struct {
	hash Hash
	sum  [sha256.Size]byte
}

// NewKey returns the key of a password, whose bytes count as they are: also hexadecimal
// digits are text.
func NewKey(h Hash, password string) (k Key) {
	k.hash = h
	h.sum(&k.sum, []byte(password))
	return k
}

// Hash returns the method of hashing.
func (k *Key) Hash() Hash { return k.hash }

// String returns the name of the method.
func (k Key) String() string { return k.hash.String() + " key" }

// GoString returns the same.
func (k Key) GoString() string { return k.String() }

// OpCode is what a packet is for.
type OpCode uint8

// The operations.
const (
	Noop          OpCode = 0 // heartbeat; no payload
	Forward       OpCode = 1
	EchoRequest   OpCode = 2 // the payload comes back in an EchoResponse
	EchoForward   OpCode = 3 // as Forward, and the payload comes back in an EchoResponse
	EchoResponse  OpCode = 4
	MOTD          OpCode = 5
	QueryRequest  OpCode = 6
	QueryResponse OpCode = 7
)

// Values of the field Next Header: protocol numbers.
const (
	NextIPv4 = 4
	NextIPv6 = 41
	NextNone = 59
)
