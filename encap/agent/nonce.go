package agent

import (
	"crypto/rand"
	"encoding/binary"
)

// Nonce returns a number that nobody can guess: an answer that has it comes from a node that has
// got the question.
func Nonce() uint64 {
	var b [8]byte
	rand.Read(b[:]) //nolint:errcheck // it never fails
	return binary.NativeEndian.Uint64(b[:])
}
