package wireguard

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
)

// PublicKey is the public key of a device.
type PublicKey [32]byte

// String returns the key in base64, as wg(8) prints it.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Secret is a private key or a preshared key. Package fmt does not print it.
type Secret [32]byte

// hidden is printed in the place of a secret.
const hidden = "(hidden)"

// String does not return the secret.
func (Secret) String() string { return hidden }

// GoString does not return the secret.
func (Secret) GoString() string { return hidden }

// Format does not print the secret, whatever the verb is.
func (Secret) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(hidden)) }

// MarshalText returns an error, so that encoders do not write the secret.
func (Secret) MarshalText() ([]byte, error) { return nil, errors.New("a secret key is not written") }

// Public returns the public key of a private key.
func (s Secret) Public() PublicKey {
	k, err := ecdh.X25519().NewPrivateKey(s[:])
	if err != nil { // never: any 32 bytes are a private key
		return PublicKey{}
	}
	return PublicKey(k.PublicKey().Bytes())
}

// NewPrivateKey makes a private key, as "wg genkey" does.
func NewPrivateKey() Secret {
	var s Secret
	_, _ = rand.Read(s[:]) // never fails
	s[0] &= 248
	s[31] = s[31]&127 | 64
	return s
}

// errKey says what a key looks like, without the text in question, which may be a secret.
var errKey = errors.New("a key is 32 bytes in base64: 44 characters, of which the last is '='")

// ParsePublicKey reads a key in base64, as "wg pubkey" prints it.
func ParsePublicKey(text string) (PublicKey, error) {
	k, err := parse(text)
	return PublicKey(k), err
}

// ParseSecret reads a private or preshared key in base64, as "wg genkey" and "wg genpsk"
// print it. The error does not contain the text.
func ParseSecret(text string) (Secret, error) {
	k, err := parse(text)
	return Secret(k), err
}

func parse(text string) (k [32]byte, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != len(k) {
		return k, errKey
	}
	return [32]byte(b), nil
}
