package encap_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// Layers with FOU.
var (
	fouInFour = encap.SixInFour.With(framing.FOU{Local: 5555, Remote: 5555})
	fouInSix  = encap.SixInSix.With(framing.FOU{Local: 5555, Remote: 5555})
)

// TestFOUSegments: the checksum covers a payload that is elsewhere.
func TestFOUSegments(t *testing.T) {
	for _, l := range []encap.Layer{layer(fouInFour, "192.0.2.1", "198.51.100.2"), layer(fouInSix, "2001:db8:a::1", "2001:db8:b::1")} {
		s, in := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions), build(t, flip([]encap.Layer{l}), 1500, encap.DefaultOptions)
		for _, n := range []int{0, 1, 2, 33} {
			inner := header4("10.0.0.1", "10.0.0.2", header.TCP, bytes.Repeat([]byte{0xa5}, 21+n))
			b := append(make([]byte, encap.Headroom), inner[:41]...)
			outer, r := s.EncapsulateSegment(b, encap.Headroom, inner[41:])
			if r != drop.None {
				t.Fatal(r)
			}
			if got, r := in.Decapsulate(append(outer, inner[41:]...)); r != drop.None || !bytes.Equal(got, inner) {
				t.Errorf("%v, %d bytes elsewhere: %v", l.Kind, n, r)
			}
		}
	}
}

// TestFOUPassesOthers: UDP between the two ends that is not to or from our port is neither a
// tunnel packet nor a loop, and a framing with another port is told apart.
func TestFOUPassesOthers(t *testing.T) {
	l := layer(fouInFour, "192.0.2.1", "198.51.100.2")
	s := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions)
	for port, want := range map[uint16]drop.Reason{5555: drop.Loop, 53: drop.None} {
		udp := []byte{5555 >> 8, 5555 & 0xff, byte(port >> 8), byte(port), 0, 8, 0, 0}
		udp = append(udp, 0x45)
		binary.BigEndian.PutUint16(udp[4:], 9)
		if _, r := encapsulate(s, header4("192.0.2.1", "198.51.100.2", header.UDP, udp)); r != want {
			t.Errorf("to port %d: %v, want %v", port, r, want)
		}
		if got := fouInFour.Framing().Matches(udp); got != (port == 5555) {
			t.Errorf("port %d matches: %v", port, got)
		}
	}
	// Inside another layer, what is to another port is for our end of the layer.
	inside := []encap.Layer{layer(fouInSix, "fc00::1", "fc00::2"), sit}
	in := build(t, flip(inside), 1500, encap.DefaultOptions)
	dns := header6("fc00::1", "fc00::2", header.UDP, []byte{0, 53, 0, 53, 0, 8, 0, 0})
	outer, r := encapsulate(build(t, []encap.Layer{sit}, 1500, encap.DefaultOptions), dns)
	if r != drop.None {
		t.Fatal(r)
	}
	if got, r := in.Decapsulate(outer); r != drop.None || !bytes.Equal(got, dns) {
		t.Errorf("a packet to another port of our end: %v, %x", r, got)
	}
}

func TestFOUNoAllocs(t *testing.T) {
	for _, f := range []framing.FOU{{Local: 5555, Remote: 5555}, {Local: 5555, Remote: 5555, NoChecksum: true}} {
		l := layer(fouInFour, "192.0.2.1", "198.51.100.2")
		l.Kind = l.Kind.With(f)
		out := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions)
		in := build(t, flip([]encap.Layer{l}), 1500, encap.DefaultOptions)
		noAllocs(t, out, in, header4("10.0.0.1", "10.0.0.2", header.UDP, make([]byte, 60)))
	}
}

// Packets of the IP version that a tunnel does not carry are neither sent nor accepted, also
// where the kernel's ipproto would accept them.
func TestFOUVersion(t *testing.T) {
	l := layer(encap.SixInFour.With(framing.FOU{Local: 5555, Remote: 5555, Version: 6}), "192.0.2.1", "198.51.100.2")
	s := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions)
	inner4 := header4("10.0.0.1", "10.0.0.2", header.UDP, make([]byte, 8))
	if _, r := encapsulate(s, inner4); r != drop.WrongFamily {
		t.Errorf("IPv4 is sent: %v", r)
	}
	either := layer(fouInFour, "192.0.2.1", "198.51.100.2")
	outer, r := encapsulate(build(t, []encap.Layer{either}, 1500, encap.DefaultOptions), inner4)
	if r != drop.None {
		t.Fatal(r)
	}
	if _, r := build(t, flip([]encap.Layer{l}), 1500, encap.DefaultOptions).Decapsulate(outer); r != drop.UnknownProtocol {
		t.Errorf("IPv4 is accepted: %v", r)
	}
}
