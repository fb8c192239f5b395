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

// patience is how long an operation may take whose context has no deadline.
const patience = time.Minute

// bounded gives a context that has no deadline one.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, patience, fmt.Errorf("nothing came of it in %v", patience))
}

// longAgo as a deadline wakes whoever waits.
var longAgo = time.Unix(1, 0)

type deadliner interface{ SetDeadline(time.Time) error }

// until makes everything that waits on c return when ctx ends. Once release has
// returned, ctx touches c no more.
func until(ctx context.Context, c deadliner) (release func()) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.SetDeadline(longAgo) // fails only if it is closed, and then nobody waits
		close(ended)
	})
	return func() {
		if !stop() {
			<-ended
		}
	}
}

// because is err, or why ctx ended if that is what broke the operation.
func because(ctx context.Context, err error) error {
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
				<-ctx.Done() // the deadline was ctx's own, whose timer may be a moment late
			}
			return n.explain("connect", because(ctx, err))
		}
		c = conn.(*net.TCPConn)
		return nil
	})
	return c, err
}

// ListenTCP listens inside the namespace. Port 0 is one that is free.
func (n *Namespace) ListenTCP(addr netip.AddrPort) (l *net.TCPListener, err error) {
	err = n.Do(func() error {
		if l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr)); err != nil {
			return n.explain("listen", err)
		}
		return nil
	})
	return l, err
}

// ListenUDP opens a UDP socket inside the namespace. Port 0 is one that is free.
func (n *Namespace) ListenUDP(addr netip.AddrPort) (c *net.UDPConn, err error) {
	err = n.Do(func() error {
		if c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr)); err != nil {
			return n.explain("listen", err)
		}
		return nil
	})
	return c, err
}
