package tsp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Request is what a client asks for.
type Request struct {
	User, Password string
	Auth           Auth
	Want           Type
	PrefixLength   int        // 0: no prefix
	Keepalive      int        // seconds
	Local          netip.Addr // our outer address
	Host           string     // the server, as we know it
	Version        string
	Stream         bool          // over TCP
	Cnonce         func() string // returns a new random word
}

// Refused is the error of a dialogue that the server ended.
type Refused struct {
	Status
	Brokers []Broker // others that it names
}

// Error says what it means for the user, and what the server said.
func (r *Refused) Error() string {
	said := fmt.Sprintf("%d %s", r.Code, r.Text)
	if means, ok := consequences[r.Code%redirected]; ok && r.Code < 2*redirected {
		return means + ": the broker says " + said
	}
	return "the broker says " + said
}

// consequences are what codes mean for the user.
var consequences = map[int]string{
	AuthFailed:      "the broker does not accept user and password",
	NoTunnels:       "the broker has no tunnel or prefix left",
	BadVersion:      "the broker does not speak our version of the protocol",
	BadType:         "the broker does not offer this type of tunnel",
	BadIPv4:         "the broker does not accept our IPv4 address",
	AddressInUse:    "another tunnel has our IPv4 address",
	BadPrefixLength: "the broker has no prefix of this length",
	PrefixLength518: "the broker has no prefix of this length",
	PrefixLength520: "the broker wants a prefix length",
	InProgress:      "the broker is still working on the same request",
	AnonymousPrefix: "the broker gives no prefix to anonymous clients",
	TooBusy:         "the broker is too busy",
}

// Errors of a client's dialogue.
var (
	ErrProtocol = errors.New("the broker does not keep to the protocol")
	ErrNoAuth   = errors.New("the broker does not offer the method of authentication")
	ErrNoType   = errors.New("the broker does not offer this type of tunnel")
	ErrProof    = errors.New("the broker does not know our password: it is not the one that we want")
)

// Negotiation is a client's end of one dialogue.
type Negotiation struct {
	r      *Request
	next   expected
	digest Digest
	grant  *Tunnel
}

// expected is what a client expects next.
type expected uint8

const (
	capability expected = iota
	plainPrompt
	challenge
	proof
	authResult
	info
	acknowledgement
	nothing
)

// NewNegotiation begins a dialogue.
func NewNegotiation(r *Request) *Negotiation { return &Negotiation{r: r} }

// First returns the first message.
func (n *Negotiation) First() []byte { return AppendVersion(nil, n.r.Version) }

// Grant returns what the server has granted, or nil.
func (n *Negotiation) Grant() *Tunnel { return n.grant }

// Done reports whether the dialogue has ended with success. Over TCP, the last message must
// still be sent.
func (n *Negotiation) Done() bool { return n.next == nothing }

// Receive takes the next message of the server, and returns the next one of ours: nil, if the
// server has something more to say. The error of a server that refuses is *Refused.
func (n *Negotiation) Receive(text []byte) (send []byte, err error) {
	if err := n.refusal(text); err != nil {
		return nil, err
	}
	switch n.next {
	case capability:
		return n.capability(text)
	case plainPrompt:
		n.next = authResult
		return AppendPlain(nil, n.r.User, n.r.Password), nil
	case challenge:
		return n.challenge(text)
	case proof:
		return n.proof(text)
	case authResult:
		n.next = info
		return n.ask(), nil
	case info:
		return n.info(text)
	case acknowledgement:
		n.next = nothing
		return nil, nil
	}
	return nil, fmt.Errorf("%w: a message after the end", ErrProtocol)
}

// refusal returns an error if the server's message is a result other than success, or if there
// must be a result and there is none.
func (n *Negotiation) refusal(text []byte) error {
	body, ok, err := Document(text)
	if err != nil {
		return fmt.Errorf("%w: %v", ErrProtocol, err)
	}
	if !ok {
		body = text
	}
	s, rest, ok := ParseStatus(body)
	switch {
	case !ok && (n.next == authResult || n.next == info):
		return fmt.Errorf("%w: there is no result", ErrProtocol)
	case !ok || s.Code == Success && (n.next == plainPrompt || n.next == authResult || n.next >= info):
		return nil
	case s.Code == Success:
		return fmt.Errorf("%w: a result that was not expected", ErrProtocol)
	}
	r := &Refused{Status: s}
	if s.Redirects() {
		if t, err := ParseTunnel(bytes.TrimLeft(rest, "\x00\r\n\t ")); err == nil {
			r.Brokers = t.Brokers
		}
	}
	return r
}

func (n *Negotiation) capability(text []byte) (send []byte, err error) {
	c, ok := ParseCapability(text)
	if !ok {
		return nil, fmt.Errorf("%w: it does not say what it offers", ErrProtocol)
	}
	if !slices.Contains(c.Tunnels, n.r.Want) && (n.r.Want != V6AnyV4 || !slices.Contains(c.Tunnels, V6V4) && !slices.Contains(c.Tunnels, V6UDPV4)) {
		return nil, fmt.Errorf("%w: %s", ErrNoType, n.r.Want)
	}
	a, ok := c.Choose(n.r.Auth, n.r.User != "")
	if !ok {
		return nil, fmt.Errorf("%w: it offers %v", ErrNoAuth, offered(c.Auths))
	}
	switch send = AppendAuthenticate(nil, a); a {
	case Anonymous:
		n.next = authResult
	case Plain:
		n.next = plainPrompt
		if n.r.Stream {
			n.next = authResult
			send = AppendPlain(send, n.r.User, n.r.Password)
		}
	case DigestMD5:
		n.next = challenge
	default:
		return nil, fmt.Errorf("%w: %s", ErrNoAuth, printable(string(a)))
	}
	return send, nil
}

// offered is a server's list for people.
func offered(list []Auth) []string {
	var names []string
	for _, a := range list[:min(len(list), maxList)] {
		names = append(names, printable(string(a)))
	}
	return names
}

func (n *Negotiation) challenge(text []byte) (send []byte, err error) {
	c, err := ParseChallenge(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrProtocol, err)
	}
	n.digest = c.Answer(n.r.User, n.r.Password, n.r.Host, n.r.Cnonce())
	n.next = proof
	return n.digest.Append(nil), nil
}

// proof checks that the server knows the password, too. Some servers put the result behind.
func (n *Negotiation) proof(text []byte) (send []byte, err error) {
	line, rest, _ := bytes.Cut(bytes.TrimLeft(text, "\x00\r\n\t "), []byte("\n"))
	p, err := ParseProof(line)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrProtocol, err)
	}
	if !SameProof(p, n.digest.Proof(n.r.Password)) {
		return nil, ErrProof
	}
	n.next = authResult
	if _, _, ok := ParseStatus(rest); ok {
		return n.Receive(rest)
	}
	if n.r.Stream {
		return nil, nil
	}
	return []byte{}, nil
}

// ask returns the document that asks for the tunnel.
func (n *Negotiation) ask() []byte {
	t := Tunnel{Action: Create, Type: n.r.Want}
	t.Client = End{IPv4: n.r.Local, Keepalive: n.r.Keepalive, Router: n.r.PrefixLength > 0, PrefixLength: n.r.PrefixLength}
	return AppendDocument(nil, t.AppendRequest(nil))
}

// info takes the server's grant, and returns the message that accepts it.
func (n *Negotiation) info(text []byte) (send []byte, err error) {
	body, ok, err := Document(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrProtocol, err)
	}
	if !ok {
		body = text
	}
	_, rest, _ := ParseStatus(body)
	t, err := ParseTunnel(bytes.TrimLeft(rest, "\x00\r\n\t "))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrProtocol, err)
	}
	if err := n.acceptable(t); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrProtocol, err)
	}
	n.grant, n.next = t, acknowledgement
	if n.r.Stream {
		n.next = nothing
	}
	return AppendDocument(nil, AppendAccept(nil)), nil
}

// acceptable returns an error if a grant makes no tunnel of ours.
func (n *Negotiation) acceptable(t *Tunnel) error {
	switch {
	case t.Action != Info:
		return errors.New("its answer is not the tunnel")
	case t.Type != V6V4 && t.Type != V6UDPV4 || n.r.Want != V6AnyV4 && t.Type != n.r.Want:
		return fmt.Errorf("it grants a tunnel of the type %q", printable(string(t.Type)))
	case t.Type == V6UDPV4 && n.r.Stream:
		return errors.New("it grants a tunnel in UDP in a dialogue over TCP")
	case !usable(t.Client.IPv6):
		return errors.New("it grants no IPv6 address")
	case t.Type == V6V4 && (!unicast4(t.Server.IPv4) || t.Server.IPv4.IsLoopback() && !n.r.Local.IsLoopback()):
		return errors.New("it does not say its IPv4 address")
	}
	if p := t.Client.Prefix; p.IsValid() && (p.Bits() < minPrefix || p.Bits() > 128 || !usable(p.Addr())) {
		return fmt.Errorf("it grants the prefix %v", p)
	}
	if t.Server.IPv6.IsValid() && !usable(t.Server.IPv6) {
		return errors.New("its IPv6 address is none")
	}
	return nil
}

// minPrefix is the length of the shortest prefix that a client takes: no broker gives more than
// what a provider has.
const minPrefix = 19

// usable reports whether an IPv6 address can be that of a host or a prefix.
func usable(a netip.Addr) bool {
	return a.Is6() && !a.Is4In6() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}

func unicast4(a netip.Addr) bool {
	return a.Is4() && a.As4()[0] < 224 && a.As4()[0] != 0
}
