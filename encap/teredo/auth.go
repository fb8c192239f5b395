package teredo

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RFC 4380 section 5.2.2 requires it
	"encoding/binary"
	"sixfour/encap/header"
)

// Auth is the authentication header (RFC 4380 section 5.1.1):
//
//	| 00 | 01 | length of ID | length of value | ID … | value … | nonce (8) | confirmation (1) |
type Auth struct {
	ID, Value    []byte
	Nonce        uint64
	Confirmation byte // of a server: 0 means that the key is valid
}

func parseAuth(b []byte) (*Auth, []byte, error) {
	if len(b) < authLen {
		return nil, nil, errTruncated
	}
	id, value := int(b[2]), int(b[3])
	n := authLen + id + value
	if len(b) < n {
		return nil, nil, errTruncated
	}
	a := &Auth{ID: b[4 : 4+id], Value: b[4+id : 4+id+value], Nonce: binary.BigEndian.Uint64(b[4+id+value:]), Confirmation: b[n-1]}
	return a, b[n:], nil
}

func (a *Auth) append(b []byte) []byte {
	b = append(b, 0, 1, byte(len(a.ID)), byte(len(a.Value)))
	b = append(append(b, a.ID...), a.Value...)
	return append(binary.BigEndian.AppendUint64(b, a.Nonce), a.Confirmation)
}

// sum returns the authentication value of a message that has an authentication header.
func (m *Message) sum(key []byte) []byte {
	h := hmac.New(sha1.New, key)
	head := append(binary.BigEndian.AppendUint64(nil, m.Auth.Nonce), m.Auth.Confirmation)
	if m.Origin != (header.Mapping{}) {
		head = AppendOrigin(head, m.Origin)
	}
	h.Write(head)
	h.Write(m.Packet)
	return h.Sum(nil)
}

// Sign sets the authentication value of a message that has an authentication header.
func (m *Message) Sign(key []byte) { m.Auth.Value = m.sum(key) }

// Verify reports whether a message has an authentication header whose value was made with a
// key.
func (m *Message) Verify(key []byte) bool {
	return m.Auth != nil && hmac.Equal(m.Auth.Value, m.sum(key))
}
