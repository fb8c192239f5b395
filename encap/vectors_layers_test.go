package encap_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/vectors"
)

// TestVectorsOfLayers checks the vectors of layers other than 6in4 and 4in6, and of
// stacks of them, in both directions.
func TestVectorsOfLayers(t *testing.T) {
	static := vectorOptions(encap.NoEncapLimit)
	static.StaticMTU = true
	all := framing.GRE{Keyed: true, Key: 0xdeadbeef, Checksum: true, Sequence: true}
	v := vectors.Read(t)
	for _, c := range []struct {
		name    string
		layers  []encap.Layer
		o       encap.Options
		headers int // bytes in front of the inner packet
		before  int // packets sent before
	}{
		{"IPIP-1", []encap.Layer{ipip}, vectorOptions(encap.NoEncapLimit), 20, 0},
		{"IPIP-2", []encap.Layer{ipip}, static, 20, 0},
		{"GRE-1", []encap.Layer{gre4}, vectorOptions(encap.NoEncapLimit), 24, 0},
		{"GRE-2", []encap.Layer{greLayer(encap.GREInFour, "192.0.2.1", "198.51.100.2", all)}, vectorOptions(encap.NoEncapLimit), 36, 7},
		{"GRE-3", []encap.Layer{greLayer(encap.GREInSix, "2001:db8:a::1", "2001:db8:b::1", framing.GRE{Keyed: true, Key: 42})},
			vectorOptions(encap.NoEncapLimit), 48, 0},
		{"6IN6-1", []encap.Layer{layer(encap.SixInSix, "2001:db8:a::1", "2001:db8:b::1")}, vectorOptions(4), 48, 0},
		{"6IN6-2", []encap.Layer{sixes}, vectorOptions(encap.NoEncapLimit), 48, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			outer, ok := v[c.name]
			if !ok {
				t.Fatal("no such vector")
			}
			inner := outer[c.headers:]
			s := build(t, c.layers, 1500, c.o)
			for range c.before {
				encapsulate(s, inner)
			}
			got, r := encapsulate(s, inner)
			if r == drop.None && c.o.StaticMTU { // we choose the identification
				if header.IPv4(got).ID() == 0 {
					t.Error("no identification")
				}
				copy(got[4:6], outer[4:6])
				header.IPv4(got).SetChecksum()
			}
			if r != drop.None || !bytes.Equal(got, outer) {
				t.Errorf("encapsulate (%v)\n got %x\nwant %x", r, got, outer)
			}
			padded := append(bytes.Clone(outer), 0, 0, 0, 0, 0, 0)
			got, r = build(t, flip(c.layers), 1500, c.o).Decapsulate(padded)
			if r != drop.None || !bytes.Equal(got, inner) {
				t.Errorf("decapsulate (%v)\n got %x\nwant %x", r, got, inner)
			}
		})
	}
}

// TestVectorStack: 6IN6-2 is two layers around 6IN6-1's inner packet, except for the hop
// limit between them. One stack makes it, with the limit of the outer layer one less.
func TestVectorStack(t *testing.T) {
	want := bytes.Clone(vectors.Read(t)["6IN6-2"])
	want[48+7] = 64
	layers := []encap.Layer{layer(encap.SixInSix, "2001:db8:a::1", "2001:db8:b::1"), sixes}
	got, r := encapsulate(build(t, layers, 1500, vectorOptions(4)), want[96:])
	if r != drop.None || !bytes.Equal(got, want) {
		t.Errorf("encapsulate (%v)\n got %x\nwant %x", r, got, want)
	}
	inner, r := build(t, flip(layers), 1500, vectorOptions(4)).Decapsulate(got)
	if r != drop.None || !bytes.Equal(inner, want[96:]) {
		t.Errorf("decapsulate (%v) %x", r, inner)
	}
}

// TestVectorTimeExceeded: IPIP-3a is about a packet of ours. IPIP-3b is what its sender
// must get: never a message that its TTL has expired (RFC 2003 section 4.4).
func TestVectorTimeExceeded(t *testing.T) {
	v := vectors.Read(t)
	e := quotedIn(t, v["IPIP-3a"])
	q, ok := build(t, []encap.Layer{ipip}, 1500, encap.DefaultOptions).Unquote(e.Quote)
	if !ok || q.Size != 56 || q.Outside != 0 || !bytes.Equal(q.Inner, v["IPIP-3a"][48:]) {
		t.Fatalf("%+v %v", q, ok)
	}
	typ, code := e.Meaning().For(4)
	msg := icmp.Append(nil, typ, code, 0, q.Inner, nil)
	binary.BigEndian.PutUint16(msg[2:], 0)
	binary.BigEndian.PutUint16(msg[2:], ^header.Sum(msg, 0))
	if want := v["IPIP-3b"][20:]; !bytes.Equal(msg, want) {
		t.Errorf("\n got %x\nwant %x", msg, want)
	}
}

// TestKeepalive: the keepalive of a router goes back to it, also if one end does not
// know its own address because of a NAT, or if it is between the inner addresses. A
// packet that only resembles one is not sent on.
func TestKeepalive(t *testing.T) {
	four := vectors.Read(t)["GRE-4"]
	// The same over IPv6: the fixed header, then GRE with IPv6; inside it the answer: GRE
	// with protocol type 0.
	six := header6("2001:db8:a::1", "2001:db8:b::1", header.GRE,
		append([]byte{0, 0, 0x86, 0xdd}, header6("2001:db8:b::1", "2001:db8:a::1", header.GRE, []byte{0, 0, 0, 0})...))
	both := func(at ...int) func(ip []byte) { // unknown addresses
		return func(ip []byte) {
			for _, i := range at {
				ip[i]++
			}
		}
	}
	for _, c := range []struct {
		name  string
		from  encap.Layer // the router's end
		outer []byte
		inner int // offset of the answer
		edit  func(ip []byte)
		want  drop.Reason
		back  encap.Return
	}{
		{"IPv4", gre4, four, 24, func([]byte) {}, drop.OwnSource, encap.ReturnBare},
		{"with a key", gre4, four, 24, nil, drop.OwnSource, encap.ReturnBare},
		{"the router is behind a NAT", gre4, four, 24, both(19), drop.OwnSource, encap.ReturnBare},
		{"we are behind a NAT", gre4, four, 24, both(15), drop.None, encap.ReturnBare},
		{"between hosts", gre4, four, 24, both(15, 19), drop.None, encap.NoReturn},
		{"of another protocol", gre4, four, 24, func(ip []byte) { ip[9] = header.UDP }, drop.OwnSource, encap.NoReturn},
		{"a fragment", gre4, four, 24, func(ip []byte) { ip[6] = 0x20 }, drop.OwnSource, encap.NoReturn},
		{"TTL 2", gre4, four, 24, func(ip []byte) { ip[8] = 2 }, drop.OwnSource, encap.ReturnBare},
		{"TTL 1", gre4, four, 24, func(ip []byte) { ip[8] = 1 }, drop.OwnSource, encap.NoReturn},
		{"with something inside", gre4, four, 24, func(ip []byte) { ip[22] = 8 }, drop.OwnSource, encap.NoReturn},
		{"GRE version 1", gre4, four, 24, func(ip []byte) { ip[21] = 1 }, drop.OwnSource, encap.NoReturn},
		{"IPv6", gre6, six, 44, func([]byte) {}, drop.OwnSource, encap.ReturnBare},
		{"IPv6, the router is behind a NAT", gre6, six, 44, both(39), drop.OwnSource, encap.ReturnBare},
		{"IPv6, we are behind a NAT", gre6, six, 44, both(23), drop.None, encap.ReturnBare},
		{"IPv6 between hosts", gre6, six, 44, both(23, 39), drop.None, encap.NoReturn},
		{"IPv6 of another protocol", gre6, six, 44, func(ip []byte) { ip[6] = header.UDP }, drop.OwnSource, encap.NoReturn},
		{"hop limit 2", gre6, six, 44, func(ip []byte) { ip[7] = 2 }, drop.OwnSource, encap.ReturnBare},
		{"hop limit 1", gre6, six, 44, func(ip []byte) { ip[7] = 1 }, drop.OwnSource, encap.NoReturn},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := bytes.Clone(c.outer)
			if c.edit == nil { // a key in both headers
				c.from.Kind = c.from.Kind.With(framing.GRE{Keyed: true, Key: 7})
				b = keyed(b, 7)
				c.inner += 4
				c.edit = func([]byte) {}
			}
			sent := bytes.Clone(b[c.inner:])
			c.edit(b[c.inner:])
			if header.Version(b) == 4 {
				header.IPv4(b[c.inner:]).SetChecksum()
			}
			edited := bytes.Clone(b[c.inner:])
			s := build(t, flip([]encap.Layer{c.from}), 1500, encap.DefaultOptions)
			inner, r := s.Decapsulate(b)
			if r != c.want {
				t.Fatalf("%v, want %v", r, c.want)
			}
			got := s.Keepalive(inner, r == drop.OwnSource)
			if got != c.back {
				t.Fatalf("goes back: %v, want %v", got, c.back)
			}
			if got == encap.NoReturn {
				return
			}
			want := edited // but between the ends that we know
			if header.Version(want) == 4 {
				copy(want[12:20], sent[12:20])
			} else {
				copy(want[8:40], sent[8:40])
			}
			if want = forward(want); !bytes.Equal(inner, want) {
				t.Errorf("\n got %x\nwant %x", inner, want)
			}
		})
	}
	// Between the inner addresses, of which one is ours, over either IP version.
	s := build(t, flip([]encap.Layer{gre4}), 1500, encap.DefaultOptions)
	for _, inner := range [][]byte{
		forward(header4("10.0.0.2", "10.0.0.1", header.GRE, []byte{0, 0, 0, 0})),
		header6("fd00::2", "fd00::1", header.GRE, []byte{0, 0, 0, 0}),
	} {
		want := bytes.Clone(inner)
		if header.Version(want) == 4 {
			want[8] = 1
			header.IPv4(want).SetChecksum()
		} else {
			want[7] = 1
		}
		if got := s.Keepalive(inner, true); got != encap.ReturnInside || !bytes.Equal(inner, want) {
			t.Errorf("between inner addresses: %v\n got %x\nwant %x", got, inner, want)
		}
		if got := s.Keepalive(inner, true); got != encap.NoReturn { // where the other end has the same source
			t.Errorf("what has come back goes back again: %v", got)
		}
	}
	// Without GRE it is only a packet with our address as source.
	b := append(bytes.Clone(four[:20]), four[24:]...)
	b[9] = header.ProtoIPv4
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	header.IPv4(b).SetChecksum()
	s = build(t, flip([]encap.Layer{ipip}), 1500, encap.DefaultOptions)
	if inner, r := s.Decapsulate(b); r != drop.OwnSource || s.Keepalive(inner, true) != encap.NoReturn {
		t.Errorf("in 4in4: %v", r)
	}
}

// keyed is GRE-4 with a key in both of its GRE headers.
func keyed(b []byte, key byte) []byte {
	k := []byte{0, 0, 0, key}
	out := bytes.Join([][]byte{b[:24], k, b[24:], k}, nil)
	out[20], out[48] = 0x20, 0x20
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	binary.BigEndian.PutUint16(out[30:], uint16(len(out)-28))
	header.IPv4(out).SetChecksum()
	return out
}

// header6 is an IPv6 packet.
func header6(src, dst string, next byte, payload []byte) []byte {
	b := make([]byte, header.IPv6Len, header.IPv6Len+len(payload))
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], netip.MustParseAddr(src).AsSlice())
	copy(b[24:], netip.MustParseAddr(dst).AsSlice())
	return append(b, payload...)
}

// header4 is an IPv4 packet.
func header4(src, dst string, protocol byte, payload []byte) []byte {
	b := make([]byte, header.IPv4Len, header.IPv4Len+len(payload))
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(header.IPv4Len+len(payload)))
	copy(b[12:], netip.MustParseAddr(src).AsSlice())
	copy(b[16:], netip.MustParseAddr(dst).AsSlice())
	header.IPv4(b).SetChecksum()
	return append(b, payload...)
}
