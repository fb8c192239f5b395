package encap_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/internal/vectors"
)

// udpVector is a packet to or from a kernel's tunnel in UDP.
type udpVector struct {
	outer []byte
	layer encap.Layer // of its sender
	inner int         // offset of the inner packet
	sent  bool        // we send the same
	want  drop.Reason
}

// udpVectors returns the vectors of FOU, GUE and GRE-in-UDP, by their names.
func udpVectors(t testing.TB) map[string]udpVector {
	t.Helper()
	all := make(map[string]udpVector)
	for name, outer := range vectors.Read(t) {
		if kind, _, _ := strings.Cut(name, "-"); kind != "FOU" && kind != "GUE" && kind != "GREUDP" {
			continue
		}
		v := udpVector{outer: outer, sent: true}
		at := header.IPv4Len
		if header.Version(outer) == 6 {
			at = header.IPv6Len
		}
		udp := outer[at:]
		f := framing.FOU{Local: binary.BigEndian.Uint16(udp), Remote: binary.BigEndian.Uint16(udp[2:]), NoChecksum: udp[6]|udp[7] == 0}
		var k framing.Framing
		switch {
		case strings.HasPrefix(name, "FOU-"):
			v.inner, k = at+8, f
		case strings.HasPrefix(name, "GREUDP-"):
			f.Inside = framing.GRE{}
			v.inner, k = at+12, f
		case strings.HasPrefix(name, "GUE-3"):
			f.Inside = framing.GRE{}
			v.inner, k = at+16, framing.GUE(f)
		case strings.HasPrefix(name, "GUE-"):
			v.inner, k = at+12, framing.GUE(f)
		}
		switch name {
		case "FOU-D1":
			v.want = drop.BadChecksum
		case "FOU-D2":
			v.want = drop.ForeignSource
		case "FOU-D3":
			v.want = drop.Congestion
		case "GUE-D1", "GUE-D3":
			v.want = drop.BadGUE
		case "GUE-4a", "GUE-5a": // variant 1
			v.inner, v.sent = at+8, false
		case "GUE-7a": // with private flags
			v.inner, v.sent = at+16, false
		case "GUE-9": // with private flags and two offsets
			v.inner, v.sent = at+20, false
		}
		if at == header.IPv4Len {
			ip := header.IPv4(outer)
			v.layer = encap.Layer{Kind: encap.SixInFour.With(k), Local: ip.Src(), Remote: ip.Dst()}
		} else {
			ip := header.IPv6(outer)
			v.layer = encap.Layer{Kind: encap.SixInSix.With(k), Local: ip.Src(), Remote: ip.Dst()}
		}
		v.sent = v.sent && v.want == drop.None
		all[name] = v
	}
	return all
}

// options returns the options of the tunnel that has sent the vector.
func (v *udpVector) options() encap.Options {
	o := vectorOptions(encap.NoEncapLimit)
	if header.Version(v.outer) == 6 {
		o.FlowLabel.Fixed = header.IPv6(v.outer).FlowLabel()
	}
	return o
}

// receiver returns the layers of the tunnel that gets the vector.
func (v *udpVector) receiver(name string) []encap.Layer {
	l := flip([]encap.Layer{v.layer})[0]
	switch f := l.Kind.Framing().(type) {
	case framing.FOU:
		f.Local, f.Remote = f.Remote, f.Local+1 // packets from any port arrive
		l.Kind = l.Kind.With(f)
	case framing.GUE:
		f.Local, f.Remote = f.Remote, f.Local+1
		l.Kind = l.Kind.With(f)
	}
	if name == "FOU-D2" {
		l.Remote = netip.MustParseAddr("203.0.113.2")
	}
	return []encap.Layer{l}
}

// completed returns the inner packet of GUE-9 with the checksum that its sender has left to
// the receiver.
func completed(t *testing.T, inner []byte) []byte {
	inner = bytes.Clone(inner)
	tcp := inner[header.IPv6Len:]
	ip := header.IPv6(inner)
	pseudo := header.PseudoSum(ip.Source(), ip.Dest(), len(tcp), header.TCP)
	if got := binary.BigEndian.Uint16(tcp[16:]); got != header.Fold(pseudo) {
		t.Fatalf("the checksum of TCP is %#x, and not the sum of the pseudo header", got)
	}
	tcp[16], tcp[17] = 0, 0
	binary.BigEndian.PutUint16(tcp[16:], ^header.Sum(tcp, pseudo))
	return inner
}

// What kernels have sent is received, and what they have dropped is dropped. Where our
// headers are the same, the same bytes are sent.
func TestVectorsOfUDP(t *testing.T) {
	all := udpVectors(t)
	if len(all) != 35 {
		t.Fatalf("%d vectors", len(all))
	}
	for name, v := range all {
		inner := v.outer[v.inner:]
		if name == "GUE-9" {
			inner = completed(t, inner)
		}
		in := build(t, v.receiver(name), 1500, v.options())
		if got, r := in.Decapsulate(append(bytes.Clone(v.outer), 0, 0)); r != v.want || r == drop.None && !bytes.Equal(got, inner) {
			t.Errorf("%s: %v, want %v: %x", name, r, v.want, got)
		}
		at := header.HeadersLen(v.layer.Local)
		if got, r := in.Open(header.OuterOf(v.outer), bytes.Clone(v.outer[at:])); name != "FOU-D1" && r != v.want || r == drop.None && !bytes.Equal(got, inner) {
			t.Errorf("%s, without its UDP header: %v, want %v: %x", name, r, v.want, got)
		}
		if !v.sent {
			continue
		}
		s := build(t, []encap.Layer{v.layer}, 1500, v.options())
		got, r := encapsulate(s, inner)
		if r != drop.None {
			t.Errorf("%s: %v", name, r)
			continue
		}
		if header.Version(got) == 4 { // we send no identification with DF
			copy(got[4:6], v.outer[4:6])
			header.IPv4(got).SetChecksum()
		}
		if !bytes.Equal(got, v.outer) {
			t.Errorf("%s\n got %x\nwant %x", name, got, v.outer)
		}
		// Every part of it is recognized in an ICMP error, and no other ports are.
		for n := at; n <= len(got); n++ {
			if q, ok := s.Unquote(quoted(got, n)); !ok || n == len(got) && !bytes.Equal(q.Inner, inner) {
				t.Fatalf("%s, quoted to %d bytes: %v, %x", name, n, ok, q.Inner)
			}
		}
		for _, port := range []int{at - 7, at - 5} {
			other := quoted(got, len(got))
			other[port]++
			if _, ok := s.Unquote(other); ok {
				t.Errorf("%s: another port is unquoted", name)
			}
		}
	}
}

// Packets that are cut off at any byte are refused, whether the lengths in their headers say
// so or not, and change nothing outside them.
func TestUDPCutOff(t *testing.T) {
	for name, v := range udpVectors(t) {
		in, at := build(t, v.receiver(name), 1500, v.options()), header.HeadersLen(v.layer.Local)
		for n := range v.outer {
			if _, r := in.Decapsulate(bytes.Clone(v.outer[:n])); r == drop.None {
				t.Fatalf("%s: %d bytes are accepted", name, n)
			}
			if n < at {
				continue
			}
			cut := bytes.Clone(v.outer[:n])
			binary.BigEndian.PutUint16(cut[at-4:], uint16(n-at+header.UDPLen))
			cut[at-2], cut[at-1] = 0, 0
			if header.Version(cut) == 4 {
				binary.BigEndian.PutUint16(cut[2:], uint16(n))
				header.IPv4(cut).SetChecksum()
			} else {
				binary.BigEndian.PutUint16(cut[4:], uint16(n-header.IPv6Len))
			}
			if _, r := in.Decapsulate(cut); r == drop.None {
				t.Fatalf("%s: %d bytes are accepted with their lengths", name, n)
			}
		}
	}
}

// quoted returns the first n bytes of a packet of ours, with identification 0.
func quoted(pkt []byte, n int) []byte {
	b := bytes.Clone(pkt)
	if header.Version(b) == 4 {
		b[4], b[5] = 0, 0
		header.IPv4(b).SetChecksum()
	}
	return b[:n]
}

// An IPv4 packet on a port of FOU whose tunnel carries only IPv6 is dropped, and one on that
// of a tunnel that carries either is accepted by its first four bits.
func TestFOUOtherVersion(t *testing.T) {
	v := udpVectors(t)["FOU-7"]
	l := v.receiver("FOU-7")
	f := l[0].Kind.Framing().(framing.FOU)
	f.Version = 6
	l[0].Kind = l[0].Kind.With(f)
	if _, r := build(t, l, 1500, v.options()).Decapsulate(bytes.Clone(v.outer)); r != drop.UnknownProtocol {
		t.Errorf("%v", r)
	}
}

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

// GUE headers that a kernel refuses are refused, and those that it accepts are accepted.
func TestGUEHeaders(t *testing.T) {
	inner := header6("2001:db8:1::1", "2001:db8:2::1", header.UDP, make([]byte, 20))
	gre := append([]byte{0, 0, 0x86, 0xdd}, inner...)
	six := framing.GUE{Local: 6080, Remote: 6080, Version: 6}
	withGRE := framing.GUE{Local: 6080, Remote: 6080, Inside: framing.GRE{}}
	for _, c := range []struct {
		name string
		f    framing.GUE
		gue  []byte
		pkt  []byte
		want drop.Reason
	}{
		{"plain", six, []byte{0, 41, 0, 0}, inner, drop.None},
		{"words without flags", six, []byte{2, 41, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, inner, drop.None},
		{"words after the private flags", six, []byte{2, 41, 0, 1, 0, 0, 0, 0, 5, 6, 7, 8}, inner, drop.None},
		{"private flags without a word", six, []byte{0, 41, 0, 1}, inner, drop.BadGUE},
		{"an unknown flag", six, []byte{0, 41, 0x80, 0}, inner, drop.BadGUE},
		{"an unknown flag beside a known one", six, []byte{1, 41, 0, 3, 0, 0, 0, 0}, inner, drop.BadGUE},
		{"an unknown private flag", six, []byte{1, 41, 0, 1, 0x40, 0, 0, 0}, inner, drop.BadGUE},
		{"two private flags", six, []byte{2, 41, 0, 1, 0x80, 0, 0, 1, 0, 40, 0, 46}, inner, drop.BadGUE},
		{"a checksum without offsets", six, []byte{1, 41, 0, 1, 0x80, 0, 0, 0}, inner, drop.BadGUE},
		{"a checksum behind the packet", six, []byte{2, 41, 0, 1, 0x80, 0, 0, 0, 0, 40, 0, 59}, inner, drop.Truncated},
		{"a checksum from behind the packet", six, []byte{2, 41, 0, 1, 0x80, 0, 0, 0, 0, 61, 0, 46}, inner, drop.Truncated},
		{"more words than there are", six, []byte{31, 41, 0, 0}, inner, drop.Truncated},
		{"half a header", six, []byte{0, 41}, nil, drop.Truncated},
		{"nothing", six, nil, nil, drop.Truncated},
		{"a control message", six, []byte{0x20, 41, 0, 0}, inner, drop.BadGUE},
		{"variant 1 with IPv6", six, nil, inner, drop.None},
		{"variant 1 with IPv4", six, nil, header4("10.0.0.1", "10.0.0.2", header.UDP, nil), drop.UnknownProtocol},
		{"variant 1 with version 5", six, nil, []byte{0x50, 0, 0, 0, 0}, drop.UnknownProtocol},
		{"variant 1 with version 7", six, nil, []byte{0x70, 0, 0, 0, 0}, drop.UnknownProtocol},
		{"variant 2", six, []byte{0x80, 41, 0, 0}, inner, drop.BadGUE},
		{"variant 3", six, []byte{0xc0, 41, 0, 0}, inner, drop.BadGUE},
		{"another protocol", six, []byte{0, 17, 0, 0}, inner, drop.UnknownProtocol},
		{"the protocol of the other version", six, []byte{0, 4, 0, 0}, inner, drop.UnknownProtocol},
		{"GRE", withGRE, []byte{0, 47, 0, 0}, gre, drop.None},
		{"GRE without its protocol", withGRE, []byte{0, 41, 0, 0}, gre, drop.UnknownProtocol},
		{"IPv6 instead of GRE", withGRE, nil, inner, drop.UnknownProtocol},
		{"GRE instead of IPv6", six, []byte{0, 47, 0, 0}, gre, drop.UnknownProtocol},
	} {
		in := build(t, []encap.Layer{layer(encap.SixInFour.With(c.f), "192.0.2.1", "198.51.100.2")}, 1500, encap.DefaultOptions)
		udp := append([]byte{0x30, 0x39, 6080 >> 8, 6080 & 0xff, 0, byte(8 + len(c.gue) + len(c.pkt)), 0, 0}, c.gue...)
		got, r := in.Decapsulate(header4("198.51.100.2", "192.0.2.1", header.UDP, append(udp, c.pkt...)))
		if r != c.want || r == drop.None && !bytes.Equal(got, inner) {
			t.Errorf("%s: %v, want %v: %x", c.name, r, c.want, got)
		}
	}
}

// A checksum of UDP that is completed is never 0, which stands for none.
func TestGUEChecksumNotZero(t *testing.T) {
	inner := header6("2001:db8:1::1", "2001:db8:2::1", header.UDP, []byte{0, 7, 0, 9, 0, 10, 0, 0, 0, 0})
	ip, udp := header.IPv6(inner), inner[header.IPv6Len:]
	binary.BigEndian.PutUint16(udp[6:], header.Fold(header.PseudoSum(ip.Source(), ip.Dest(), len(udp), header.UDP)))
	binary.BigEndian.PutUint16(udp[8:], ^header.Sum(udp, 0))
	outer := append([]byte{0x30, 0x39, 6080 >> 8, 6080 & 0xff, 0, byte(20 + len(inner)), 0, 0, 2, 41, 0, 1, 0x80, 0, 0, 0, 0, 40, 0, 46}, inner...)
	in := build(t, []encap.Layer{layer(encap.SixInFour.With(framing.GUE{Local: 6080, Remote: 6080, Version: 6}), "192.0.2.1", "198.51.100.2")}, 1500, encap.DefaultOptions)
	got, r := in.Decapsulate(header4("198.51.100.2", "192.0.2.1", header.UDP, outer))
	if r != drop.None || binary.BigEndian.Uint16(got[header.IPv6Len+6:]) != 0xffff {
		t.Errorf("%v: %x", r, got)
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
		b := append(make([]byte, encap.Headroom), header4("10.0.0.1", "10.0.0.2", header.UDP, make([]byte, 60))...)
		if n := testing.AllocsPerRun(100, func() {
			outer, r := out.Encapsulate(b, encap.Headroom)
			if r != drop.None {
				t.Fatal(r)
			}
			if _, r := in.Decapsulate(outer); r != drop.None {
				t.Fatal(r)
			}
		}); n != 0 {
			t.Errorf("%+v: %v allocations", l.Kind, n)
		}
	}
}
