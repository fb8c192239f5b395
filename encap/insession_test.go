package encap_test

import (
	"bytes"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/source"
)

// session returns a layer whose packets travel in a connection that adds 24 bytes.
func session(k encap.Kind, local, remote string) encap.Layer {
	return layer(k.With(framing.InSession{Local: 443, Remote: 4433, Extra: 24}), local, remote)
}

var (
	session4 = session(encap.SixInFour, "192.0.2.1", "198.51.100.2")
	session6 = session(encap.SixInSix, "2001:db8:a::1", "2001:db8:b::1")
)

// flipSession returns the layers from the other end's point of view.
func flipSession(layers []encap.Layer) []encap.Layer {
	layers = flip(layers)
	l := &layers[len(layers)-1]
	f := l.Kind.Framing().(framing.InSession)
	f.Local, f.Remote = f.Remote, f.Local
	l.Kind = l.Kind.With(f)
	return layers
}

// What a connection adds counts for the MTU, but is not in the packets.
func TestSessionSizes(t *testing.T) {
	inner4 := header4("10.0.0.1", "10.0.0.2", header.UDP, make([]byte, 60))
	inner6 := header6("2001:db8:1::1", "2001:db8:2::1", header.UDP, make([]byte, 60))
	for _, c := range []struct {
		name   string
		layers []encap.Layer
		mtu    encap.TunnelMTU
	}{
		{"IPv4", []encap.Layer{session4}, 1448},
		{"IPv6", []encap.Layer{session6}, 1428},
	} {
		s := build(t, c.layers, 1500, encap.DefaultOptions)
		back := build(t, flipSession(c.layers), 1500, encap.DefaultOptions)
		for _, inner := range [][]byte{inner4, inner6} {
			version := header.Version(inner)
			if got := s.Limit(version); got != c.mtu {
				t.Errorf("%s: IPv%d: the limit is %d, want %d", c.name, version, got, c.mtu)
			}
			outer, r := encapsulate(s, inner)
			if r != drop.None || len(outer) != len(inner)+s.Overhead(version)-24 {
				t.Fatalf("%s: IPv%d: %v, %d bytes", c.name, version, r, len(outer))
			}
			udp := outer[len(outer)-len(inner)-8:]
			if want := []byte{443 >> 8, 443 & 0xff, 4433 >> 8, 4433 & 0xff, byte((len(inner) + 8) >> 8), byte(len(inner) + 8), 0, 0}; !bytes.Equal(udp[:8], want) {
				t.Errorf("%s: the header is %x, want %x", c.name, udp[:8], want)
			}
			if got, r := back.Decapsulate(outer); r != drop.None || !bytes.Equal(got, inner) {
				t.Errorf("%s: IPv%d: back: %v", c.name, version, r)
			}
		}
		if got := s.LimitBack(6, 1500); got != c.mtu {
			t.Errorf("%s: the limit of the peer's packets is %d, want %d", c.name, got, c.mtu)
		}
		if got := encap.MTU(c.layers[len(c.layers)-1:], 1500, encap.DefaultOptions, true); got != c.mtu {
			t.Errorf("%s: the MTU is %d", c.name, got)
		}
	}
}

// A double tunnel in a session: only the outer layer's packets are in the connection.
func TestDoubleInSession(t *testing.T) {
	layers := []encap.Layer{dslite, layer(encap.SixInFour.With(framing.InSession{Local: 443, Remote: 4433, Version: 6, Extra: 24}), "192.0.2.1", "198.51.100.2")}
	s, back := build(t, layers, 1500, encap.DefaultOptions), build(t, flipSession(layers), 1500, encap.DefaultOptions)
	if s.Limit(4) != 1408 || s.Limit(6) != 1448 {
		t.Errorf("limits %d and %d", s.Limit(4), s.Limit(6))
	}
	for _, inner := range [][]byte{header4("10.0.0.1", "10.0.0.2", header.UDP, make([]byte, 60)), header6("2001:db8:1::1", "2001:db8:2::1", header.UDP, make([]byte, 60))} {
		outer, r := encapsulate(s, inner)
		if r != drop.None {
			t.Fatal(r)
		}
		if got, r := back.Decapsulate(outer); r != drop.None || !bytes.Equal(got, inner) {
			t.Errorf("IPv%d: %v", header.Version(inner), r)
		}
	}
	if _, err := encap.New([]encap.Layer{session6, sit}, 1500, encap.DefaultOptions, source.New(nil, nil, false), encap.NewRecord()); err == nil {
		t.Error("a session inside another layer is accepted")
	}
}

// A packet in a session is never a fragment, and has no extension headers: an IPv4 packet
// that is too large is fragmented before it enters, and one that is not must fit.
func TestSessionPieces(t *testing.T) {
	o := encap.DefaultOptions
	o.IgnoreDF, o.EncapLimit = true, 4
	for _, l := range []encap.Layer{session4, session6} {
		s := build(t, []encap.Layer{l}, 1300, o)
		back := build(t, flipSession([]encap.Layer{l}), 1300, o)
		large := header4("10.0.0.1", "10.0.0.2", header.UDP, make([]byte, 1400))
		if !s.InPieces(large, len(large)) {
			t.Fatal("an IPv4 packet without DF does not pass")
		}
		n := 0
		for pkt, r := range s.EncapsulatePieces(append(make([]byte, encap.Headroom), large...), encap.Headroom, make([]byte, 3000)) {
			if r != drop.None || len(pkt)+24 > 1300 {
				t.Fatalf("%v, %d bytes", r, len(pkt))
			}
			if _, r := back.Decapsulate(bytes.Clone(pkt)); r != drop.None {
				t.Errorf("a piece is refused: %v", r)
			}
			n++
		}
		if n != 2 {
			t.Errorf("%d pieces", n)
		}
		large[6] = 0x40
		header.IPv4(large).SetChecksum()
		if _, r := encapsulate(s, large); r != drop.TooBig || s.InPieces(large, len(large)) {
			t.Errorf("an IPv4 packet with DF: %v", r)
		}
		// Every path carries IPv6 packets of 1280 bytes: the connection sees to that.
		six := header6("2001:db8:1::1", "2001:db8:2::1", header.UDP, make([]byte, 1240))
		outer, r := encapsulate(s, six)
		if r != drop.None || s.Limit(6) != 1280 {
			t.Fatalf("1280 bytes: %v, the limit is %d", r, s.Limit(6))
		}
		for pkt := range s.Cut(outer, 1300, make([]byte, 3000)) {
			if !bytes.Equal(pkt, outer) {
				t.Errorf("cut to %d bytes", len(pkt))
			}
		}
	}
}

// An ICMP error about a packet of the connection says its size, but not which packet was in
// it.
func TestSessionQuotes(t *testing.T) {
	for _, l := range []encap.Layer{session4, session6} {
		s := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions)
		at, wire := header.IPv4Len, header4("192.0.2.1", "198.51.100.2", header.UDP, append([]byte{443 >> 8, 443 & 0xff, 4433 >> 8, 4433 & 0xff, 5, 0x70, 1, 2}, bytes.Repeat([]byte{0xee}, 1384)...))
		wire[4], wire[5] = 0x12, 0x34 // the identification is the socket's
		if l.Kind.Over() == 6 {
			at, wire = header.IPv6Len, header6("2001:db8:a::1", "2001:db8:b::1", header.UDP, wire[at:])
		}
		for n := at + 8; n <= len(wire); n++ {
			if q, ok := s.Unquote(wire[:n]); !ok || q.Size != len(wire) || q.Inner != nil || q.Outside != 0 {
				t.Fatalf("quoted to %d bytes: %v, %+v", n, ok, q)
			}
		}
		for _, port := range []int{at, at + 2} {
			other := bytes.Clone(wire)
			other[port+1]++
			if _, ok := s.Unquote(other); ok {
				t.Error("another port is unquoted")
			}
		}
	}
}

// Without the peer's port, all of its ports are the session's.
func TestSessionToAnyPort(t *testing.T) {
	f := framing.InSession{Local: 443}
	for _, b := range [][]byte{{443 >> 8, 443 & 0xff, 1, 2, 0, 40, 0, 0, 0x60}, {443 >> 8}, nil} {
		if inner, _, _, ok := f.Unquote(b, 40); !ok || inner != nil {
			t.Errorf("%x: %v, %x", b, ok, inner)
		}
	}
	if _, _, _, ok := f.Unquote([]byte{0, 1, 1, 2}, 40); ok {
		t.Error("from another port")
	}
	if !f.Matches([]byte{9, 9, 443 >> 8, 443 & 0xff}) || f.Matches([]byte{443 >> 8, 443 & 0xff, 9, 9}) {
		t.Error("ports are not told apart")
	}
}

func TestSessionRefuses(t *testing.T) {
	l := layer(encap.SixInFour.With(framing.InSession{Local: 443, Remote: 4433, Version: 6}), "192.0.2.1", "198.51.100.2")
	s := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions)
	for _, c := range []struct {
		name string
		udp  []byte
		want drop.Reason
	}{
		{"an empty packet", []byte{4433 >> 8, 4433 & 0xff, 443 >> 8, 443 & 0xff, 0, 8, 0, 0}, drop.UnknownProtocol},
		{"IPv4", append([]byte{4433 >> 8, 4433 & 0xff, 443 >> 8, 443 & 0xff, 0, 28, 0, 0}, header4("10.0.0.1", "10.0.0.2", header.UDP, nil)...), drop.UnknownProtocol},
		{"a length that is too large", []byte{4433 >> 8, 4433 & 0xff, 443 >> 8, 443 & 0xff, 0, 9, 0, 0}, drop.Truncated},
		{"a length that is too small", []byte{4433 >> 8, 4433 & 0xff, 443 >> 8, 443 & 0xff, 0, 7, 0, 0}, drop.LyingLength},
		{"from another port", []byte{0, 1, 443 >> 8, 443 & 0xff, 0, 8, 0, 0}, drop.ForeignSource},
		{"half a header", []byte{4433 >> 8, 4433 & 0xff, 443 >> 8, 443 & 0xff}, drop.Truncated},
	} {
		if _, r := s.Decapsulate(header4("198.51.100.2", "192.0.2.1", header.UDP, c.udp)); r != c.want {
			t.Errorf("%s: %v, want %v", c.name, r, c.want)
		}
	}
	in := build(t, flipSession([]encap.Layer{l}), 1500, encap.DefaultOptions)
	noAllocs(t, s, in, header6("2001:db8:1::1", "2001:db8:2::1", header.UDP, make([]byte, 60)))
}
