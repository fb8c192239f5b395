package encap_test

import (
	"bytes"
	"net/netip"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// ported is a framing for tests: a header of two ports, one byte that says the IP version
// inside or is 0 for a control message, and a byte of padding.
type ported struct{ local, remote uint16 }

func (f ported) Properties() framing.Properties {
	return framing.Properties{Protocol: header.UDP, Overhead: 6, OverheadBack: 6, Longest: 6, Carries6: true,
		Identity: uint64(f.local), Ports: framing.Ports{Local: f.local, Remote: f.remote}, Optional: true}
}

func (f ported) Matches(b []byte) bool {
	_, to := header.Ports(b)
	return to == f.local
}

func (f ported) Codec(*framing.State) framing.Codec { return f }

func (f ported) Append(b []byte, version int) []byte {
	return append(b, byte(f.local>>8), byte(f.local), byte(f.remote>>8), byte(f.remote), byte(version), 0)
}

func (f ported) Finish([]byte, int, []byte) {}

func (f ported) Open(pkt []byte, at int) ([]byte, int, drop.Reason) {
	b := pkt[at:]
	if len(b) < 6 {
		return nil, 0, drop.Truncated
	}
	if b[4] == 0 {
		return b[6:], 0, drop.UnknownProtocol
	}
	return b[6:], int(b[4]), drop.None
}

func (f ported) Unquote(b []byte, size int) ([]byte, int, int, bool) {
	if len(b) < 6 {
		return nil, 0, 0, true
	}
	return b[6:], size - 6, int(b[4]), true
}

// portedLayer returns a layer whose resolver finds addresses and ports.
func portedLayer(local string) encap.Layer {
	return encap.Layer{Kind: encap.SixInFour.With(ported{4000, 5000}), Local: netip.MustParseAddr(local), Resolver: embedded{port: 6000}}
}

// TestResolvedPort: the resolver's port is the destination port of a framing with ports, and
// From sees the port that a packet comes from.
func TestResolvedPort(t *testing.T) {
	l := portedLayer("192.0.2.1")
	inner := header6(here, there, header.UDP, make([]byte, 20))
	outer, r := encapsulate(build(t, []encap.Layer{l}, 1500, encap.DefaultOptions), inner)
	if r != drop.None {
		t.Fatal(r)
	}
	if from, to := header.Ports(outer[20:]); from != 4000 || to != 6000 {
		t.Errorf("from port %d to %d", from, to)
	}
	back := portedLayer("198.51.100.2")
	back.Kind = back.Kind.With(ported{6000, 4000})
	back.Resolver = embedded{port: 4000}
	in := build(t, []encap.Layer{back}, 1500, encap.DefaultOptions)
	if o := in.Outer(outer); o.From.Port() != 4000 || o.At.Port() != 6000 {
		t.Errorf("%v", o)
	}
	if got, r := in.Decapsulate(bytes.Clone(outer)); r != drop.None || !bytes.Equal(got, inner) {
		t.Errorf("%v, %x", r, got)
	}
	back.Resolver = embedded{port: 4001} // and not this port
	if _, r := build(t, []encap.Layer{back}, 1500, encap.DefaultOptions).Decapsulate(bytes.Clone(outer)); r != drop.Spoof {
		t.Errorf("from another port: %v", r)
	}
}

// TestControlMessage: a control message of the framing comes out, with its reason, from any
// source if there is a resolver.
func TestControlMessage(t *testing.T) {
	l := portedLayer("192.0.2.1")
	s := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions)
	message := []byte("hello")
	body := append([]byte{0x12, 0x34, 4000 >> 8, 4000 & 0xff, 0, 0}, message...)
	for _, src := range []string{"198.51.100.2", "203.0.113.3"} {
		if got, r := s.Decapsulate(header4(src, "192.0.2.1", header.UDP, body)); r != drop.UnknownProtocol || !bytes.Equal(got, message) {
			t.Errorf("%s: %v, %q", src, r, got)
		}
	}
	if got, r := s.Decapsulate(header4("198.51.100.2", "192.0.2.9", header.UDP, body)); r != drop.ForeignDestination || got != nil {
		t.Errorf("to another host: %v, %q", r, got)
	}
}

// TestDatagram: what an agent sends is a datagram from our address and port.
func TestDatagram(t *testing.T) {
	for _, c := range []struct {
		layer encap.Layer
		to    string
		want  drop.Reason
	}{
		{portedLayer("192.0.2.1"), "198.51.100.2:3544", drop.None},
		{encap.Layer{Kind: encap.SixInSix.With(ported{4000, 5000}), Local: netip.MustParseAddr("fc00::1"), Remote: netip.MustParseAddr("fc00::2")}, "[2001:db8::2]:3544", drop.None},
		{portedLayer("192.0.2.1"), "[2001:db8::2]:3544", drop.NoRoute},
		{portedLayer("192.0.2.1"), "198.51.100.2:0", drop.NoRoute},
		{sit, "198.51.100.2:3544", drop.NoRoute},
	} {
		s := build(t, []encap.Layer{c.layer}, 1500, encap.DefaultOptions)
		payload := []byte("a bubble")
		b := append(make([]byte, encap.Headroom), payload...)
		to := netip.MustParseAddrPort(c.to)
		pkt, r := s.Datagram(b, encap.Headroom, netip.AddrPort{}, to)
		if r != c.want {
			t.Errorf("%v to %v: %v, want %v", c.layer.Kind, to, r, c.want)
		}
		if r != drop.None {
			continue
		}
		got, r := header.Parse(pkt, header.Version(pkt))
		if r != drop.None || len(got) != len(pkt) {
			t.Fatalf("%x: %v", pkt, r)
		}
		o, src, dst := header.OuterOf(pkt), pkt[12:16], pkt[16:20]
		udp := pkt[20:]
		if header.Version(pkt) == 6 {
			src, dst, udp = pkt[8:24], pkt[24:40], pkt[40:]
		}
		from, at := header.Ports(udp)
		if o.From.Addr() != c.layer.Local || o.At.Addr() != to.Addr() || o.TTL != 64 || from != 4000 || at != to.Port() || !bytes.Equal(udp[8:], payload) {
			t.Errorf("%v: %x", o, pkt)
		}
		if header.Sum(udp, header.PseudoSum(src, dst, len(udp), header.UDP)) != 0xffff {
			t.Errorf("checksum of %x", pkt)
		}
	}
}

// TestControlPort: control messages have a port of their own in both directions.
func TestControlPort(t *testing.T) {
	for _, l := range []encap.Layer{
		{Kind: encap.SixInFour.With(framing.LISP{}), Local: netip.MustParseAddr("192.0.2.1"), Resolver: anywhere{}},
		{Kind: encap.SixInSix.With(framing.LISP{}), Local: netip.MustParseAddr("2001:db8::1"), Resolver: anywhere{}},
	} {
		s := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions)
		message := []byte("a map request")
		for from, want := range map[uint16]uint16{0: 4341, 4341: 4341, 4342: 4342} {
			b := append(make([]byte, encap.Headroom), message...)
			pkt, r := s.Datagram(b, encap.Headroom, netip.AddrPortFrom(netip.Addr{}, from), netip.AddrPortFrom(l.Local.Next(), 4342))
			if r != drop.None {
				t.Fatal(r)
			}
			if o := s.Outer(pkt); o.From != netip.AddrPortFrom(l.Local, want) || o.At.Port() != 4342 {
				t.Errorf("from %v to %v", o.From, o.At)
			}
		}
		if _, r := s.Datagram(append(make([]byte, encap.Headroom), 0), encap.Headroom, netip.MustParseAddrPort("192.0.2.1:53"), netip.AddrPortFrom(l.Local, 4342)); r != drop.NoRoute {
			t.Errorf("from another port: %v", r)
		}
		udp := append([]byte{0x10, 0xf6, 0x10, 0xf6, 0, byte(header.UDPLen + len(message)), 0, 0}, message...)
		for port, want := range map[byte]drop.Reason{0xf6: drop.UnknownProtocol, 0xf5: drop.UnknownProtocol, 0xf7: drop.UnknownProtocol} {
			udp[3] = port
			pkt := header4("198.51.100.2", "192.0.2.1", header.UDP, udp)
			if l.Local.Is6() {
				pkt = header6("2001:db8::2", "2001:db8::1", header.UDP, udp)
			}
			got, r := s.Decapsulate(pkt)
			if r != want || bytes.Equal(got, message) != (port == 0xf6) {
				t.Errorf("%v, port %x: %q, %v", l.Local, port, got, r)
			}
		}
	}
}

// anywhere is a resolver that accepts everything.
type anywhere struct{ resolve.DualResolver }

func (anywhere) From(_, _ resolve.Endpoint, _ []byte) drop.Reason { return drop.None }
