package client

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

const (
	// leastSecret is the length of the shortest secret of JSON, in bytes. Its HMAC is sent in
	// the clear without TLS, so that an eavesdropper can try secrets.
	leastSecret = 16
	// maxText is the length of the longest text that servers take, in bytes.
	maxText = 255
)

// readServer reads a name or an address, with or without a port.
func readServer(r *problem.Report, e tree.Entry, c *config.Client) {
	const want = `the server's name or address, such as "broker.example", "broker.example:5072" or "[2001:db8::1]:5072"`
	s, ok := value.String(r, e, want)
	if !ok {
		return
	}
	if host, port, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			value.Refuse(r, e, want)
			return
		}
		c.Port = uint16(n)
		s = host
	}
	text := *e.Value
	text.Text = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	e.Value = &text
	c.Server, _ = value.Host(r, e, 0, value.OrName)
}

// identity reads the address of our end of the tunnel.
func identity[S any](field func(*S) *netip.Addr) func(*problem.Report, tree.Entry, *S) {
	return func(r *problem.Report, e tree.Entry, s *S) {
		const want = `the IPv6 address of this end of the tunnel, without a prefix length, such as "2001:db8:ff:1::2"`
		text, ok := value.String(r, e, want)
		if !ok {
			return
		}
		a, err := netip.ParseAddr(text)
		if err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" || config.NotUnicast(a) != "" || a.IsLinkLocalUnicast() {
			value.Refuse(r, e, want)
			return
		}
		*field(s) = a
	}
}

// secret reads a file with a secret of at least so many bytes.
func secret[S any](least int, field func(*S) *config.Secret) func(*problem.Report, tree.Entry, *S) {
	return func(r *problem.Report, e tree.Entry, s *S) {
		if got, ok := value.Secret(r, e, least); ok {
			*field(s) = got
		}
	}
}

// word reads one of a few words.
func word[S any](field func(*S) *string, words ...string) func(*problem.Report, tree.Entry, *S) {
	return func(r *problem.Report, e tree.Entry, s *S) {
		if w, ok := value.Word(r, e, words...); ok {
			*field(s) = w
		}
	}
}

// text reads a text that is sent in a line of a protocol: without control characters and white
// space.
func text[S any](want string, field func(*S) *string) func(*problem.Report, tree.Entry, *S) {
	return func(r *problem.Report, e tree.Entry, s *S) {
		got, ok := value.String(r, e, want)
		switch {
		case !ok:
		case got == "" || len(got) > maxText || strings.ContainsFunc(got, func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) || c == unicode.ReplacementChar }):
			value.Refuse(r, e, want+", of 1 to 255 bytes without white space")
		default:
			*field(s) = got
		}
	}
}

// file reads the path of a file.
func file[S any](field func(*S) *string) func(*problem.Report, tree.Entry, *S) {
	return func(r *problem.Report, e tree.Entry, s *S) {
		if path, ok := value.File(r, e); ok {
			*field(s) = path
		}
	}
}
