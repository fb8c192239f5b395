package config

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"
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

// HTTPSPort is what all connections in HTTPS at one port have in common. It can be compared
// with ==. A port that does not listen has no files.
type HTTPSPort struct {
	Listen                 bool
	Over, Certificate, Key string
}

// WireGuardPort is what all connections in WireGuard at one port have in common. It can be
// compared with ==.
type WireGuardPort struct{ Private Secret }

// connections returns what all connections at the path's port have in common; nil: there are
// no connections.
func (p *Path) connections() any {
	switch s := p.Session.(type) {
	case HTTPS:
		if p.Listen {
			return HTTPSPort{true, s.Over, s.Certificate, s.Key}
		}
		return HTTPSPort{}
	case WireGuard:
		return WireGuardPort{s.Private}
	case AYIYA:
		return AYIYAPort{}
	case TSP:
		return TSPPort{}
	case JSON:
		return JSONPort{}
	}
	return nil
}

const (
	// httpsExtra is how many bytes fewer than in UDP fit into HTTP/3, over a first hop with an
	// MTU of 1500: quic-go leaves 44 for its headers, sends at most 1452 in UDP, and does not
	// look for the last 20 of these. Over TCP the length of packets does not matter.
	httpsExtra = 44 + 20 + 20
	// wireGuardExtra is how many bytes WireGuard adds to the header of UDP: type, receiver and
	// counter, and the tag. Packets that fill a path are not padded.
	wireGuardExtra = 16 + 16
)

// Files returns the files that the configuration of the path names.
func (p *Path) Files() (all []string) {
	add := func(files ...string) {
		for _, f := range files {
			if f != "" {
				all = append(all, f)
			}
		}
	}
	add(p.Secret.File)
	switch s := p.Session.(type) {
	case HTTPS:
		add(s.Certificate, s.Key, s.CA)
	case WireGuard:
		add(s.Private.File, s.Preshared.File)
	default:
		add(filesOf(s)...)
	}
	return all
}

// Binds returns the port that the path opens at this host; 0: any, or none.
func (p *Path) Binds() uint16 {
	if _, ok := p.Session.(HTTPS); ok && !p.Listen {
		return 0
	}
	return p.LocalPort
}

// ConnectsTo returns the port to which the path connects over TCP; 0: it does not.
func (p *Path) ConnectsTo() uint16 {
	s, ok := p.Session.(HTTPS)
	if !ok || p.Listen || s.Over == "udp" {
		return 0
	}
	if u, err := url.Parse(s.Proxy); err == nil && s.Proxy != "" {
		if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
			return uint16(n)
		}
		return 80
	}
	return p.Port
}
