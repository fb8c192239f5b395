package heartbeat

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	wire "sixfour/encap/heartbeat"
)

// ClientConfig is what a Client needs.
type ClientConfig struct {
	// Server returns where messages go; not ok: that is not known at the moment.
	Server func() (at netip.AddrPort, ok bool)
	// Local is our outer address; the zero Addr: that from which the kernel sends to the server.
	Local    netip.Addr
	Identity netip.Addr // our end of the tunnel
	Secret   string
	Digest   wire.Digest
	// Sender says that there is a NAT, though the outer address looks like a public one.
	// Otherwise a message names a public address, and says "sender" instead of others.
	Sender bool
	// Control is called for each socket before it is used, as by net.Dialer, for a mark or
	// an interface; nil: nothing is called.
	Control func(network, address string, c syscall.RawConn) error
	// Every is the time between two messages; 0: a minute.
	Every time.Duration
	// Look is how often the client looks whether the outer address has changed; 0: 5 seconds.
	Look time.Duration
	// Sent is called after each message, with the outer address that it was sent from, and what
	// went wrong; nil: nothing is called. It is called once more for a message that came back
	// as an ICMP error.
	Sent func(from netip.Addr, err error)
	// Now returns the time; nil: time.Now does.
	Now func() time.Time
}

const (
	defaultEvery = time.Minute
	defaultLook  = 5 * time.Second
	maxAhead     = 30 // seconds by which the times in messages may be ahead of the clock
)

// Client sends heartbeats.
type Client struct {
	config ClientConfig
	wake   chan struct{}

	// What follows belongs to Run.
	due    time.Time // of the next message
	repeat bool      // the last message may be lost: send it again
	from   netip.Addr
	epoch  int64    // of the last message
	sent   net.Conn // through which the last message was sent
}

// NewClient returns a Client, which sends nothing before Run.
func NewClient(c ClientConfig) *Client {
	if c.Every == 0 {
		c.Every = defaultEvery
	}
	if c.Look == 0 {
		c.Look = defaultLook
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Client{config: c, wake: make(chan struct{}, 1)}
}

// Wake makes the client send a message now.
func (c *Client) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run sends messages until ctx ends: one at once, and others at intervals, when our outer
// address has changed, and after Wake. After a change a second one follows soon, because
// the first one may be lost. The last one says that the tunnel is not used any more.
func (c *Client) Run(ctx context.Context) {
	tick := time.NewTicker(c.config.Look)
	defer tick.Stop()
	for woken := true; ; {
		c.look(ctx, woken)
		select {
		case <-ctx.Done():
			c.disable()
			return
		case <-c.wake:
			woken = true
		case <-tick.C:
			woken = false
		}
	}
}

// look sends a message if one is due.
func (c *Client) look(ctx context.Context, woken bool) {
	c.report()
	conn, from, err := c.dial(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		if now := c.config.Now(); woken || !now.Before(c.due) {
			c.due = now.Add(c.config.Every)
			c.told(netip.Addr{}, err)
		}
		return
	}
	now := c.config.Now()
	changed := woken || from != c.from
	if !changed && !c.repeat && now.Before(c.due) {
		conn.Close()
		return
	}
	c.close()
	c.sent = conn
	c.repeat = changed
	err = c.send(conn, wire.Tunnel, from)
	c.due = now.Add(c.config.Every)
	c.told(from, err)
}

// dial returns a socket of its own for a message, and the outer address that it has.
func (c *Client) dial(ctx context.Context) (net.Conn, netip.Addr, error) {
	server, ok := c.config.Server()
	if !ok {
		return nil, netip.Addr{}, fmt.Errorf("the address of the server is not known")
	}
	d := net.Dialer{Control: c.config.Control}
	if c.config.Local.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.config.Local, 0))
	}
	conn, err := d.DialContext(ctx, "udp4", server.String())
	if err != nil {
		return nil, netip.Addr{}, err
	}
	return conn, conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// send sends a message. One from another address than the last has a later time, so that the
// server knows which is the newer one.
func (c *Client) send(conn net.Conn, command wire.Command, from netip.Addr) error {
	epoch := c.config.Now().Unix()
	if (from != c.from || command != wire.Tunnel) && epoch <= c.epoch && c.epoch < epoch+maxAhead {
		epoch = c.epoch + 1
	}
	c.epoch, c.from = epoch, from
	m := wire.Message{Command: command, Inner: c.config.Identity, Epoch: epoch}
	if !c.config.Sender && public(from) {
		m.Outer = from
	}
	_, err := conn.Write(wire.Append(nil, m, c.config.Secret, c.config.Digest))
	return err
}

// disable says that the tunnel is not used any more.
func (c *Client) disable() {
	if c.sent != nil {
		_ = c.send(c.sent, wire.Disable, c.from) // if it is lost, the server finds out by itself
		c.close()
	}
}

// report reports the ICMP error that the last message has caused, if it has caused one.
func (c *Client) report() {
	u, ok := c.sent.(*net.UDPConn)
	if !ok {
		return
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return
	}
	var errno int
	if raw.Control(func(fd uintptr) {
		errno, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	}) == nil && errno != 0 {
		c.told(c.from, fmt.Errorf("a heartbeat came back: %w", syscall.Errno(errno)))
	}
}

func (c *Client) close() {
	if c.sent != nil {
		c.sent.Close()
		c.sent = nil
	}
}

func (c *Client) told(from netip.Addr, err error) {
	if c.config.Sent != nil {
		c.config.Sent(from, err)
	}
}

// notPublic are addresses that pass for global ones, and are seen from elsewhere through a NAT.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"), // RFC 6598
	netip.MustParsePrefix("192.0.0.0/24"),  // RFC 6333, RFC 7335
}

// public reports whether the server sees the address as we do.
func public(a netip.Addr) bool {
	for _, p := range notPublic {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsGlobalUnicast() && !a.IsPrivate()
}
