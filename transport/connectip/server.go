package connectip

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sixfour/transport/netsock"
	"sixfour/transport/queue"
)

// Limits for connections that have not presented a secret.
const (
	maxHeaders = 8 << 10
	bufferSize = 32 << 10 // for reading from a stream
)

// server is the listening part of a port.
type server struct {
	tcp  *net.TCPListener // nil: none
	udp  *quicServer      // nil: none
	open strangers
}

// listen opens the listeners.
func (p *Port) listen() error {
	s := &server{open: strangers{max: p.config.MaxHandshakes}}
	if p.config.Over != UDP {
		l, err := p.sockets.ListenTCP(p.local)
		if err != nil {
			return err
		}
		s.tcp, p.local = l, netip.AddrPortFrom(p.local.Addr(), netsock.AddrPort(l.Addr()).Port())
	}
	if p.config.Over != TCP && !p.config.Plain {
		var err error
		if s.udp, err = p.listenQUIC(); err != nil {
			if s.tcp != nil {
				s.tcp.Close()
			}
			return err
		}
	}
	p.server = s
	if s.tcp != nil {
		p.running.Go(p.accept)
	}
	if s.udp != nil {
		p.running.Go(func() { s.udp.accept(p) })
	}
	return nil
}

// close ends the listeners and all connections that have not presented a secret.
func (s *server) close() error {
	var errs []error
	if s.tcp != nil {
		errs = append(errs, s.tcp.Close())
	}
	s.open.close()
	if s.udp != nil {
		errs = append(errs, s.udp.close())
	}
	return errors.Join(errs...)
}

// strangers are the TCP connections that have not presented a secret, the oldest one first.
type strangers struct {
	max int

	mu     sync.Mutex
	all    []*stranger
	closed bool
}

type stranger struct {
	net.Conn
	from netip.Addr // see source
	why  error      // why it was closed, guarded by strangers.mu
}

// source returns the address that counts for limits: of IPv6 the first one of a network with
// prefix length 64, as one host can have all addresses of it.
func source(a net.Addr) netip.Addr {
	of := netsock.AddrPort(a).Addr().WithZone("")
	if of.Is6() {
		p, _ := of.Prefix(64)
		return p.Addr()
	}
	return of
}

var errTooMany = errors.New("closed to make room for newer connections")

// add takes a connection. If there are too many, the oldest one of the source that has the
// most is closed. Connections of a slow or hostile program cannot keep the others out.
func (s *strangers) add(c net.Conn) *stranger {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &stranger{Conn: c, from: source(c.RemoteAddr())}
	if s.closed {
		n.why = net.ErrClosed
		c.Close()
		return n
	}
	s.all = append(s.all, n)
	if len(s.all) > s.max {
		i := s.surplus()
		s.all[i].why = errTooMany
		s.all[i].Close()
		s.all = slices.Delete(s.all, i, i+1)
	}
	return n
}

// surplus returns the index of the connection to close. The caller holds mu.
func (s *strangers) surplus() int {
	count := make(map[netip.Addr]int, len(s.all))
	most := 0
	for _, c := range s.all {
		count[c.from]++
		most = max(most, count[c.from])
	}
	return slices.IndexFunc(s.all, func(c *stranger) bool { return count[c.from] == most })
}

// remove removes a connection. It returns the reason if it was closed meanwhile.
func (s *strangers) remove(c *stranger) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.all, c); i >= 0 {
		s.all = slices.Delete(s.all, i, i+1)
	}
	return c.why
}

func (s *strangers) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, c := range s.all {
		c.why = net.ErrClosed
		c.Close()
	}
}

// refused reports a connection that has not presented a secret.
func (p *Port) refused(from netip.AddrPort, why error) {
	if f := p.config.Refused; f != nil && p.ctx.Err() == nil {
		f(from, why)
	}
}

// accept accepts TCP connections until the listener is closed.
func (p *Port) accept() {
	for {
		c, err := p.server.tcp.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			select { // too many descriptors, usually
			case <-p.ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		s := p.server.open.add(c)
		p.running.Go(func() {
			from := netsock.AddrPort(c.RemoteAddr())
			err := p.welcome(s)
			if closed := p.server.open.remove(s); closed != nil {
				err = closed
			}
			if err != nil {
				c.Close()
				p.refused(from, err)
			}
		})
	}
}

// welcome reads the request of a TCP connection, and attaches the connection to the peer.
func (p *Port) welcome(s *stranger) error {
	var c net.Conn = s.Conn
	if err := c.SetDeadline(time.Now().Add(p.times.handshake)); err != nil {
		return err
	}
	if !p.config.Plain {
		t := tls.Server(c, p.serverTLS("http/1.1"))
		if err := t.Handshake(); err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
		c = t
	}
	limited := &io.LimitedReader{R: c, N: maxHeaders}
	r := bufio.NewReaderSize(limited, bufferSize)
	request, err := http.ReadRequest(r)
	if err != nil {
		if limited.N == 0 {
			err = fmt.Errorf("the request has more than %d bytes", maxHeaders)
			reply(c, http.StatusRequestHeaderFieldsTooLarge)
		}
		return err
	}
	of, status, err := p.door.admit(request)
	if err == nil {
		status, err = checkUpgrade(request)
	}
	if err != nil {
		reply(c, status)
		return err
	}
	if _, err := io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: connect-ip\r\nCapsule-Protocol: ?1\r\n\r\n"); err != nil {
		return err
	}
	if err := errors.Join(c.SetDeadline(time.Time{}), tune(s.Conn, of.settings.keepalive())); err != nil {
		return err
	}
	if err := p.server.open.remove(s); err != nil {
		return err
	}
	limited.N = 1<<63 - 1
	return of.attach(&conn{
		peer: of, over: TCP, at: netsock.AddrPort(c.RemoteAddr()), local: netsock.AddrPort(c.LocalAddr()), since: time.Now(),
		out: queue.NewOutbox(), r: r, w: c, shut: func(error) { c.Close() }, done: make(chan struct{}),
	})
}

// serverTLS returns the configuration of TLS for connections to us.
func (p *Port) serverTLS(alpn string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: p.config.Certificate, NextProtos: []string{alpn}, SessionTicketsDisabled: true}
}

// checkUpgrade reports what is wrong with a request for an upgrade (RFC 9484 section 4.1).
func checkUpgrade(r *http.Request) (int, error) {
	switch {
	case r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return http.StatusMethodNotAllowed, fmt.Errorf("the request is %s of %s", r.Method, r.Proto)
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return http.StatusBadRequest, errors.New("the request has a body")
	case !hasToken(r.Header.Values("Connection"), "upgrade") || !hasToken(r.Header.Values("Upgrade"), "connect-ip"):
		return http.StatusUpgradeRequired, errors.New("the request does not ask for the upgrade to connect-ip")
	}
	return http.StatusSwitchingProtocols, nil
}

// hasToken reports whether a list in header fields has a token.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// reply answers a request that is refused. The connection is closed afterwards.
func reply(w io.Writer, status int) {
	extra := ""
	switch status {
	case http.StatusUnauthorized:
		extra = "WWW-Authenticate: Bearer\r\n"
	case http.StatusUpgradeRequired:
		extra = "Upgrade: connect-ip\r\n"
	}
	fmt.Fprintf(w, "HTTP/1.1 %d %s\r\n%sContent-Length: 0\r\nConnection: close\r\n\r\n", status, http.StatusText(status), extra)
}
