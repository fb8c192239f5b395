package encap_test

import (
	"bytes"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// udpKinds are layers with each of the framings in UDP.
func udpKinds() []encap.Layer {
	var all []encap.Layer
	full := framing.GRE{Keyed: true, Key: 7, Checksum: true, Sequence: true}
	for _, f := range []framing.FOU{
		{Local: 5555, Remote: 5556},
		{Local: 5555, Remote: 5556, NoChecksum: true, Flow: true},
		{Local: 5555, Remote: 5556, Inside: framing.GRE{}, Flow: true},
		{Local: 5555, Remote: 5556, Inside: full},
		{Local: 5555, Remote: 5556, Inside: framing.GRE{Apart: true, InKeyed: true, InKey: 7}},
	} {
		for _, k := range []framing.Framing{f, framing.GUE(f)} {
			all = append(all, layer(encap.SixInFour.With(k), "192.0.2.1", "198.51.100.2"), layer(encap.SixInSix.With(k), "2001:db8:a::1", "2001:db8:b::1"))
		}
	}
	return all
}

// flipUDP returns a layer from the other end's point of view.
func flipUDP(l encap.Layer) encap.Layer {
	l = flip([]encap.Layer{l})[0]
	turn := func(f framing.FOU) framing.FOU {
		f.Local, f.Remote = f.Remote, f.Local
		if g, ok := f.Inside.(framing.GRE); ok && g.Apart {
			g.Keyed, g.Key, g.InKeyed, g.InKey = g.InKeyed, g.InKey, g.Keyed, g.Key
			f.Inside = g
		}
		return f
	}
	switch f := l.Kind.Framing().(type) {
	case framing.FOU:
		l.Kind = l.Kind.With(turn(f))
	case framing.GUE:
		l.Kind = l.Kind.With(framing.GUE(turn(framing.FOU(f))))
	}
	return l
}

// Every framing in UDP carries packets of both versions, whose payload may be elsewhere, and
// recognizes its packets in ICMP errors, cut off at any byte.
func TestUDPFramings(t *testing.T) {
	for _, l := range udpKinds() {
		out, in := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions), build(t, []encap.Layer{flipUDP(l)}, 1500, encap.DefaultOptions)
		for _, inner := range [][]byte{header4("10.0.0.1", "10.0.0.2", header.TCP, bytes.Repeat([]byte{0xa5}, 54)), header6("2001:db8:1::1", "2001:db8:2::1", header.TCP, bytes.Repeat([]byte{0xa5}, 33))} {
			b := append(make([]byte, encap.Headroom), inner[:len(inner)-13]...)
			outer, r := out.EncapsulateSegment(b, encap.Headroom, inner[len(inner)-13:])
			if r != drop.None {
				t.Fatalf("%+v: %v", l.Kind, r)
			}
			outer = append(outer, inner[len(inner)-13:]...)
			if got, r := in.Decapsulate(bytes.Clone(outer)); r != drop.None || !bytes.Equal(got, inner) {
				t.Errorf("%+v: IPv%d: %v", l.Kind, header.Version(inner), r)
			}
			if len(outer) != len(inner)+out.Overhead(header.Version(inner)) {
				t.Errorf("%+v: %d bytes", l.Kind, len(outer))
			}
			at := header.HeadersLen(l.Local)
			for n := at; n <= len(outer); n++ {
				if q, ok := out.Unquote(outer[:n]); !ok || n == len(outer) && !bytes.Equal(q.Inner, inner) {
					t.Fatalf("%+v, quoted to %d bytes: %v, %x", l.Kind, n, ok, q.Inner)
				}
			}
			if _, ok := in.Unquote(outer); ok {
				t.Errorf("%+v: the other end's packet is unquoted", l.Kind)
			}
		}
	}
}

// The MTU of a tunnel is that of the kernel's (linux/drivers/net and net/ipv4/fou_core.c), which
// leaves room for all headers.
func TestMTUOfUDP(t *testing.T) {
	for _, c := range []struct {
		over    encap.Kind
		f       framing.FOU
		gue     bool
		mtu     encap.TunnelMTU
		version int
	}{
		{encap.SixInFour, framing.FOU{}, false, 1472, 6},
		{encap.SixInFour, framing.FOU{}, true, 1468, 6},
		{encap.SixInFour, framing.FOU{Inside: framing.GRE{}}, false, 1468, 6},
		{encap.SixInFour, framing.FOU{Inside: framing.GRE{Keyed: true, Checksum: true}}, false, 1460, 6},
		{encap.SixInFour, framing.FOU{Inside: framing.GRE{}}, true, 1464, 6},
		{encap.SixInSix, framing.FOU{}, false, 1452, 6},
		{encap.SixInSix, framing.FOU{}, true, 1448, 6},
		{encap.SixInSix, framing.FOU{Inside: framing.GRE{}}, false, 1448, 6},
	} {
		c.f.Local, c.f.Remote = 5555, 5555
		var f framing.Framing = c.f
		if c.gue {
			f = framing.GUE(c.f)
		}
		l := layer(c.over.With(f), "192.0.2.1", "198.51.100.2")
		if c.over.Over() == 6 {
			l = layer(c.over.With(f), "2001:db8:a::1", "2001:db8:b::1")
		}
		if got := encap.MTU([]encap.Layer{l}, 1500, encap.DefaultOptions, true); got != c.mtu {
			t.Errorf("%+v over IPv%d: %d, want %d", f, c.over.Over(), got, c.mtu)
		}
		s := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions)
		if got := s.Limit(4); got != c.mtu {
			t.Errorf("%+v over IPv%d: IPv4 packets of up to %d bytes, want %d", f, c.over.Over(), got, c.mtu)
		}
	}
}

// With Flow the source port depends on the inner flow alone, and is a dynamic one.
func TestFlowPorts(t *testing.T) {
	l := layer(encap.SixInFour.With(framing.FOU{Local: 5555, Remote: 5556, Flow: true}), "192.0.2.1", "198.51.100.2")
	s := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions)
	ports := make(map[uint16]bool)
	for flow := range 64 {
		tcp := make([]byte, 40)
		tcp[1] = byte(flow)
		var of uint16
		for _, n := range []int{20, 40} {
			outer, r := encapsulate(s, header4("10.0.0.1", "10.0.0.2", header.TCP, tcp[:n]))
			if r != drop.None {
				t.Fatal(r)
			}
			from, to := header.Ports(outer[header.IPv4Len:])
			if from < 49152 || to != 5556 || of != 0 && from != of {
				t.Fatalf("flow %d: from port %d, then %d, to %d", flow, of, from, to)
			}
			of = from
		}
		ports[of] = true
	}
	if len(ports) < 60 {
		t.Errorf("%d ports of 64 flows", len(ports))
	}
}

// Two tunnels on one port are told apart by their GRE keys, and a wrong key is dropped as
// such.
func TestKeysInUDP(t *testing.T) {
	for _, gue := range []bool{false, true} {
		kind := func(key uint32) encap.Kind {
			f := framing.FOU{Local: 5555, Remote: 5555, Inside: framing.GRE{Keyed: true, Key: key}}
			if gue {
				return encap.GREInFour.With(framing.GUE(f))
			}
			return encap.GREInFour.With(f)
		}
		one, two := layer(kind(1), "192.0.2.1", "198.51.100.2"), layer(kind(2), "192.0.2.1", "198.51.100.2")
		outer, r := encapsulate(build(t, []encap.Layer{one}, 1500, encap.DefaultOptions), header4("10.0.0.1", "10.0.0.2", header.TCP, make([]byte, 40)))
		if r != drop.None {
			t.Fatal(r)
		}
		udp := outer[header.IPv4Len:]
		if !one.Kind.Framing().Matches(udp) || two.Kind.Framing().Matches(udp) || one.Kind.Properties().Identity == two.Kind.Properties().Identity {
			t.Errorf("GUE %v: the keys are not told apart", gue)
		}
		if _, r := build(t, flip([]encap.Layer{two}), 1500, encap.DefaultOptions).Decapsulate(outer); r != drop.Key {
			t.Errorf("GUE %v: %v", gue, r)
		}
	}
}

// Neither direction of any framing in UDP allocates memory.
func TestUDPNoAllocs(t *testing.T) {
	for _, l := range udpKinds() {
		if g, ok := l.Kind.Framing().(framing.FOU); ok && g.Inside != nil && g.Inside.Properties().Ordered {
			continue // a packet is not accepted twice
		}
		if g, ok := l.Kind.Framing().(framing.GUE); ok && g.Inside != nil && g.Inside.Properties().Ordered {
			continue
		}
		out, in := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions), build(t, []encap.Layer{flipUDP(l)}, 1500, encap.DefaultOptions)
		noAllocs(t, out, in, header4("10.0.0.1", "10.0.0.2", header.UDP, make([]byte, 60)))
	}
}
