package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

// patience bounds an operation whose context has no deadline.
const patience = time.Minute

// bounded adds a deadline to a context that has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, patience, fmt.Errorf("nothing came of it in %v", patience))
}

// past is a deadline in the past, which ends all waiting operations.
var past = time.Unix(1, 0)

type deadliner interface{ SetDeadline(time.Time) error }

// interruptOnDone ends all operations that wait on c when ctx ends. After release has returned, c
// is no longer affected by ctx.
func interruptOnDone(ctx context.Context, c deadliner) (release func()) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.SetDeadline(past) // fails only if c is closed, and then no operation waits
		close(ended)
	})
	return func() {
		if !stop() {
			<-ended
		}
	}
}

// causeOf returns err, or the reason why ctx ended if that caused err.
func causeOf(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// DialTCP connects from inside the namespace.
func (n *Namespace) DialTCP(ctx context.Context, addr netip.AddrPort) (c *net.TCPConn, err error) {
	err = n.Do(func() error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr.String())
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				<-ctx.Done() // the deadline was that of ctx, whose timer may be a moment late
			}
			return n.explain("connect", causeOf(ctx, err))
		}
		c = conn.(*net.TCPConn)
		return nil
	})
	return c, err
}

// ListenTCP listens inside the namespace. Port 0 means any free port.
func (n *Namespace) ListenTCP(addr netip.AddrPort) (l *net.TCPListener, err error) {
	err = n.Do(func() error {
		if l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr)); err != nil {
			return n.explain("listen", err)
		}
		return nil
	})
	return l, err
}

// ListenUDP opens a UDP socket inside the namespace. Port 0 means any free port.
func (n *Namespace) ListenUDP(addr netip.AddrPort) (c *net.UDPConn, err error) {
	err = n.Do(func() error {
		if c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr)); err != nil {
			return n.explain("listen", err)
		}
		return nil
	})
	return c, err
}
