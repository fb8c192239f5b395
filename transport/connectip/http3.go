package connectip

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"sixfour/transport/h3"
	"sixfour/transport/netsock"
	"sixfour/transport/queue"
)

// packetSize is the smallest size of QUIC packets. The headers of an IP packet of 1280 bytes
// need 46 at most: those of the datagram 2, of its frame 3, and of the QUIC packet 41 with a
// connection identifier of 20 bytes. Where packets of this size do not pass, connections
// cannot be made, because no IPv6 packets of 1280 bytes would pass in them.
const packetSize = 1350

// quicConfig returns the configuration of a QUIC connection. Streams carry capsules about
// addresses and routes only: they need no large windows.
func quicConfig(keepalive time.Duration) *quic.Config {
	const window = 64 << 10
	return &quic.Config{
		HandshakeIdleTimeout: normalTimes.handshake, MaxIdleTimeout: 3 * keepalive, KeepAlivePeriod: keepalive,
		InitialStreamReceiveWindow: window, MaxStreamReceiveWindow: window, InitialConnectionReceiveWindow: 4 * window, MaxConnectionReceiveWindow: 4 * window,
		MaxIncomingStreams: 8, MaxIncomingUniStreams: 8, InitialPacketSize: packetSize, EnableDatagrams: true,
	}
}

// quicServer accepts HTTP/3 connections.
type quicServer struct {
	socket    *net.UDPConn
	transport *quic.Transport
	listener  *quic.Listener
	http      *http3.Server
	strangers newcomers

	mu    sync.Mutex
	conns map[*quic.Conn]*greeting
}

// newcomers are the connections over HTTP/3 that have not presented a secret. Quic-go cannot
// close one whose handshake is not complete; therefore new ones are refused.
type newcomers struct {
	mu  sync.Mutex
	all int
	by  map[netip.Addr]int // by source
}

func (n *newcomers) number() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all
}

// enter counts a connection, unless there are max already, or a quarter of that from the same
// source, if that is known. Leave may be called several times.
func (n *newcomers) enter(from netip.Addr, max int) (leave func(), ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all >= max || from.IsValid() && n.by[from] >= (max+3)/4 {
		return nil, false
	}
	if n.by == nil {
		n.by = make(map[netip.Addr]int)
	}
	n.all++
	n.by[from]++
	return sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.all--
		if n.by[from]--; n.by[from] == 0 {
			delete(n.by, from)
		}
	}), true
}

// greeting is a connection over HTTP/3 to us.
type greeting struct {
	server *quicServer
	quic   *quic.Conn
	its    *h3.Settings // known when a request is handled
	leave  func()       // it is no stranger any more; may be called several times
	timer  *time.Timer  // ends the connection if it does not present a secret
	used   atomic.Bool  // it has presented one
}

// greetingKey is the key of a *greeting, and leaveKey that of its leave, in a context.
type (
	greetingKey struct{}
	leaveKey    struct{}
)

// listenQUIC opens the listener for HTTP/3.
func (p *Port) listenQUIC() (*quicServer, error) {
	socket, err := p.sockets.ListenUDP(p.local)
	if err != nil {
		return nil, err
	}
	s := &quicServer{socket: socket, conns: make(map[*quic.Conn]*greeting)}
	max := p.config.MaxHandshakes
	s.transport = &quic.Transport{
		Conn: socket,
		// A packet with a forged source address must not occupy a place for long.
		VerifySourceAddress: func(net.Addr) bool { return s.strangers.number() >= max/4 },
		ConnContext: func(ctx context.Context, i *quic.ClientInfo) (context.Context, error) {
			var from netip.Addr // not known while it can be forged
			if i.AddrVerified {
				from = source(i.RemoteAddr)
			}
			leave, ok := s.strangers.enter(from, max)
			if !ok {
				return nil, errTooMany
			}
			context.AfterFunc(ctx, leave)
			return context.WithValue(ctx, leaveKey{}, leave), nil
		},
	}
	s.http = &http3.Server{
		Handler: http.HandlerFunc(p.serve), EnableDatagrams: true, MaxHeaderBytes: maxHeaders,
		ConnContext: func(ctx context.Context, c *quic.Conn) context.Context {
			s.mu.Lock()
			defer s.mu.Unlock()
			return context.WithValue(ctx, greetingKey{}, s.conns[c])
		},
	}
	s.listener, err = s.transport.Listen(http3.ConfigureTLSConfig(p.serverTLS(http3.NextProtoH3)), quicConfig(10*time.Second))
	if err != nil {
		socket.Close()
		return nil, err
	}
	if p.local.Port() == 0 {
		p.local = netip.AddrPortFrom(p.local.Addr(), netsock.AddrPort(socket.LocalAddr()).Port())
	}
	return s, nil
}

// close closes the listener and all connections.
func (s *quicServer) close() error {
	errs := []error{s.listener.Close()}
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for c := range conns {
		c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	}
	return errors.Join(append(errs, s.transport.Close(), s.socket.Close())...)
}

var errNoRequest = errors.New("it has not presented a secret in time")

// accept accepts connections until the listener is closed.
func (s *quicServer) accept(p *Port) {
	for {
		c, err := s.listener.Accept(p.ctx)
		if err != nil {
			return
		}
		leave, _ := c.Context().Value(leaveKey{}).(func())
		g := &greeting{server: s, quic: c, leave: leave}
		s.mu.Lock()
		if s.conns == nil {
			s.mu.Unlock()
			c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
			return
		}
		s.conns[c] = g
		s.mu.Unlock()
		g.timer = time.AfterFunc(p.times.handshake, func() {
			c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeRequestRejected), errNoRequest.Error())
		})
		p.running.Go(func() {
			from := netsock.AddrPort(c.RemoteAddr())
			s.serve(p, g)
			g.timer.Stop()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
			c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
			if !g.used.Load() {
				p.refused(from, errNoRequest)
			}
		})
	}
}

// serve handles the requests in a connection, until it ends.
func (s *quicServer) serve(p *Port, g *greeting) {
	g.its = h3.Read(g.quic, p.running.Go)
	h, err := s.http.NewRawServerConn(g.quic)
	if err != nil {
		return
	}
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for {
		stream, err := g.quic.AcceptStream(g.quic.Context())
		if err != nil {
			return
		}
		handlers.Go(func() { h.HandleRequestStream(stream) })
	}
}

// serve handles a request over HTTP/3.
func (p *Port) serve(w http.ResponseWriter, r *http.Request) {
	g, _ := r.Context().Value(greetingKey{}).(*greeting)
	if g == nil || g.quic.Context().Err() != nil {
		return
	}
	of, status, err := p.door.admit(r)
	if err == nil {
		status, err = http.StatusBadRequest, g.its.Wait(r.Context(), g.quic)
	}
	switch {
	case err != nil:
	case !g.its.Datagrams:
		status, err = http.StatusBadRequest, errors.New("the peer does not support HTTP datagrams")
	case r.Method != http.MethodConnect || r.Proto != "connect-ip":
		status, err = http.StatusNotImplemented, fmt.Errorf("the request is %s of protocol %q", r.Method, r.Proto)
	case !g.used.CompareAndSwap(false, true):
		status, err = http.StatusConflict, errors.New("the connection has a request already")
	}
	if err != nil {
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		w.WriteHeader(status)
		if !g.used.Load() {
			p.refused(netsock.AddrPort(g.quic.RemoteAddr()), err)
			g.timer.Reset(time.Second) // no time to try many secrets
		}
		return
	}
	g.timer.Stop()
	g.leave()
	w.Header().Set("Capsule-Protocol", "?1")
	w.WriteHeader(http.StatusOK)
	stream, err := w.(http3.HTTPStreamer).HTTPStream()
	if err == nil {
		err = of.attach(newQUICConn(of, g.quic, stream, netsock.AddrPort(g.quic.RemoteAddr()), nil))
	}
	if err != nil {
		g.quic.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeRequestRejected), "")
	}
}

// requestStream is the stream of a request, at either end.
type requestStream interface {
	stream
	Read([]byte) (int, error)
	StreamID() quic.StreamID
}

// newQUICConn returns a connection over HTTP/3. Afterwards, if not nil, is called at its end.
func newQUICConn(of *peer, c *quic.Conn, s requestStream, at netip.AddrPort, afterwards func()) *conn {
	return &conn{
		peer: of, over: UDP, at: at, local: netsock.AddrPort(c.LocalAddr()), since: time.Now(),
		out: queue.NewOutbox(), r: bufio.NewReaderSize(s, 4<<10), w: s, datagrams: newDatagrams(c, s.StreamID()),
		shut: func(why error) {
			reason := ""
			if errors.Is(why, errReplaced) || errors.Is(why, errRemoved) {
				reason = why.Error()
			}
			c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), reason)
			if afterwards != nil {
				afterwards()
			}
		},
		done: make(chan struct{}),
	}
}

// connectQUIC connects to a peer over HTTP/3.
func (p *peer) connectQUIC(ctx context.Context) (c *conn, err error) {
	of := p.port
	local, err := of.sockets.Source(ctx, of.local.Addr(), p.Remote)
	if err != nil {
		return nil, err
	}
	socket, err := of.sockets.ListenUDP(netip.AddrPortFrom(local, 0))
	if err != nil {
		return nil, err
	}
	t := &quic.Transport{Conn: socket}
	closeAll := func() {
		t.Close()
		socket.Close()
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	q, err := t.Dial(ctx, net.UDPAddrFromAddrPort(p.Remote), p.clientTLS(http3.NextProtoH3), quicConfig(p.settings.keepalive()))
	if err != nil {
		return nil, err
	}
	s, err := p.request3(ctx, q)
	if err != nil {
		q.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeRequestCanceled), "")
		return nil, err
	}
	return newQUICConn(p, q, s, p.Remote, closeAll), nil
}

// request3 asks for CONNECT-IP in a connection.
func (p *peer) request3(ctx context.Context, q *quic.Conn) (*http3.RequestStream, error) {
	client := (&http3.Transport{EnableDatagrams: true, MaxResponseHeaderBytes: maxHeaders}).NewRawClientConn(q)
	its := h3.Read(q, p.port.running.Go)
	if err := its.Wait(ctx, q); err != nil {
		return nil, err
	}
	if !its.Datagrams || !its.Connect {
		return nil, errors.New("the server does not support CONNECT-IP: extended CONNECT and datagrams are not enabled")
	}
	r, err := http.NewRequest(http.MethodConnect, "https://"+p.host()+p.settings.Path, nil)
	if err != nil {
		return nil, err
	}
	r.Proto = "connect-ip"
	r.Header.Set("Capsule-Protocol", "?1")
	r.Header.Set("Authorization", "Bearer "+string(p.settings.Secret))
	r.Header.Set("User-Agent", "")
	s, err := client.OpenRequestStream(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		q.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeRequestCanceled), "")
	})
	defer stop()
	if err := s.SendRequestHeader(r); err != nil {
		return nil, err
	}
	answer, err := s.ReadResponse()
	if err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	if answer.StatusCode/100 != 2 {
		return nil, statusError(answer.StatusCode)
	}
	return s, nil
}

// clientTLS returns the configuration of TLS for connections to the peer.
func (p *peer) clientTLS(alpn string) *tls.Config {
	name := p.settings.ServerName
	if name == "" {
		name = p.Remote.Addr().WithZone("").String()
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, ServerName: name, RootCAs: p.settings.Roots, NextProtos: []string{alpn}}
}

// host returns the authority of URLs.
func (p *peer) host() string {
	name := p.settings.Host
	if name == "" {
		name = p.settings.ServerName
	}
	if name != "" {
		return name
	}
	return netip.AddrPortFrom(p.Remote.Addr().WithZone(""), p.Remote.Port()).String()
}
