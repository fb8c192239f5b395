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

// outside describes the outer headers of a tunnel's packets.
type outside struct {
	version  int
	protocol byte
	// echoes means that probes, of the path MTU or of liveness, go to the kernel's outer
	// address, because no inner address need answer.
	echoes bool
}

var protocol41 = outside{version: 4, protocol: unix.IPPROTO_IPV6}

// wire counts the packets on the tap device while a test sends through the tunnel.
type wire struct {
	outside
	capture *rig.Capture
	stop    context.CancelFunc
	ended   sync.WaitGroup
	err     error
	sent    side // by the daemon
	got     side // from the kernel
	remote  int  // packets from the kernel that leave a checksum to us (GUE)
	strange [][]byte
}

// side is one direction.
type side struct {
	packets, bytes int
	largest        int // bytes of IP packet
	fragments      int // of the outer packet
	limits         int // packets with a tunnel encapsulation limit
	echoes         int
}

func watch(t *testing.T, o outside) *wire {
	t.Helper()
	c, err := lab.ns.Capture(tap)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	w := &wire{outside: o, capture: c, stop: stop}
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
	p, ok := dissect(f.Packet())
	if f.Type == unix.ETH_P_ARP || ok && p.isLinks() {
		return
	}
	s := &w.got
	if f.Outgoing {
		s = &w.sent
	} else if ok && leavesChecksum(p) {
		w.remote++
	}
	switch {
	case ok && p.version == w.version && (p.protocol == w.protocol || p.later):
	case ok && p.version == w.version && p.isEcho() && w.echoes:
		s.echoes++
		return
	default:
		w.strange = append(w.strange, f.Packet())
		return
	}
	s.packets++
	s.bytes += p.length
	s.largest = max(s.largest, p.length)
	if p.fragment {
		s.fragments++
	}
	if p.limited {
		s.limits++
	}
}

// dissected is an outer packet.
type dissected struct {
	version  int
	protocol byte // behind the extension headers
	length   int
	fragment bool
	later    bool // an IPv6 fragment; only the first one shows the next header
	limited  bool // it, or IPv6 directly inside IPv4, has an encapsulation limit
	dst      []byte
	payload  []byte
}

func dissect(b []byte) (p dissected, ok bool) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		p = dissected{
			version: 4, protocol: b[9], length: int(binary.BigEndian.Uint16(b[2:])), dst: b[16:20],
			fragment: binary.BigEndian.Uint16(b[6:])&0x3fff != 0, // MF, or an offset
			payload:  b[min(len(b), int(b[0]&0x0f)*4):],
		}
		p.limited = p.protocol == unix.IPPROTO_IPV6 && hasLimit(p.payload)
		return p, true
	case len(b) >= 40 && b[0]>>4 == 6:
		p = dissected{version: 6, protocol: b[6], length: 40 + int(binary.BigEndian.Uint16(b[4:])), dst: b[24:40], limited: hasLimit(b), payload: b[40:]}
	default:
		return p, false
	}
	for len(p.payload) >= 8 && (p.protocol == unix.IPPROTO_FRAGMENT || p.protocol == unix.IPPROTO_DSTOPTS || p.protocol == unix.IPPROTO_HOPOPTS) {
		p.fragment = p.fragment || p.protocol == unix.IPPROTO_FRAGMENT
		n := 8 + 8*int(p.payload[1])
		if p.protocol == unix.IPPROTO_FRAGMENT {
			if p.later = binary.BigEndian.Uint16(p.payload[2:])>>3 != 0; p.later {
				return p, true
			}
			n = 8
		}
		p.protocol, p.payload = p.payload[0], p.payload[min(n, len(p.payload)):]
	}
	return p, true
}

// hasLimit reports whether a destination options header with the option directly follows
// the IPv6 header.
func hasLimit(b []byte) bool {
	return len(b) > 43 && b[0]>>4 == 6 && b[6] == unix.IPPROTO_DSTOPTS && b[42] == 4
}

// leavesChecksum reports whether a packet is one of GUE whose private flags say that the
// checksum of the packet inside is incomplete.
func leavesChecksum(p dissected) bool {
	gue := p.payload[min(8, len(p.payload)):]
	return p.protocol == unix.IPPROTO_UDP && len(gue) >= 8 && gue[0] == 2 && gue[3] == 1 && gue[4] == 0x80
}

// isLinks reports whether a packet is for the link itself: IPv6 neighbour discovery or
// multicast listener reports (RFC 4861, RFC 3810), as ARP is for IPv4.
func (p dissected) isLinks() bool {
	return p.version == 6 && p.protocol == unix.IPPROTO_ICMPV6 && len(p.payload) > 0 && (p.dst[0] == 0xff || 133 <= p.payload[0] && p.payload[0] <= 137)
}

// isEcho reports whether a packet is an ICMP echo request or reply.
func (p dissected) isEcho() bool {
	if len(p.payload) == 0 {
		return false
	}
	switch typ := p.payload[0]; p.protocol {
	case unix.IPPROTO_ICMP:
		return typ == 8 || typ == 0
	case unix.IPPROTO_ICMPV6:
		return typ == 128 || typ == 129
	}
	return false
}

// unreachable ends the count, and returns how many ICMP port unreachables the kernel sent
// about packets of the tunnel.
func (w *wire) unreachable() (n int) {
	w.end()
	return count(w.strange, func(p []byte) bool {
		return len(p) > 37 && p[9] == unix.IPPROTO_ICMP && p[20] == 3 && p[21] == 3 && p[37] == unix.IPPROTO_IPV6
	})
}

// report ends the count, and checks what must hold for any exchange: there are only packets
// of the tunnel, none is larger than the link allows, and they have an encapsulation limit
// only if it is configured.
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
