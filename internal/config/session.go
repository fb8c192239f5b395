package config

import (
	"encoding/base64"
	"fmt"
)

// Secret is a secret in a file. Neither value nor length of it appears in texts: String
// returns the path of the file.
type Secret struct {
	File  string // "": there is none
	value string
}

// String returns the path of the file.
func (s Secret) String() string { return s.File }

// GoString keeps the secret out of %#v.
func (s Secret) GoString() string { return fmt.Sprintf("config.Secret{%q}", s.File) }

// Value returns the secret; "": it was not read.
func (s Secret) Value() string { return s.value }

// With returns the secret with a value.
func (s Secret) With(value string) Secret {
	s.value = value
	return s
}

// HTTPS are the settings of a path in HTTPS (CONNECT-IP, RFC 9484). The path's Secret is
// the bearer token. HTTPS can be compared with ==.
type HTTPS struct {
	Over  string // auto, udp (HTTP/3) or tcp (HTTP/1.1)
	URL   string // "https://host[:port]/path", or only "/path"
	Proxy string // "http://[user:password@]host:port"; "": none

	// Files; "": none. A path with Listen has a certificate and a key, except for a proxy
	// on this host. CA has the certificates that sign the peer's; "": those of the system.
	Certificate, Key, CA string
}

// HTTPSURL is the path of the URL if none is configured (RFC 9484 section 3).
const HTTPSURL = "/.well-known/masque/ip/*/*/"

// WireGuard are the settings of a path in WireGuard. It can be compared with ==.
type WireGuard struct {
	Private, Preshared Secret // base64, as wg(8) writes them
	Public             WireGuardKey
}

// WireGuardKey is a public key of WireGuard.
type WireGuardKey [32]byte

// String returns the key in base64.
func (k WireGuardKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// ParseWireGuardKey reads a key in base64.
func ParseWireGuardKey(s string) (k WireGuardKey, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(k) {
		return k, fmt.Errorf("it is not a key of WireGuard: 32 bytes in base64, 44 characters")
	}
	return WireGuardKey(b), nil
}
