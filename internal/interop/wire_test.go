//go:build interop

package interop

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

// wire counts what goes over the tap, while a test sends through the tunnel.
type wire struct {
	capture *rig.Capture
	stop    context.CancelFunc
	ended   sync.WaitGroup
	err     error
	sent    side // by the daemon
	got     side // from the kernel
	strange [][]byte
}

// side is one direction.
type side struct {
	packets, bytes int
	largest        int // bytes of IPv4 packet
	fragments      int // of the outer packet
	limits         int // packets with a tunnel encapsulation limit
}

func watch(t *testing.T) *wire {
	t.Helper()
	c, err := lab.ns.Capture(tap)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	w := &wire{capture: c, stop: stop}
	w.ended.Go(func() {
		for w.err == nil {
			w.err = w.next(ctx)
		}
	})
	t.Cleanup(func() { w.end(); c.Close() })
	return w
}

func (w *wire) end() {
	w.stop()
	w.ended.Wait()
}

func (w *wire) next(ctx context.Context) error {
	for ctx.Err() == nil {
		f, err := w.capture.Next(ctx)
		if err != nil {
			return err
		}
		w.count(f)
	}
	return ctx.Err()
}

func (w *wire) count(f rig.Frame) {
	p := f.Packet()
	if f.Type == unix.ETH_P_ARP {
		return
	}
	if f.Type != unix.ETH_P_IP || len(p) < 20 || p[9] != unix.IPPROTO_IPV6 {
		w.strange = append(w.strange, p)
		return
	}
	s := &w.got
	if f.Outgoing {
		s = &w.sent
	}
	length := int(binary.BigEndian.Uint16(p[2:]))
	s.packets++
	s.bytes += length
	s.largest = max(s.largest, length)
	if binary.BigEndian.Uint16(p[6:])&0x3fff != 0 { // MF, or an offset
		s.fragments++
	}
	// The option stands in a destination options header, right behind the IPv6
	// header of the second layer.
	if inner := p[int(p[0]&0x0f)*4:]; len(inner) > 43 && inner[0]>>4 == 6 && inner[6] == unix.IPPROTO_DSTOPTS && inner[42] == 4 {
		s.limits++
	}
}

// unreachable ends the count, and is how many ICMP port unreachables came from
// the kernel because of packets of the tunnel.
func (w *wire) unreachable() (n int) {
	w.end()
	return count(w.strange, func(p []byte) bool {
		return len(p) > 37 && p[9] == unix.IPPROTO_ICMP && p[20] == 3 && p[21] == 3 && p[37] == unix.IPPROTO_IPV6
	})
}

// report ends the count, and checks what must hold of any exchange: protocol 41
// and nothing else, never more than the link carries, and an encapsulation
// limit where it was asked for, and nowhere else.
func (w *wire) report(t *testing.T, oursLimited, theirsLimited bool) {
	t.Helper()
	w.end()
	lost, err := w.capture.Lost()
	if err != nil || !errors.Is(w.err, context.Canceled) {
		t.Errorf("capture: %v, %v", w.err, err)
	}
	for _, c := range []struct {
		name string
		side
		limited bool
	}{{"sixfourd", w.sent, oursLimited}, {"kernel", w.got, theirsLimited}} {
		report(t, "wire %s sent %d packets, %d bytes, the largest %d; %d were fragments, %d had an encapsulation limit",
			c.name, c.packets, c.bytes, c.largest, c.fragments, c.limits)
		if c.packets == 0 || c.largest > 1500 || (c.limits > 0) != c.limited {
			t.Errorf("%s: %+v, encapsulation limit expected: %v", c.name, c.side, c.limited)
		}
	}
	if lost > 0 {
		report(t, "wire %d packets were not counted: the capture had no room for them", lost)
	}
	for _, p := range w.strange[:min(len(w.strange), 5)] {
		t.Errorf("not a packet of the tunnel: % x", p[:min(len(p), 64)])
	}
}
