package datapath

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/transport"
)

// single is a sender of single packets that records their lengths, or fails.
type single struct {
	fail    error
	lengths []int
}

func (s *single) SendOne(pkt []byte) error {
	if s.fail == nil {
		s.lengths = append(s.lengths, len(pkt))
	}
	return s.fail
}

func (s *single) Send([]transport.Packet) (int, error) { return 0, errors.New("no") }
func (s *single) Close() error                         { return nil }

// own returns the buffer of an inner IPv6 packet of size bytes that a 6in4 tunnel carries.
func own(size int) []byte {
	buf := make([]byte, encap.Headroom+size)
	ip := header.IPv6(buf[encap.Headroom:])
	ip[0], ip[4], ip[5], ip[6], ip[7] = 0x60, byte((size-header.IPv6Len)>>8), byte(size-header.IPv6Len), 59, 64
	ip.Source()[0], ip.Dest()[0] = 0xfd, 0xfd
	return buf
}

// A packet of our own is fragmented only where the caller has given room for that, inside
// or outside.
func TestEmitFragments(t *testing.T) {
	_, _, _, w := labOf(t, 1300, encap.Options{}, layer(encap.SixInFour, "192.0.2.1", "198.51.100.1", framing.GRE{}))
	room := make([]byte, encap.Headroom+transport.MaxPacket)
	datagram := make([]byte, encap.Headroom+2000)
	ip := header.IPv4(datagram[encap.Headroom:])
	ip[0], ip[2], ip[3], ip[8], ip[9] = 0x45, 2000>>8, 2000&0xff, 64, header.ProtoIPv6
	ip.SetChecksum()
	for _, c := range []struct {
		name            string
		buf             []byte
		stack           *encap.Stack
		pieces, scratch []byte
		want            int // outer packets; 0: the packet is too large
	}{
		{"inner, small", own(100), w.Stack, nil, nil, 1},
		{"inner, small, room", own(100), w.Stack, room, room[:transport.MaxPacket], 1},
		{"inner, large", own(2000), w.Stack, nil, nil, 0},
		{"inner, large, room", own(2000), w.Stack, room, nil, 2},
		{"outer, large", datagram, nil, nil, nil, 1},
		{"outer, large, room", datagram, nil, nil, room, 2},
	} {
		s := new(single)
		w.Senders = []transport.Sender{s}
		n := w.Emit(&Own{Buf: c.buf, Stack: c.stack, Pieces: c.pieces, Scratch: c.scratch})
		if len(s.lengths) != c.want || (n == nil) != (c.want > 0) || n != nil && n.Reason != drop.TooBig {
			t.Errorf("%s: %v, lengths %v", c.name, n, s.lengths)
		}
	}
}

// What is not sent has a reason, and the kernel's error if the kernel refused it.
func TestEmitFails(t *testing.T) {
	_, _, _, w := labOf(t, 1300, encap.Options{}, layer(encap.SixInFour, "192.0.2.1", "198.51.100.1", framing.GRE{}))
	w.Senders = []transport.Sender{&single{fail: unix.EPERM}}
	o := Own{Buf: own(100), Stack: w.Stack}
	if n := w.Emit(&o); n == nil || n.Reason != drop.Filtered || !errors.Is(n, unix.EPERM) || len(n.Outer) != 100+header.IPv4Len {
		t.Errorf("%+v", n)
	}
	o.Encapsulate = func([]byte, int) ([]byte, drop.Reason) { return nil, drop.Unresolved }
	if n := w.Emit(&o); n == nil || n.Reason != drop.Unresolved || n.Outer != nil || n.Err != nil || n.Error() == "" {
		t.Errorf("%+v", n)
	}
}

// Without a capture a packet of our own costs no allocation.
func TestEmitNoAllocs(t *testing.T) {
	_, _, _, w := labOf(t, 1300, encap.Options{}, layer(encap.SixInFour, "192.0.2.1", "198.51.100.1", framing.GRE{}))
	w.Senders = []transport.Sender{&single{lengths: make([]int, 0, 1000)}}
	buf, room := own(100), make([]byte, encap.Headroom+transport.MaxPacket)
	if got := testing.AllocsPerRun(100, func() {
		if n := w.Emit(&Own{Buf: buf, Stack: w.Stack, Scratch: room}); n != nil {
			t.Error(n)
		}
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
