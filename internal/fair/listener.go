package fair

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// grace is how long a connection without a request, or with an answer that is not
	// read, is kept while others wait.
	grace = 100 * time.Millisecond
	// Connections that wait for a place. Each holds a descriptor and a goroutine.
	maxWaiting       = 512
	maxWaitingClient = 256
)

// Listener accepts connections, of which only a limited number are open at the same
// time. Those that are idle for the longest time, of the client with the most, are
// closed to make room for new ones.
type Listener struct {
	net.Listener
	limit    *Limit
	client   func(net.Conn) string
	accepted chan net.Conn
	failed   chan error
	ctx      context.Context
	cancel   context.CancelFunc
}

// NewListener returns a listener that accepts from another one, with at most most open
// connections. client returns an identifier of the remote end.
func NewListener(l net.Listener, most int, client func(net.Conn) string) *Listener {
	f := &Listener{Listener: l, limit: NewLimit(most, grace), client: client, accepted: make(chan net.Conn), failed: make(chan error)}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	go f.run()
	return f
}

func (l *Listener) run() {
	for {
		c, err := l.Listener.Accept()
		if err == nil {
			l.place(c)
			continue
		}
		select {
		case l.failed <- err:
		case <-l.ctx.Done():
		}
		if l.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			l.cancel()
			return
		}
	}
}

// place waits for a place for a connection.
func (l *Listener) place(c net.Conn) {
	client := l.client(c)
	if own, all := l.limit.waiting(client); own >= maxWaitingClient || all >= maxWaiting {
		c.Close()
		return
	}
	go func() {
		h, err := l.limit.Wait(l.ctx, client, func() { c.Close() })
		if err != nil {
			c.Close()
			return
		}
		select {
		case l.accepted <- &conn{Conn: c, hold: h}:
		case <-l.ctx.Done():
			c.Close()
			h.Release()
		}
	}()
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case err := <-l.failed:
		return nil, err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections that were accepted stay open.
func (l *Listener) Close() error {
	l.cancel()
	return l.Listener.Close()
}

// conn releases its place when it is closed.
type conn struct {
	net.Conn
	hold *Hold
	once sync.Once
}

func (c *conn) Close() error {
	c.once.Do(c.hold.Release)
	return c.Conn.Close()
}

// contextKey is the type of the keys for a connection's Hold and client in the context
// of a request.
type contextKey int

const (
	holdKey contextKey = iota
	clientKey
)

// ConnContext is the function for http.Server.ConnContext.
func (l *Listener) ConnContext(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*conn); ok {
		ctx = context.WithValue(ctx, holdKey, c.hold)
		ctx = context.WithValue(ctx, clientKey, c.hold.client)
	}
	return ctx
}

// Client returns the client that sent a request, or "" if it is not known.
func Client(ctx context.Context) string {
	client, _ := ctx.Value(clientKey).(string)
	return client
}

// Serve marks connections as in use while h answers a request on them.
func Serve(h http.Handler) http.Handler { return serve(h, false) }

// ServeSoon is Serve for answers that are short and do not depend on the client: their
// connections are not closed in favour of others.
func ServeSoon(h http.Handler) http.Handler { return serve(h, true) }

func serve(h http.Handler, keep bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hold, ok := r.Context().Value(holdKey).(*Hold); ok {
			defer hold.Begin(keep)()
		}
		h.ServeHTTP(w, r)
	})
}

// ByAddress identifies clients by their IPv4 address or the /64 of their IPv6 address.
func ByAddress(c net.Conn) string {
	addr, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return ""
	}
	a := addr.Addr().Unmap()
	if a.Is4() {
		return a.String()
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return ""
	}
	return p.String()
}

// ByUser identifies clients of a Unix socket by the user that connected.
func ByUser(c net.Conn) string {
	s, ok := c.(syscall.Conn)
	if !ok {
		return ""
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil || err != nil {
		return ""
	}
	return strconv.FormatUint(uint64(cred.Uid), 10)
}
