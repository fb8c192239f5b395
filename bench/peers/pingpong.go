package main

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// roundTrips are the times from request to response, with one request at a time.
type roundTrips struct {
	times []time.Duration // ascending
	lost  int             // no response within a tick
}

// quantile returns the time that a share q of the round trips does not exceed.
func (r roundTrips) quantile(q float64) time.Duration {
	return r.times[min(int(float64(len(r.times))*q), len(r.times)-1)]
}

// runPingPong keeps the two ends on different processors, because in practice they are
// on different machines. Otherwise the scheduler sometimes puts them on one processor
// and sometimes on two, and a round trip over veth takes sometimes 6 and sometimes 70
// µs.
func runPingPong(ctx context.Context, from, to end, d time.Duration) (roundTrips, error) {
	src, dst, err := udpPair(from, to)
	if err != nil {
		return roundTrips{}, err
	}
	defer src.close()
	defer dst.close()
	var over atomic.Bool
	echo := onProcessor(1, func() error { return echoes(dst, &over) })
	var r roundTrips
	err = <-onProcessor(0, func() (err error) { r, err = requests(ctx, src, d); return err })
	over.Store(true)
	if err := errors.Join(err, <-echo, ctx.Err()); err != nil {
		return r, err
	}
	if len(r.times) == 0 {
		return r, errors.New("UDP round trips: no request was answered")
	}
	slices.Sort(r.times)
	return r, nil
}

func requests(ctx context.Context, s socket, d time.Duration) (r roundTrips, err error) {
	r.times = make([]time.Duration, 0, 1<<18)
	buf := make([]byte, smallPacket)
	end := time.Now().Add(d)
	for number := uint64(1); ctx.Err() == nil; number++ {
		sent := time.Now()
		if sent.After(end) {
			return r, nil
		}
		binary.BigEndian.PutUint64(buf, number)
		if _, err := unix.Write(s.fd, buf); err != nil {
			return r, os.NewSyscallError("write", err)
		}
		answered, err := response(s, buf, number)
		if err != nil {
			return r, err
		}
		if answered {
			r.times = append(r.times, time.Since(sent))
		} else {
			r.lost++
		}
	}
	return r, nil
}

// response waits for the response with a number, and discards late ones.
func response(s socket, buf []byte, number uint64) (bool, error) {
	for {
		n, err := unix.Read(s.fd, buf)
		switch {
		case err == nil && n == smallPacket && binary.BigEndian.Uint64(buf) == number:
			return true, nil
		case err == nil, errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return false, nil
		default:
			return false, os.NewSyscallError("read", err)
		}
	}
}

// echoes answers requests until over is set.
func echoes(s socket, over *atomic.Bool) error {
	buf := make([]byte, smallPacket)
	for !over.Load() {
		n, err := unix.Read(s.fd, buf)
		if err == nil {
			_, err = unix.Write(s.fd, buf[:n])
		}
		if err != nil && !passing(err) {
			return os.NewSyscallError("echo", err)
		}
	}
	return nil
}
