package connectip

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"

	"sixfour/transport/netsock"
	"sixfour/transport/queue"
)

// Limits of times of connecting.
const (
	lastPause    = time.Minute      // between attempts to connect
	lastBetter   = time.Minute      // between attempts to use HTTP/3 again, which costs few packets
	lastUnsteady = 16 * time.Minute // the same where connections over HTTP/3 can be made, but do not last
	longEnough   = 30 * time.Second // a connection that was up for so long was good
)

// jitter returns a duration from half of d to d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// sleep returns false if the context has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// over returns how to connect.
func (s *Settings) over() Over {
	switch {
	case s.Proxy != nil:
		return TCP
	case s.Over == "":
		return Auto
	}
	return s.Over
}

// connect connects to the peer, again and again, until the context ends.
func (p *peer) connect(ctx context.Context) {
	a := &attempts{peer: p, pause: p.port.times.firstPause}
	for ctx.Err() == nil {
		c, err := a.next(ctx)
		if err == nil {
			err = p.attach(c)
			if err != nil {
				c.discard(err)
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			p.failed(err)
		} else {
			a.stay(ctx, c)
		}
		if !sleep(ctx, jitter(a.pause)) {
			return
		}
		a.pause = min(max(2*a.pause, p.port.times.firstPause), lastPause)
	}
}

// attempts remembers what has passed.
type attempts struct {
	peer   *peer
	pause  time.Duration // before the next attempt
	better time.Time     // HTTP/3 does not pass: when to try it again
	wait   time.Duration // from then until the next time
}

// next makes a connection: over HTTP/3, and if that does not pass, over HTTP/1.1.
func (a *attempts) next(ctx context.Context) (*conn, error) {
	p := a.peer
	switch over := p.settings.over(); {
	case over == TCP:
		return p.overTCP(ctx)
	case over == UDP:
		return a.overUDP(ctx)
	case time.Now().After(a.better):
		return either(ctx, a.overUDP, p.overTCP)
	default: // over TCP, as before
		return either(ctx, p.overTCP, a.overUDP)
	}
}

// either makes a connection in one way, or else in the other one. The error has both reasons.
func either(ctx context.Context, first, second func(context.Context) (*conn, error)) (*conn, error) {
	c, err := first(ctx)
	if err == nil {
		return c, nil
	}
	c, other := second(ctx)
	switch {
	case other == nil:
		return c, nil
	case err.Error() > other.Error(): // in the same order each time
		err, other = other, err
	}
	return nil, fmt.Errorf("%w; %w", err, other)
}

// overUDP makes a connection over HTTP/3, and remembers whether that was possible.
func (a *attempts) overUDP(ctx context.Context) (*conn, error) {
	wait := a.peer.port.times.udpWait
	if a.peer.settings.over() == UDP {
		wait = a.peer.port.times.tcpWait // there is nothing else
	}
	limited, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("no answer in %v", wait))
	defer cancel()
	c, err := a.peer.connectQUIC(limited)
	if err != nil {
		a.worse(max(a.wait, lastBetter))
		return nil, fmt.Errorf("HTTP/3 to UDP port %d of %v: %w", a.peer.Remote.Port(), a.peer.Remote.Addr(), plain(err))
	}
	a.better = time.Time{}
	return c, nil
}

// worse notes that HTTP/3 does not pass at present. The wait is doubled up to a limit.
func (a *attempts) worse(limit time.Duration) {
	a.wait = min(max(2*a.wait, a.peer.port.times.firstBetter), limit)
	a.better = time.Now().Add(jitter(a.wait))
}

// stay returns when a connection, and all that replace it, have ended. While the connection
// is over TCP, HTTP/3 is tried now and then: the new connection is complete before it
// replaces the other one.
func (a *attempts) stay(ctx context.Context, c *conn) {
	for {
		var again <-chan time.Time
		if c.over == TCP && a.peer.settings.over() == Auto {
			again = time.After(time.Until(a.better))
		}
		select {
		case <-ctx.Done():
			return
		case <-c.done:
			a.ended(c)
			return
		case <-again:
			better, err := a.overUDP(ctx)
			if err != nil {
				continue
			}
			if err := a.peer.attach(better); err != nil {
				better.discard(err)
				return
			}
			c = better
		}
	}
}

// ended notes how a connection has ended.
func (a *attempts) ended(c *conn) {
	if time.Since(c.since) >= longEnough {
		a.pause = a.peer.port.times.firstPause
		if c.over == UDP {
			a.wait = 0
		}
	}
	var idle *quic.IdleTimeoutError
	if c.over == UDP && (errors.Is(c.why, errSilent) || errors.As(c.why, &idle)) { // a filter may be new: at once over TCP
		a.worse(lastUnsteady)
		a.pause = 0
	}
}

// discard closes a connection that was not attached.
func (c *conn) discard(why error) { c.shut(why) }

// plainError is an error with a text that is shorter, or that does not change with time.
type plainError struct {
	error
	text string
}

// Error returns the text.
func (e *plainError) Error() string { return e.text }

// Unwrap returns the error.
func (e *plainError) Unwrap() error { return e.error }

// plain makes errors about certificates the same over HTTP/3 and HTTP/1.1.
func plain(err error) error {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &unknown):
		return &plainError{err, "the server's certificate is signed by an unknown authority"}
	case errors.As(err, &name):
		return &plainError{err, "the server's certificate is for another name: " + strings.TrimPrefix(name.Error(), "x509: ")}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		const day = "2006-01-02 15:04 MST"
		return &plainError{err, fmt.Sprintf("the server's certificate has expired or is not yet valid: it is valid from %s to %s",
			invalid.Cert.NotBefore.UTC().Format(day), invalid.Cert.NotAfter.UTC().Format(day))}
	case errors.As(err, &invalid):
		return &plainError{err, "the server's certificate: " + strings.TrimPrefix(invalid.Error(), "x509: ")}
	}
	return err
}

// statusError is the error for an answer of a server.
type statusError int

// Error returns the status and what it means here.
func (e statusError) Error() string {
	hint := ""
	switch int(e) {
	case http.StatusUnauthorized, http.StatusForbidden:
		hint = ": the server does not accept the secret"
	case http.StatusNotFound:
		hint = ": the server does not have this path"
	}
	return fmt.Sprintf("the server answers %d %s%s", int(e), http.StatusText(int(e)), hint)
}

// overTCP makes a connection over HTTP/1.1.
func (p *peer) overTCP(ctx context.Context) (*conn, error) {
	wait := p.port.times.tcpWait
	ctx, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("no answer in %v", wait))
	defer cancel()
	c, err := p.connectTCP(ctx)
	if err != nil {
		through := ""
		if p.settings.Proxy != nil {
			through = " through the proxy " + p.settings.Proxy.Host
		}
		return nil, fmt.Errorf("HTTP/1.1 to TCP port %d of %v%s: %w", p.Remote.Port(), p.Remote.Addr(), through, plain(err))
	}
	return c, nil
}

func (p *peer) connectTCP(ctx context.Context) (*conn, error) {
	to, err := p.firstHop(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := p.port.sockets.Connect(ctx, unix.SOCK_STREAM, p.port.local.Addr(), to)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	c, r, err := p.upgrade(raw)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = errors.Join(raw.SetDeadline(time.Time{}), tune(raw, p.settings.keepalive()))
	}
	if err != nil {
		raw.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return &conn{
		peer: p, over: TCP, at: p.Remote, local: netsock.AddrPort(raw.LocalAddr()), since: time.Now(),
		out: queue.NewOutbox(), r: r, w: c, shut: func(error) { c.Close() }, done: make(chan struct{}),
	}, nil
}

// firstHop returns where to connect: to the peer or to the proxy, whose name is resolved.
func (p *peer) firstHop(ctx context.Context) (netip.AddrPort, error) {
	proxy := p.settings.Proxy
	if proxy == nil {
		return p.Remote, nil
	}
	number := uint64(80)
	if s := proxy.Port(); s != "" {
		var err error
		if number, err = strconv.ParseUint(s, 10, 16); err != nil {
			return netip.AddrPort{}, fmt.Errorf("port of the proxy: %w", err)
		}
	}
	if a, err := netip.ParseAddr(proxy.Hostname()); err == nil {
		return netip.AddrPortFrom(a, uint16(number)), nil
	}
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		server, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		kind := unix.SOCK_DGRAM
		if network == "tcp" || network == "tcp4" || network == "tcp6" {
			kind = unix.SOCK_STREAM
		}
		return p.port.sockets.Connect(ctx, kind, netip.Addr{}, server)
	}}
	all, err := resolver.LookupNetIP(ctx, "ip", proxy.Hostname())
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, a := range all { // one that our address can reach
		if l := p.port.local.Addr(); !l.IsValid() || l.Is4() == a.Unmap().Is4() {
			return netip.AddrPortFrom(a.Unmap(), uint16(number)), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("%s has no address that can be reached from %v", proxy.Hostname(), p.port.local.Addr())
}

// upgrade makes a TCP connection a stream of capsules: through a proxy if there is one, then
// TLS, then the upgrade (RFC 9484 section 4.1).
func (p *peer) upgrade(raw net.Conn) (net.Conn, *bufio.Reader, error) {
	if p.settings.Proxy != nil {
		if err := p.throughProxy(raw); err != nil {
			return nil, nil, err
		}
	}
	c := tls.Client(raw, p.clientTLS("http/1.1"))
	if err := c.Handshake(); err != nil {
		return nil, nil, err
	}
	_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: connect-ip\r\nCapsule-Protocol: ?1\r\nAuthorization: Bearer %s\r\n\r\n",
		p.settings.Path, p.host(), p.settings.Secret)
	if err != nil {
		return nil, nil, err
	}
	limited := &io.LimitedReader{R: c, N: maxHeaders}
	r := bufio.NewReaderSize(limited, bufferSize)
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("the answer of the server: %w", err)
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return nil, nil, statusError(answer.StatusCode)
	}
	if !hasToken(answer.Header.Values("Upgrade"), "connect-ip") {
		return nil, nil, errors.New("the server changes to another protocol than connect-ip")
	}
	limited.N = 1<<63 - 1
	return c, r, nil
}

// throughProxy asks an HTTP proxy for a connection to the peer (RFC 9110 section 9.3.6).
func (p *peer) throughProxy(raw net.Conn) error {
	credentials := ""
	if u := p.settings.Proxy.User; u != nil {
		password, _ := u.Password()
		credentials = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)) + "\r\n"
	}
	if _, err := fmt.Fprintf(raw, "CONNECT %v HTTP/1.1\r\nHost: %[1]v\r\n%s\r\n", p.Remote, credentials); err != nil {
		return err
	}
	r := bufio.NewReader(io.LimitReader(raw, maxHeaders))
	answer, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return fmt.Errorf("the answer of the proxy: %w", err)
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("the proxy answers %s", answer.Status)
	}
	if r.Buffered() > 0 { // TLS servers wait for the client
		return errors.New("the proxy sends more than its answer")
	}
	return nil
}
