package encap_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// TestBesideALayer: a packet from a layer that is not for the layer inside it is carried
// if packets of its version enter the stack there, or if it is for our own end.
func TestBesideALayer(t *testing.T) {
	ourEnd, theirEnd := "2001:db8:a::1", "2001:db8:b::1"
	echo6 := func(src, dst string) []byte {
		return header6(src, dst, header.ICMPv6, []byte{128, 0, 0, 0, 0, 0, 0, 0})
	}
	echo4 := func(src, dst string) []byte { return header4(src, dst, header.ICMP, []byte{8, 0, 0, 0, 0, 0, 0, 0}) }
	inner4 := layer(encap.FourInFour, "10.9.0.1", "10.9.0.2")
	for _, c := range []struct {
		name   string
		layers []encap.Layer
		inside []byte // of the outermost layer
		want   drop.Reason
	}{
		{"gre6 in 6in4, to our end", []encap.Layer{gre6, sit}, echo6(theirEnd, ourEnd), drop.None},
		{"gre6 in 6in4, to our end from others", []encap.Layer{gre6, sit}, echo6("2001:db8:9::1", ourEnd), drop.None},
		{"gre6 in 6in4, between others", []encap.Layer{gre6, sit}, echo6("2001:db8:9::1", "2001:db8:9::2"), drop.UnknownProtocol},
		{"gre6 in 6in4, GRE between others", []encap.Layer{gre6, sit}, header6(theirEnd, "2001:db8:9::2", header.GRE, make([]byte, 44)), drop.UnknownProtocol},
		{"gre6 in 6in4, GRE from others", []encap.Layer{gre6, sit}, header6("2001:db8:9::1", ourEnd, header.GRE, make([]byte, 44)), drop.ForeignSource},
		{"4in6 in 6in4, between others", []encap.Layer{dslite, sit}, echo6("2001:db8:9::1", "2001:db8:9::2"), drop.None},
		{"4in6 in 6in4, to our end", []encap.Layer{dslite, sit}, echo6(theirEnd, ourEnd), drop.None},
		{"4in6 in 6in6, between others", []encap.Layer{dslite, sixes}, echo6("2001:db8:9::1", "2001:db8:9::2"), drop.None},

		// The GRE header gives the version of what follows: a layer must not read the
		// other version as its own.
		{"gre6 in gre, IPv4", []encap.Layer{gre6, gre4}, echo4("10.0.0.2", "10.0.0.1"), drop.UnknownProtocol},
		{"gre6 in gre, IPv4 like GRE", []encap.Layer{gre6, gre4}, sum(put(header4("10.0.0.2", "10.0.0.1", 255, nil), 6, 0x2f), 0), drop.UnknownProtocol},
		{"gre6 in gre, IPv4 header alone", []encap.Layer{gre6, gre4}, header4("10.0.0.2", "10.0.0.1", 255, nil), drop.UnknownProtocol},
		{"4in6 in gre, IPv4", []encap.Layer{dslite, gre4}, echo4("10.0.0.2", "10.0.0.1"), drop.UnknownProtocol},
		{"4in6 in gre, IPv6", []encap.Layer{dslite, gre4}, echo6("2001:db8:9::1", "2001:db8:9::2"), drop.None},
		{"4in4 in gre, IPv6", []encap.Layer{inner4, gre4}, echo6("2001:db8:9::1", "2001:db8:9::2"), drop.None},
		{"4in4 in gre, IPv6 like IPv4", []encap.Layer{inner4, gre4}, put(echo6("2001:db8:9::1", "2001:db8:9::2"), 0, 0x6f), drop.None},
		{"4in4 in gre, IPv4 between others", []encap.Layer{inner4, gre4}, echo4("10.0.0.2", "10.0.0.1"), drop.ForeignDestination},
		{"6in4 in gre, IPv4 between others", []encap.Layer{layer(encap.SixInFour, "10.9.0.1", "10.9.0.2"), gre4}, echo4("10.0.0.2", "10.0.0.1"), drop.None},
		{"6in4 in gre, IPv4 to our end", []encap.Layer{layer(encap.SixInFour, "10.9.0.1", "10.9.0.2"), gre4}, echo4("10.9.0.2", "10.9.0.1"), drop.None},
		{"6in4 in gre, protocol 41 from others", []encap.Layer{layer(encap.SixInFour, "10.9.0.1", "10.9.0.2"), gre4},
			header4("10.9.0.3", "10.9.0.1", header.ProtoIPv6, echo6("2001:db8::1", "2001:db8::2")), drop.ForeignSource},
		{"6in4 in gre, a fragment to our end", []encap.Layer{layer(encap.SixInFour, "10.9.0.1", "10.9.0.2"), gre4},
			sum(put(header4("10.9.0.2", "10.9.0.1", header.ProtoIPv6, make([]byte, 40)), 6, 0x20), 0), drop.Fragment},
	} {
		t.Run(c.name, func(t *testing.T) {
			outermost := c.layers[len(c.layers)-1:]
			pkt, r := encapsulateRaw(t, flip(outermost), c.inside)
			if r != drop.None {
				t.Fatal(r)
			}
			inner, r := build(t, c.layers, 1500, encap.DefaultOptions).Decapsulate(pkt)
			if r != c.want {
				t.Fatalf("%v, want %v", r, c.want)
			}
			if r == drop.None && !bytes.Equal(inner, c.inside) {
				t.Errorf("\n got %x\nwant %x", inner, c.inside)
			}
		})
	}
}

// encapsulateRaw adds one layer to any bytes, in memory that ends with them.
func encapsulateRaw(t *testing.T, one []encap.Layer, inside []byte) ([]byte, drop.Reason) {
	t.Helper()
	pkt, r := build(t, one, 1500, encap.DefaultOptions).EncapsulateSegment(append(make([]byte, encap.Headroom), inside...), encap.Headroom, nil)
	if r != drop.None {
		return nil, r
	}
	return append(make([]byte, 0, len(pkt)), pkt...), r
}

// TestInnerDeliveryFragments: fragments of the packet of an inner layer are reassembled,
// like those of the outermost one; other fragments are not.
func TestInnerDeliveryFragments(t *testing.T) {
	layers := []encap.Layer{dslite, sixes}
	back := build(t, flip(layers), 1500, encap.DefaultOptions)
	inner := header4("10.0.0.1", "10.0.0.2", header.ICMP, make([]byte, 1200))
	// The packet of the inner layer, fragmented to 600 bytes by a router between the ends
	// of the two layers.
	middle, r := encapsulate(build(t, layers[:1], 1500, encap.DefaultOptions), inner)
	if r != drop.None {
		t.Fatal(r)
	}
	outer := build(t, layers[1:], 1500, encap.DefaultOptions)
	re := fragment.NewReassembler(fragment.Limits{}, nil)
	var whole []byte
	n := 0
	for piece := range fragment.IPv6(middle, 600, 7, make([]byte, 600), 0) {
		n++
		pkt, r := encapsulate(outer, piece)
		if r != drop.None {
			t.Fatal(r)
		}
		part, r := back.Decapsulate(pkt)
		if r != drop.Fragment || !bytes.Equal(part, piece) {
			t.Fatalf("%v %x", r, part)
		}
		w, r := re.Add(header.IPv6(part), time.Now())
		if r != drop.None {
			t.Fatal(r)
		}
		whole = bytes.Clone(w)
	}
	got, r := back.DecapsulateReassembled(whole)
	if n != 3 || r != drop.None || !bytes.Equal(got, inner) {
		t.Errorf("%d pieces, %v %x", n, r, got)
	}
	// Fragment header: next header 4, offset 0, more fragments, identification 9.
	frag := []byte{header.ProtoIPv4, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, c := range []struct {
		name, src, dst string
		next           byte
		want           drop.Reason
	}{
		{"from others to our end", "2001:db8:9::1", "2001:db8:b::1", header.ProtoIPv4, drop.ForeignSource},
		{"between others", "2001:db8:9::1", "2001:db8:9::2", header.ProtoIPv4, drop.None},
		{"of an echo to our end", "2001:db8:a::1", "2001:db8:b::1", header.ICMPv6, drop.None},
	} {
		b := header6(c.src, c.dst, header.FragmentHdr, frag)
		b[40] = c.next
		pkt, _ := encapsulate(outer, b)
		if got, r := back.Decapsulate(pkt); r != c.want || r == drop.None && !bytes.Equal(got, b) {
			t.Errorf("%s: %v, want %v", c.name, r, c.want)
		}
	}
	if _, r := back.DecapsulateReassembled(header6("2001:db8:9::1", "2001:db8:9::2", header.ProtoIPv4, inner)); r != drop.UnknownProtocol {
		t.Errorf("put together for others: %v", r)
	}
}

// TestUnquoteStacks reads quotes of every length of what each stack sends. If the inner
// header is quoted, the inner packet is found, for an error about any layer.
func TestUnquoteStacks(t *testing.T) {
	for _, layers := range append(deep(), []encap.Layer{gre6, sixes}) {
		t.Run(names(layers), func(t *testing.T) {
			for _, inner := range [][]byte{
				header4("10.0.0.1", "10.0.0.2", header.ICMP, make([]byte, 16)),
				header6("2001:db8::1", "2001:db8::2", header.ICMPv6, make([]byte, 16)),
			} {
				s := build(t, layers, 1500, encap.DefaultOptions)
				pkt, r := encapsulate(s, inner)
				if r != drop.None {
					continue
				}
				testQuotes(t, s, layers, pkt, inner)
			}
		})
	}
}

func testQuotes(t *testing.T, s *encap.Stack, layers []encap.Layer, pkt, inner []byte) {
	at, end := 0, len(pkt)-len(inner)
	for i := len(layers) - 1; at < end; i-- {
		quote := pkt[at:]
		need, size := 40, 20 // bytes of the delivery header that identify it as ours; of the inner header
		if header.Version(quote) == 4 {
			need = 28
		}
		if header.Version(inner) == 6 {
			size = 40
		}
		for n := range len(quote) + 1 {
			// In memory that ends with the quote.
			q, ok := s.Unquote(append(make([]byte, 0, n), quote[:n]...))
			if ok != (n >= need) || ok && (q.Size != len(quote) || q.Outside != at) {
				t.Fatalf("layer %d, %d bytes: %v %+v", i, n, ok, q)
			}
			if found := n-(end-at) >= size; found != (q.Inner != nil) || found && !bytes.Equal(q.Inner, quote[end-at:n]) {
				t.Fatalf("layer %d, %d bytes: inner packet %x", i, n, q.Inner)
			}
		}
		if header.Version(quote) == 4 {
			at += 20
		} else {
			at += 40
		}
		at += layers[i].Kind.Properties().Overhead
	}
}

// TestUnquoteRefuses: quotes of packets that we have not sent are refused.
func TestUnquoteRefuses(t *testing.T) {
	key := framing.GRE{Keyed: true, Key: 7}
	static := encap.DefaultOptions
	static.StaticMTU = true
	four := header4("10.0.0.1", "10.0.0.2", header.ICMP, make([]byte, 16))
	six := header6("2001:db8::1", "2001:db8::2", header.ICMPv6, make([]byte, 16))
	for _, c := range []struct {
		name  string
		layer encap.Layer
		o     encap.Options
		inner []byte
		edit  func(b []byte)
		ok    bool
	}{
		{"4in4", ipip, encap.DefaultOptions, four, func(b []byte) {}, true},
		{"4in4, source", ipip, encap.DefaultOptions, four, func(b []byte) { b[15]++ }, false},
		{"4in4, destination", ipip, encap.DefaultOptions, four, func(b []byte) { b[19]++ }, false},
		{"4in4, protocol", ipip, encap.DefaultOptions, four, func(b []byte) { b[9] = 41 }, false},
		{"4in4, identification", ipip, encap.DefaultOptions, four, func(b []byte) { b[5] = 1 }, false},
		{"4in4, inner version", ipip, encap.DefaultOptions, four, func(b []byte) { b[20] = 0x65 }, false},
		{"4in4, inner length", ipip, encap.DefaultOptions, four, func(b []byte) { b[23]++ }, false},
		{"4in4 static", ipip, static, four, func(b []byte) {}, true},
		{"4in4 static, identification not used yet", ipip, static, four, func(b []byte) {
			binary.BigEndian.PutUint16(b[4:], header.IPv4(b).ID()+100)
		}, false},
		{"4in4 static, DF, for the inner one may have had it", ipip, static, four, func(b []byte) { b[4], b[5], b[6] = 0, 0, 0x40 }, true},
		{"6in4 static, DF", sit, static, six, func(b []byte) { b[4], b[5], b[6] = 0, 0, 0x40 }, false},
		{"gre", gre4, encap.DefaultOptions, four, func(b []byte) {}, true},
		{"gre, key", gre4, encap.DefaultOptions, four, func(b []byte) { b[20] = 0x20 }, false},
		{"gre, protocol type", gre4, encap.DefaultOptions, four, func(b []byte) { b[22], b[23] = 0x65, 0x58 }, false},
		{"gre, the other version", gre4, encap.DefaultOptions, four, func(b []byte) { b[22], b[23] = 0x86, 0xdd }, false},
		{"gre, version", gre4, encap.DefaultOptions, four, func(b []byte) { b[21] = 1 }, false},
		{"gre with key", greLayer(encap.GREInFour, "192.0.2.1", "198.51.100.2", key), encap.DefaultOptions, four, func(b []byte) {}, true},
		{"gre with another key", greLayer(encap.GREInFour, "192.0.2.1", "198.51.100.2", key), encap.DefaultOptions, four, func(b []byte) { b[27]++ }, false},
		{"gre without the key", greLayer(encap.GREInFour, "192.0.2.1", "198.51.100.2", key), encap.DefaultOptions, four, func(b []byte) { b[20] = 0 }, false},
		{"gre6", gre6, encap.DefaultOptions, six, func(b []byte) {}, true},
		{"gre6, source", gre6, encap.DefaultOptions, six, func(b []byte) { b[23]++ }, false},
		{"gre6, destination", gre6, encap.DefaultOptions, six, func(b []byte) { b[39]++ }, false},
		{"gre6, next header", gre6, encap.DefaultOptions, six, func(b []byte) { b[6] = 41 }, false},
		{"gre6 with another key", greLayer(encap.GREInSix, "2001:db8:a::1", "2001:db8:b::1", key), encap.DefaultOptions, six, func(b []byte) { b[47]++ }, false},
		{"6in6", sixes, encap.DefaultOptions, six, func(b []byte) {}, true},
		{"6in6, destination", sixes, encap.DefaultOptions, six, func(b []byte) { b[39]++ }, false},
		{"6in6, inner length", sixes, encap.DefaultOptions, six, func(b []byte) { b[45]++ }, false},
	} {
		s := build(t, []encap.Layer{c.layer}, 1500, c.o)
		pkt, r := encapsulate(s, c.inner)
		if r != drop.None {
			t.Fatal(r)
		}
		c.edit(pkt)
		if q, ok := s.Unquote(pkt); ok != c.ok || ok && q.Inner == nil {
			t.Errorf("%s: %v %+v", c.name, ok, q)
		}
	}
	// In a stack, a packet that can enter the outer layer is ours; one that cannot is
	// not.
	for _, c := range []struct {
		layers []encap.Layer
		inside []byte
		ok     bool
	}{
		{[]encap.Layer{gre6, sit}, six, false},
		{[]encap.Layer{gre6, sit}, header6("2001:db8:a::1", "2001:db8::2", header.ICMPv6, make([]byte, 8)), true}, // from our own end
		{[]encap.Layer{dslite, sit}, six, true},
		{[]encap.Layer{gre6, gre4}, four, false},
		{[]encap.Layer{layer(encap.SixInFour, "10.9.0.1", "10.9.0.2"), gre4}, four, true},
		{[]encap.Layer{layer(encap.FourInFour, "10.9.0.1", "10.9.0.2"), gre4}, four, false},
		{[]encap.Layer{layer(encap.FourInFour, "10.9.0.1", "10.9.0.2"), gre4}, six, true},
	} {
		outermost := c.layers[len(c.layers)-1:]
		pkt, r := encapsulateRaw(t, outermost, c.inside)
		if r != drop.None {
			t.Fatal(r)
		}
		q, ok := build(t, c.layers, 1500, encap.DefaultOptions).Unquote(pkt)
		if ok != c.ok || ok && !bytes.Equal(q.Inner, c.inside) {
			t.Errorf("%s: %v %+v", names(c.layers), ok, q)
		}
	}
}
