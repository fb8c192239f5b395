package main

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tcpWrite = 128 << 10 // bytes per system call, as in iperf3
	tcpRead  = 512 << 10
)

// stream is a TCP connection that carries as much as it can.
type stream struct{ from, to end }

// runTCP runs streams at the same time, and returns the bytes that arrived while all of
// them ran. Data that is still on its way at the end does not count.
func runTCP(ctx context.Context, streams []stream, d time.Duration) (bytes int64, err error) {
	type pair struct{ src, dst socket }
	var pairs []pair
	defer func() {
		for _, p := range pairs {
			p.src.close()
			p.dst.close()
		}
	}()
	for _, s := range streams {
		src, dst, err := tcpPair(s.from, s.to)
		if err != nil {
			return 0, err
		}
		pairs = append(pairs, pair{src, dst})
	}
	var received atomic.Int64
	deadline := time.Now().Add(d)
	var running []<-chan error
	for _, p := range pairs {
		running = append(running,
			onThread(func() error { return tcpSink(ctx, p.dst, deadline, &received) }),
			onThread(func() error { return tcpSource(ctx, p.src, deadline) }))
	}
	for _, done := range running {
		err = errors.Join(err, <-done)
	}
	return received.Load(), errors.Join(err, ctx.Err())
}

func tcpSource(ctx context.Context, s socket, deadline time.Time) error {
	buf := make([]byte, tcpWrite)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		if _, err := unix.Write(s.fd, buf); err != nil && !passing(err) {
			return os.NewSyscallError("write", err)
		}
	}
	return nil
}

func tcpSink(ctx context.Context, s socket, deadline time.Time, received *atomic.Int64) error {
	buf := make([]byte, tcpRead)
	for ctx.Err() == nil {
		n, err := unix.Read(s.fd, buf)
		if !time.Now().Before(deadline) {
			return nil
		}
		if err != nil && !passing(err) {
			return os.NewSyscallError("read", err)
		}
		received.Add(int64(max(n, 0)))
	}
	return nil
}
