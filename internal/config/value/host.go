package value

import (
	"errors"
	"net/netip"
	"strings"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
)

// anyWords are the words of iproute2 and others for any remote end.
var anyWords = map[string]bool{"any": true, "dynamic": true, "*": true}

// OrName is the alternative to an address in error messages.
const OrName = " or a DNS name"

// Host reads an address of a family, or a DNS name. or is the alternative to it in error
// messages.
func Host(r *problem.Report, e tree.Entry, family int, or string) (config.Host, bool) {
	// It is more likely that the user expects remote to be found automatically, like
	// local, than that a host is called "auto".
	if e.Kind == tree.String && anyWords[e.Text] {
		r.Add(e.At, `%s is %s, but sixfourd exchanges packets with configured addresses only, because nothing but its outer address identifies a peer: `+
			`set it to the other end's address or DNS name; for several other ends, write a [[tunnel.peer]] for each`, e.Name, problem.Quote(e.Text))
		return config.Host{}, false
	}
	if e.Kind == tree.String && e.Text != "auto" && IsDNSName(e.Text) {
		return config.Host{Name: e.Text}, true
	}
	a, ok := Addr(r, e, family, or, ParseEnd)
	return config.Host{Addr: a}, ok
}

// Addr reads the address of one end, of an IP version; 0 means either. or is the
// alternative to it in error messages.
func Addr(r *problem.Report, e tree.Entry, family int, or string, parse func(string) (netip.Addr, error)) (netip.Addr, bool) {
	want := addressOf(family) + or
	s, ok := String(r, e, want)
	if !ok {
		return netip.Addr{}, false
	}
	a, err := parse(s)
	zoned := err == nil && a.Zone() != ""
	switch {
	case errors.Is(err, errNoAddress):
		Refuse(r, e, want)
	case family != 0 && Version(a) != family:
		Refuse(r, e, want)
	case zoned:
		return a, true
	case a.Is6() && a.IsLinkLocalUnicast() && or != "" && err != nil:
		r.Add(e.At, "%s is %s: %v", e.Name, problem.Quote(s), err)
	case a.Is6() && a.IsLinkLocalUnicast() && or != "":
		r.Doubt(e.At, "%s is %s, a link-local address, which exists once on each interface: write %v%%DEV, with the interface's name for DEV", e.Name, problem.Quote(s), a)
		return a, r.Lenient
	case config.NotUnicast(a) != "":
		unicast := "a unicast address"
		if a.Is6() {
			unicast = "a global or unique local unicast address"
		}
		r.Add(e.At, "%s is %s, %s: it must be %s", e.Name, problem.Quote(s), config.NotUnicast(a), unicast)
	case err != nil:
		r.Add(e.At, "%s is %s: %v", e.Name, problem.Quote(s), err)
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// IsDNSName reports whether a text is a host name (RFC 1123 section 2.1) and does not
// look like an IPv4 address.
func IsDNSName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if len(s) > 253 {
		return false
	}
	length, digits := 0, true // of the label so far
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if length == 0 || s[i-1] == '-' {
				return false
			}
			length, digits = 0, true
			continue
		case c == '-' && length == 0, length == 63, !isNameCharacter(c):
			return false
		case c < '0' || c > '9':
			digits = false
		}
		length++
	}
	return length > 0 && !digits && s[len(s)-1] != '-'
}

// isNameCharacter reports whether a character may be in a host name. Some names have an
// underscore.
func isNameCharacter(c byte) bool {
	return c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
