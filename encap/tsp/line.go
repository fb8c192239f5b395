package tsp

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Versions are the protocol versions that this package speaks, the newest first. They do not
// differ in their messages.
var Versions = []string{"2.0.2", "2.0.1", "2.0.0"}

// AppendVersion appends a client's first message.
func AppendVersion(b []byte, version string) []byte { return fmt.Appendf(b, "VERSION=%s\r\n", version) }

// ParseVersion returns the version in a client's first message. Ok is false if it is none.
func ParseVersion(text []byte) (version string, ok bool) {
	return cutPrefixFold(firstLine(text), "VERSION=")
}

// Capability is what a server offers.
type Capability struct {
	Tunnels []Type
	Auths   []Auth
}

// Append appends the line of the server.
func (c Capability) Append(b []byte) []byte {
	b = append(b, "CAPABILITY"...)
	for _, t := range c.Tunnels {
		b = append(append(b, " TUNNEL="...), strings.ToUpper(string(t))...)
	}
	for _, a := range c.Auths {
		b = append(append(b, " AUTH="...), a...)
	}
	return append(b, "\r\n"...)
}

// maxOffers is how many words of a capability line are read.
const maxOffers = 64

// ParseCapability returns what a server offers. Words that this package does not know are in it,
// too. Ok is false if the text is not the line.
func ParseCapability(text []byte) (c Capability, ok bool) {
	words := strings.Fields(firstLine(text))
	if len(words) == 0 || !strings.EqualFold(words[0], "CAPABILITY") {
		return c, false
	}
	for _, w := range words[1:min(len(words), maxOffers)] {
		if t, ok := cutPrefixFold(w, "TUNNEL="); ok {
			c.Tunnels = append(c.Tunnels, Type(strings.ToLower(t)))
		}
		if a, ok := cutPrefixFold(w, "AUTH="); ok {
			c.Auths = append(c.Auths, Auth(strings.ToUpper(a)))
		}
	}
	return c, true
}

// Choose returns the method for a client that wants one: that, or the best of those that the
// server offers. Ok is false if the server offers none that the client can use; without a user
// only ANONYMOUS can be used.
func (c Capability) Choose(want Auth, user bool) (a Auth, ok bool) {
	if want != Auto {
		return want, slices.Contains(c.Auths, want)
	}
	for _, a := range []Auth{DigestMD5, Plain, Anonymous} {
		if slices.Contains(c.Auths, a) && (user || a == Anonymous) {
			return a, true
		}
	}
	return "", false
}

// AppendAuthenticate appends the message that begins the authentication.
func AppendAuthenticate(b []byte, a Auth) []byte { return fmt.Appendf(b, "AUTHENTICATE %s\r\n", a) }

// ParseAuthenticate returns the method of the message that begins the authentication. Ok is
// false if the text is not that message.
func ParseAuthenticate(text []byte) (a Auth, ok bool) {
	words := strings.Fields(firstLine(text))
	if len(words) < 2 || !strings.EqualFold(words[0], "AUTHENTICATE") {
		return "", false
	}
	return Auth(strings.ToUpper(words[1])), true
}

// AppendPlain appends the credentials of PLAIN.
func AppendPlain(b []byte, user, password string) []byte {
	return fmt.Appendf(b, "\x00%s\x00%s\r\n", user, password)
}

// ParsePlain returns the credentials of PLAIN (RFC 4616). An authorization identity before the
// first NUL is ignored. Between user and password there may be CR LF instead of NUL. Ok is false
// if there are not two of them; then only the user may be there, and the password in the next
// line of a TCP connection.
func ParsePlain(text []byte) (user, password string, ok bool) {
	text = bytes.TrimRight(text, "\x00\r\n")
	fields := bytes.Split(bytes.ReplaceAll(text, []byte("\r\n"), []byte{0}), []byte{0})
	for len(fields) > 0 && len(fields[0]) == 0 {
		fields = fields[1:]
	}
	switch n := len(fields); {
	case n == 1:
		return string(fields[0]), "", false
	case n == 2:
		return string(fields[0]), string(fields[1]), true
	case n == 3:
		return string(fields[1]), string(fields[2]), true
	}
	return "", "", false
}

// firstLine returns the text up to its first control character: lines end with CR LF, some
// clients add a NUL, and others end it with CR and a backspace.
func firstLine(text []byte) string {
	if i := bytes.IndexFunc(text, func(r rune) bool { return r < ' ' && r != '\t' }); i >= 0 {
		text = text[:i]
	}
	return string(bytes.TrimSpace(text))
}

// cutPrefixFold is strings.CutPrefix for any case.
func cutPrefixFold(s, prefix string) (rest string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}

// Status is a result of a server.
type Status struct {
	Code int
	Text string
}

// The results of a server (RFC 5572 section 5, and clients' sources). The same and 1000 more
// comes with a list of other brokers.
const (
	Success         = 200
	AuthFailed      = 300
	NoTunnels       = 301 // no more tunnels available
	BadVersion      = 302
	BadType         = 303 // a tunnel type that the server does not offer
	ServerError     = 310
	BadRequest      = 500
	BadIPv4         = 501
	BadIPv6         = 502
	AddressInUse    = 506 // another tunnel has the IPv4 address
	BadPrefixLength = 507 // no prefix of this length can be assigned
	DNSDelegation   = 509
	PrefixLength518 = 518 // the prefix length is not supported
	PrefixLength520 = 520 // the prefix length is missing
	InProgress      = 521 // the same request is being processed
	AnonymousPrefix = 522 // anonymous clients get no prefix
	TooBusy         = 530
	redirected      = 1000
)

var meanings = map[int]string{
	Success: "Success", AuthFailed: "Authentication failed", NoTunnels: "No more tunnels available", BadVersion: "Unsupported client version",
	BadType: "Unsupported tunnel type", ServerError: "Server side error", BadRequest: "Invalid request format or specified length",
	BadIPv4: "Invalid IPv4 address", BadIPv6: "Invalid IPv6 address", AddressInUse: "IPv4 address already used for existing tunnel",
	BadPrefixLength: "Requested prefix length cannot be assigned", DNSDelegation: "DNS delegation error",
	PrefixLength518: "Unsupported prefix length", PrefixLength520: "Missing prefix length", InProgress: "Request already in progress",
	AnonymousPrefix: "No prefix for anonymous clients", TooBusy: "Server too busy",
}

// StatusOf returns a result with the usual text.
func StatusOf(code int) Status { return Status{code, Meaning(code)} }

// Meaning returns what a code means, or "" if it is not known.
func Meaning(code int) string {
	if code >= redirected {
		code -= redirected
	}
	return meanings[code]
}

// Redirects reports whether the result comes with a list of other brokers.
func (s Status) Redirects() bool { return s.Code >= redirected }

// Append appends the line of the result.
func (s Status) Append(b []byte) []byte {
	return append(append(strconv.AppendInt(b, int64(s.Code), 10), ' '), s.Text+"\r\n"...)
}

// maxStatus is the longest text of a result that is read.
const maxStatus = 200

// ParseStatus returns the result at the beginning of a text, and what follows its line. Ok is
// false if the text does not begin with a number of three or four digits.
func ParseStatus(text []byte) (s Status, rest []byte, ok bool) {
	line, rest, _ := bytes.Cut(text, []byte("\n"))
	digits, words, _ := strings.Cut(firstLine(line), " ")
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n < 100 || n > 9999 {
		return s, nil, false
	}
	return Status{int(n), printable(words)}, rest, true
}

// printable makes a text of a server harmless in logs and on terminals.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\ufffd' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > maxStatus {
		s = strings.ToValidUTF8(s[:maxStatus], "")
	}
	return strings.TrimSpace(s)
}
