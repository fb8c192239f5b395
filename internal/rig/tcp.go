package rig

import (
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Transfer is the result of a transfer: bytes of payload, and the time it took.
type Transfer struct {
	Bytes   int64
	Elapsed time.Duration
}

// BytesPerSecond returns the throughput.
func (t Transfer) BytesPerSecond() float64 { return float64(t.Bytes) / t.Elapsed.Seconds() }

// TCPTransfer sends pseudo-random bytes over a TCP connection from one namespace to an
// address of another. It returns an error unless the same bytes arrived. Port 0 means
// any free port.
func TCPTransfer(ctx context.Context, from, to *Namespace, addr netip.AddrPort, bytes int64) (Transfer, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	l, err := to.ListenTCP(addr)
	if err != nil {
		return Transfer{}, err
	}
	serveCtx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- ServeTCP(serveCtx, l) }()
	t, err := SendTCP(ctx, from, l.Addr().(*net.TCPAddr).AddrPort(), bytes)
	stop()
	// The receiver's error says more than that the sender was disconnected.
	return t, errors.Join(<-served, err)
}

// SendTCP is the sending end of a TCPTransfer, to a ServeTCP. It sends the length, 8
// bytes, and the content; it receives the content's SHA-256.
func SendTCP(ctx context.Context, from *Namespace, addr netip.AddrPort, bytes int64) (Transfer, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	start := time.Now()
	c, err := from.DialTCP(ctx, addr)
	if err != nil {
		return Transfer{}, err
	}
	defer c.Close()
	defer interruptOnDone(ctx, c)()
	if err := sendContent(c, bytes); err != nil {
		return Transfer{}, from.explain(fmt.Sprintf("send %d bytes to %v by TCP", bytes, addr), causeOf(ctx, err))
	}
	return Transfer{bytes, time.Since(start)}, nil
}

var errChanged = errors.New("the receiver's checksum differs: the content changed on the way")

func sendContent(c io.ReadWriter, bytes int64) error {
	var seed [32]byte
	if _, err := crand.Read(seed[:]); err != nil {
		return err
	}
	if _, err := c.Write(binary.BigEndian.AppendUint64(nil, uint64(bytes))); err != nil {
		return err
	}
	sum := sha256.New()
	content := io.TeeReader(io.LimitReader(rand.NewChaCha8(seed), bytes), sum)
	// Only Read and Write: with splice the size of the buffer would be unknown.
	if _, err := io.CopyBuffer(struct{ io.Writer }{c}, content, make([]byte, 64<<10)); err != nil {
		return err
	}
	var got [sha256.Size]byte
	if _, err := io.ReadFull(c, got[:]); err != nil {
		return fmt.Errorf("read the receiver's checksum: %w", err)
	}
	if [sha256.Size]byte(sum.Sum(nil)) != got {
		return errChanged
	}
	return nil
}

// ServeTCP is the receiving end: it accepts transfers on l until ctx ends, which is not
// an error, or until one of them fails. It closes l.
func ServeTCP(parent context.Context, l *net.TCPListener) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	defer l.Close()
	defer interruptOnDone(ctx, l)()
	var transfers sync.WaitGroup
	defer transfers.Wait()
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			if parent.Err() != nil {
				return nil
			}
			return causeOf(ctx, err)
		}
		transfers.Go(func() {
			defer c.Close()
			defer interruptOnDone(ctx, c)()
			if err := receiveContent(c); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("receive from %v by TCP: %w", c.RemoteAddr(), err))
			}
		})
	}
}

func receiveContent(c io.ReadWriter) error {
	var length [8]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return err
	}
	sum := sha256.New()
	content := io.LimitReader(c, int64(binary.BigEndian.Uint64(length[:])))
	if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, content, make([]byte, 64<<10)); err != nil {
		return err
	}
	_, err := c.Write(sum.Sum(nil))
	return err
}
