package tsp

import (
	"context"
	"errors"
	"net/netip"
	"time"
	"unicode"
	"unicode/utf8"

	"sixfour/encap/tsp"
	"sixfour/transport/access"
)

// caller is the client of a dialogue: it decides what the client gets. It implements
// tsp.Backend. One goroutine at a time uses it.
type caller struct {
	server   *Server
	from, at netip.AddrPort
	stream   bool // over TCP

	account access.Account  // whose secret was asked for
	refusal *access.Refusal // why there is none
	link    access.Link     // of the tunnel that this dialogue has made
	granted *tsp.Tunnel
	leave   func(why string)
}

// maxName is the longest name of a user.
const maxName = 253

// Secret implements tsp.Backend. Names without a secret, which an open broker has, are for
// clients that authenticate as anonymous, and do not choose their name.
func (c *caller) Secret(user string) (secret string, known bool) {
	c.account, c.refusal = access.Account{}, nil
	if !c.server.config.Authority.Allow(c.from.Addr()) {
		c.refusal = access.Refuse(access.TooMany, "too many attempts from %v", c.from.Addr())
		return c.server.decoy, false
	}
	if !plausible(user) {
		c.refusal = access.Refuse(access.UnknownAccount, "the name is not one of an account")
		return c.server.decoy, false
	}
	a, err := c.server.config.Authority.Named(user)
	if err != nil {
		c.refusal = refusalOf(err)
		return c.server.decoy, false
	}
	if a.Secret == "" {
		c.refusal = access.Refuse(access.UnknownAccount, "there is no account with a password")
		return c.server.decoy, false
	}
	c.account = a
	return a.Secret, true
}

// plausible reports whether a name may be one of an account.
func plausible(name string) bool {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) {
		return false
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// refusalOf returns the refusal that an error of the Authority is.
func refusalOf(err error) *access.Refusal {
	var r *access.Refusal
	if errors.As(err, &r) {
		return r
	}
	return access.Refuse(access.Unavailable, "%v", err)
}

// Failed implements tsp.Backend.
func (c *caller) Failed(user string) {
	why := c.refusal
	switch {
	case why != nil:
	case c.account.Name != "":
		why = access.Refuse(access.WrongSecret, "the password is wrong")
	default:
		why = access.Refuse(access.BadMessage, "the credentials cannot be read")
	}
	c.refuse(why)
}

// refuse counts a refusal.
func (c *caller) refuse(why *access.Refusal) {
	c.server.config.Authority.Refuse(Protocol, c.from, c.account.Name, why)
}

// Serve implements tsp.Backend.
func (c *caller) Serve(user string, request *tsp.Tunnel) (*tsp.Tunnel, tsp.Status) {
	switch request.Action {
	case tsp.Create:
		info, status, why := c.create(user, request)
		if why != nil {
			c.refuse(why)
		}
		return info, status
	case tsp.Accept:
		return nil, tsp.StatusOf(tsp.Success)
	case tsp.Info:
		if c.granted != nil {
			return c.granted, tsp.StatusOf(tsp.Success)
		}
		return nil, tsp.Status{Code: tsp.ServerError, Text: "There is no tunnel"}
	case tsp.Delete, tsp.Reject:
		if c.leave != nil {
			c.leave("the client has deleted the tunnel")
			c.leave, c.granted = nil, nil
		}
		return nil, tsp.StatusOf(tsp.Success)
	}
	return nil, tsp.StatusOf(tsp.BadRequest)
}

// create makes the tunnel that the client asks for.
func (c *caller) create(user string, request *tsp.Tunnel) (*tsp.Tunnel, tsp.Status, *access.Refusal) {
	announced := request.Client.IPv4
	if !announced.IsValid() || announced.IsUnspecified() || announced.IsMulticast() {
		return refused(tsp.BadIPv4, access.BadMessage, "the client announces no IPv4 address")
	}
	kind, status, why := c.kind(request.Type, announced != c.from.Addr())
	if why != nil {
		return nil, status, why
	}
	bits := 0
	if request.Client.Router {
		if bits = request.Client.PrefixLength; bits < 0 || bits > 64 {
			return refused(tsp.BadPrefixLength, access.Unsupported, "prefixes have a length of at most 64, not %d", bits)
		}
	}
	if (user == "" || c.granted != nil) && !c.server.config.Authority.Allow(c.from.Addr()) {
		return refused(tsp.TooBusy, access.TooMany, "too many attempts from %v", c.from.Addr())
	}
	if user == "" {
		a, err := c.server.config.Authority.Named(AnonymousName(c.from.Addr(), announced))
		if err != nil {
			why := refusalOf(err)
			return nil, statusFor(why, false), why
		}
		c.account = a
	}
	if kind == tsp.V6V4 && c.server.clients.foreign(c.from.Addr(), c.account.Name) {
		return refused(tsp.AddressInUse, access.WrongAddress, "%v has a tunnel of another account", c.from.Addr())
	}
	interval := c.server.keepalive(request.Client.Keepalive)
	peer, err := c.attach(kind, bits, interval)
	if err != nil {
		why := refusalOf(err)
		return nil, statusFor(why, bits > 0), why
	}
	c.granted = c.info(kind, peer.Lease(), request, interval)
	return c.granted, tsp.StatusOf(tsp.Success), nil
}

// refused is the result of a request that is not served.
func refused(code int, reason access.Reason, format string, args ...any) (*tsp.Tunnel, tsp.Status, *access.Refusal) {
	return nil, tsp.StatusOf(code), access.Refuse(reason, format, args...)
}

// kind returns the type of the tunnel for a client that wants one.
func (c *caller) kind(want tsp.Type, nat bool) (tsp.Type, tsp.Status, *access.Refusal) {
	raw, udp := c.server.config.Raw != nil, !c.stream
	switch {
	case want == tsp.V6V4 && raw && nat:
		_, s, why := refused(tsp.BadIPv4, access.WrongAddress, "the client wants protocol 41, but there is a NAT")
		s.Text += ": there is a NAT, ask for v6udpv4"
		return "", s, why
	case (want == tsp.V6V4 || want == tsp.V6AnyV4 && !nat) && raw:
		return tsp.V6V4, tsp.Status{}, nil
	case (want == tsp.V6UDPV4 || want == tsp.V6AnyV4) && udp:
		return tsp.V6UDPV4, tsp.Status{}, nil
	}
	_, s, why := refused(tsp.BadType, access.Unsupported, "a tunnel of the type %.32q is not offered here", want)
	return "", s, why
}

// Limits of the interval between the signs of life of a client, in seconds.
const (
	minKeepalive = 10
	maxKeepalive = 3600
)

// keepalive returns the interval that a client gets; 0 if it asks for none.
func (s *Server) keepalive(asked int) int {
	if asked == 0 {
		return 0
	}
	return min(max(asked, s.timing.often), maxKeepalive)
}

// attach connects the client.
func (c *caller) attach(kind tsp.Type, bits, interval int) (access.Client, error) {
	s := c.server
	ctx, cancel := context.WithTimeout(s.ctx, s.timing.attach)
	defer cancel()
	attachment := access.Attachment{Protocol: Protocol, From: c.from, At: c.at, Bits: bits}
	if kind == tsp.V6V4 {
		raw := &rawLink{Link: s.config.Raw(c.from.Addr()), table: &s.clients, outer: c.from.Addr(), account: c.account.Name}
		attachment.From, attachment.At, attachment.Link = netip.AddrPortFrom(c.from.Addr(), 0), netip.AddrPortFrom(c.at.Addr(), 0), raw
		s.clients.own(raw)
		peer, err := s.config.Authority.Attach(ctx, c.account, attachment)
		if err != nil {
			s.clients.disown(raw)
			return nil, err
		}
		c.link = raw
		c.leave = func(why string) { s.clients.disown(raw); peer.Leave(why) }
		return peer, nil
	}
	t := &client{sender: s.sender, table: &s.clients, key: tupleOf(c.from, c.at), from: c.from, at: c.at, account: c.account.Name, patience: s.timing.silence}
	if interval > 0 {
		t.patience = time.Duration(s.timing.silent*interval) * time.Second
	}
	putHead(t.head[:], s.source(c.at), c.from)
	attachment.Link = t
	peer, err := s.config.Authority.Attach(ctx, c.account, attachment)
	if err != nil {
		return nil, err
	}
	t.hold(peer, time.Now())
	if before := s.clients.put(t); before != nil {
		before.leave("another tunnel runs between the same addresses and ports")
	}
	if t.gone.Load() { // ended in the meantime
		s.clients.remove(t)
	}
	c.link = t
	c.leave = func(why string) { s.clients.remove(t); t.leave(why) }
	return peer, nil
}

// info returns the document for a client with a lease.
func (c *caller) info(kind tsp.Type, lease access.Lease, request *tsp.Tunnel, interval int) *tsp.Tunnel {
	t := &tsp.Tunnel{Action: tsp.Info, Type: kind, Lifetime: lifetime}
	if lease.MTU != usualMTU {
		t.MTU = lease.MTU
	}
	t.Server = tsp.End{IPv4: c.at.Addr(), IPv6: lease.Endpoint.Broker}
	t.Client = tsp.End{IPv4: c.from.Addr(), IPv6: lease.Endpoint.Client, DNS: c.server.config.DNS, Keepalive: interval, KeepaliveTo: lease.Endpoint.Broker}
	if request.Client.Router {
		t.Client.Router, t.Client.Prefix = true, lease.Prefix
	}
	return t
}

// lifetime of a tunnel, in minutes. Clients in the field take it for seconds.
const lifetime = 1440

// usualMTU is the MTU that clients of the protocol take without being told.
const usualMTU = 1280

// statusFor is what a client is told about a refusal of the Authority.
func statusFor(why *access.Refusal, prefix bool) tsp.Status {
	code := tsp.ServerError
	switch why.Reason {
	case access.UnknownAccount, access.WrongSecret, access.Disabled:
		code = tsp.AuthFailed
	case access.NoPrefix:
		if code = tsp.NoTunnels; prefix {
			code = tsp.BadPrefixLength
		}
	case access.Unsupported:
		if code = tsp.BadType; prefix {
			code = tsp.BadPrefixLength
		}
	case access.WrongAddress:
		code = tsp.AddressInUse
	case access.Unavailable, access.TooMany, access.Stopping:
		code = tsp.TooBusy
	case access.Elsewhere:
		code = tsp.InProgress
	}
	return tsp.StatusOf(code)
}
