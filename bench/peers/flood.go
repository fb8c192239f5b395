package main

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	smallPacket = 64 // bytes of a datagram's payload
	floodBatch  = 64 // datagrams per system call
)

// flood is the result of sending small datagrams as fast as one thread can.
type flood struct {
	sent      int64
	delivered int64 // during the flood: datagrams that leave queues afterwards do not count
	reordered int64 // datagrams that arrived after a later one, at any time
}

func runFlood(ctx context.Context, from, to end, d time.Duration) (flood, error) {
	src, dst, err := udpPair(from, to)
	if err != nil {
		return flood{}, err
	}
	defer src.close()
	defer dst.close()
	var (
		f        flood
		deadline = time.Now().Add(d)
		over     atomic.Bool
	)
	sink := onThread(func() error { return floodSink(ctx, dst, deadline, &over, &f) })
	err = <-onThread(func() (err error) { f.sent, err = floodSource(ctx, src, deadline); return err })
	over.Store(true)
	return f, errors.Join(err, <-sink, ctx.Err())
}

func floodSource(ctx context.Context, s socket, deadline time.Time) (sent int64, err error) {
	m := newMessages(floodBatch, smallPacket)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		for i, b := range m.bufs {
			binary.BigEndian.PutUint64(b, uint64(sent)+uint64(i))
		}
		n, err := m.send(s)
		sent += int64(n)
		// A full queue costs one datagram, and so does an ICMP error about an earlier one.
		if err != nil && !passing(err) && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ECONNREFUSED) {
			return sent, os.NewSyscallError("sendmmsg", err)
		}
	}
	return sent, nil
}

// floodSink receives until the flood is over and nothing more arrives, for at most one
// second after its end.
func floodSink(ctx context.Context, s socket, deadline time.Time, over *atomic.Bool, f *flood) error {
	m := newMessages(floodBatch, smallPacket)
	for next := uint64(0); ctx.Err() == nil; {
		n, err := m.receive(s)
		now := time.Now()
		switch {
		case err == nil:
		case !passing(err) && !errors.Is(err, unix.ECONNREFUSED):
			return os.NewSyscallError("recvmmsg", err)
		case over.Load():
			return nil
		}
		if now.After(deadline.Add(time.Second)) {
			return nil
		}
		if now.Before(deadline) {
			f.delivered += int64(n)
		}
		for _, b := range m.bufs[:n] {
			number := binary.BigEndian.Uint64(b)
			if number < next {
				f.reordered++
			} else {
				next = number + 1
			}
		}
	}
	return nil
}
