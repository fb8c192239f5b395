package encap_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// names returns a stack's layers, innermost first, as in the configuration.
func names(layers []encap.Layer) string {
	var out []string
	for _, l := range layers {
		out = append(out, l.Kind.String())
	}
	return strings.Join(out, " in ")
}

// deep returns stacks of up to four layers, each with different outer addresses.
func deep() [][]encap.Layer {
	key := framing.GRE{Keyed: true, Key: 5}
	return [][]encap.Layer{
		{ipip}, {sit}, {gre4}, {gre6}, {dslite}, {sixes},
		{dslite, sit}, {gre6, sit}, {dslite, sixes}, {layer(encap.FourInFour, "10.9.0.1", "10.9.0.2"), gre4}, {ipip, gre6}, {sit, dslite},
		{dslite, gre4}, {gre6, greLayer(encap.GREInFour, "192.0.2.1", "198.51.100.2", key)},
		{gre6, sixes, sit},
		{gre6, sit, greLayer(encap.GREInFour, "203.0.113.1", "203.0.113.2", key), layer(encap.FourInSix, "fc00::1", "fc00::2")},
		{dslite, sixes, layer(encap.SixInSix, "fc00::1", "fc00::2"), sit},
	}
}

// TestStacksRoundTrip: every stack carries the versions that Carries reports, and
// returns packets unchanged.
func TestStacksRoundTrip(t *testing.T) {
	for _, layers := range deep() {
		t.Run(names(layers), func(t *testing.T) {
			for _, inner := range [][]byte{
				header4("10.0.0.1", "10.0.0.2", header.ICMP, make([]byte, 101)),
				header6("2001:db8::1", "2001:db8::2", header.ICMPv6, make([]byte, 101)),
			} {
				version := header.Version(inner)
				carries := slices.ContainsFunc(layers, func(l encap.Layer) bool { return l.Kind.Carries(version) })
				s := build(t, layers, 1500, encap.DefaultOptions)
				pkt, r := encapsulate(s, inner)
				if !carries {
					if r != drop.WrongFamily {
						t.Errorf("IPv%d: %v", version, r)
					}
					continue
				}
				if r != drop.None || len(pkt) != len(inner)+s.Overhead(version) {
					t.Fatalf("IPv%d: %v, %d bytes, overhead %d", version, r, len(pkt), s.Overhead(version))
				}
				got, r := build(t, flip(layers), 1500, encap.DefaultOptions).Decapsulate(pkt)
				if r != drop.None || !bytes.Equal(got, inner) {
					t.Errorf("IPv%d back: %v %x", version, r, got)
				}
			}
		})
	}
}

// TestFragmentationRules checks DF and identification (RFC 4213 3.2, RFC 2003 3.1),
// which depend on the innermost header and on the inner packet.
func TestFragmentationRules(t *testing.T) {
	six := header6("2001:db8::1", "2001:db8::2", header.NoNextHeader, nil)
	four := header4("10.0.0.1", "10.0.0.2", header.ICMP, nil)
	fourDF := sum(put(bytes.Clone(four), 6, 0x40), 0)
	for _, c := range []struct {
		name   string
		layers []encap.Layer
		path   encap.PathMTU
		static bool
		inner  []byte
		df     []bool // of the IPv4 headers, outermost first
	}{
		{"6in4", []encap.Layer{sit}, 1500, false, six, []bool{true}},
		{"6in4 over 1300", []encap.Layer{sit}, 1300, false, six, []bool{true}},
		{"6in4 over 1299", []encap.Layer{sit}, 1299, false, six, []bool{false}},
		{"6in4, static", []encap.Layer{sit}, 1500, true, six, []bool{false}},
		{"4in4", []encap.Layer{ipip}, 1500, false, four, []bool{true}},
		{"4in4 of DF", []encap.Layer{ipip}, 1500, false, fourDF, []bool{true}},
		{"4in4 over 553", []encap.Layer{ipip}, 553, false, four, []bool{true}},
		{"4in4 over the least", []encap.Layer{ipip}, 552, false, four, []bool{false}},
		{"4in4 of DF over the least", []encap.Layer{ipip}, 552, false, fourDF, []bool{false}},
		{"4in4 of DF over the least, static", []encap.Layer{ipip}, 552, true, fourDF, []bool{false}},
		{"gre of DF over the least", []encap.Layer{gre4}, 552, false, fourDF, []bool{false}},
		{"4in4 in gre of DF over the least", []encap.Layer{ipip, gre4}, 552, false, fourDF, []bool{false, false}},
		{"4in4, static", []encap.Layer{ipip}, 1500, true, four, []bool{false}},
		{"4in4 of DF, static", []encap.Layer{ipip}, 1500, true, fourDF, []bool{true}},
		{"gre of IPv4", []encap.Layer{gre4}, 1500, false, four, []bool{true}},
		{"gre of IPv4, static", []encap.Layer{gre4}, 1500, true, four, []bool{false}},
		{"gre of DF, static", []encap.Layer{gre4}, 1500, true, fourDF, []bool{true}},
		{"gre of IPv6", []encap.Layer{gre4}, 1500, false, six, []bool{true}},
		{"gre of IPv6 over 1304", []encap.Layer{gre4}, 1304, false, six, []bool{true}},
		{"gre of IPv6 over 1303", []encap.Layer{gre4}, 1303, false, six, []bool{false}},
		{"gre of IPv4 over 1303", []encap.Layer{gre4}, 1303, false, four, []bool{true}},
		{"gre of IPv6, static", []encap.Layer{gre4}, 1500, true, six, []bool{false}},
		// The inner header decides about the outer one.
		{"6in4 in gre", []encap.Layer{sit, gre4}, 1500, false, six, []bool{true, true}},
		{"6in4 in gre over 1324", []encap.Layer{sit, gre4}, 1324, false, six, []bool{true, true}},
		{"6in4 in gre over 1323", []encap.Layer{sit, gre4}, 1323, false, six, []bool{false, false}},
		{"6in4 in gre, static", []encap.Layer{sit, gre4}, 1500, true, six, []bool{false, false}},
		{"4in4 in gre of DF, static", []encap.Layer{ipip, gre4}, 1500, true, fourDF, []bool{true, true}},
		{"4in4 in gre, static", []encap.Layer{ipip, gre4}, 1500, true, four, []bool{false, false}},
		{"4in6 in 6in4 of DF, static", []encap.Layer{dslite, sit}, 1500, true, fourDF, []bool{false}},
	} {
		o := encap.DefaultOptions
		o.StaticMTU = c.static
		s := build(t, c.layers, c.path, o)
		ids := make(map[uint16]bool)
		for range 3 {
			pkt, r := encapsulate(s, c.inner)
			if r != drop.None {
				t.Fatalf("%s: %v", c.name, r)
			}
			at := 0
			for i, df := range c.df {
				ip := header.IPv4(pkt[at:])
				if ip.MayFragment() == df || df != (ip.ID() == 0) || header.Sum(ip[:20], 0) != 0xffff {
					t.Errorf("%s, header %d: %x", c.name, i, ip[:20])
				}
				if !df && ids[ip.ID()] {
					t.Errorf("%s: identification %d comes twice", c.name, ip.ID())
				}
				ids[ip.ID()] = true
				if at += 20; ip.Protocol() == header.GRE {
					at += 4
				}
			}
		}
	}
}

// TestLimitBack: packets of the peer also fit if the peer adds encapsulation limits
// where we do not, and fragments nothing.
func TestLimitBack(t *testing.T) {
	limited := encap.DefaultOptions
	limited.EncapLimit = 4
	for _, c := range []struct {
		name      string
		layers    []encap.Layer
		path      encap.PathMTU
		o         encap.Options
		four, six encap.TunnelMTU
	}{
		{"4in4", []encap.Layer{ipip}, 1400, encap.DefaultOptions, 1380, 0},
		{"4in4 over 80", []encap.Layer{ipip}, 80, encap.DefaultOptions, 68, 0},
		{"gre over 1280", []encap.Layer{gre4}, 1280, encap.DefaultOptions, 1256, 1256},
		{"4in6", []encap.Layer{dslite}, 1400, encap.DefaultOptions, 1352, 0},
		{"4in6, limited", []encap.Layer{dslite}, 1400, limited, 1352, 0},
		{"6in6 over 1280", []encap.Layer{sixes}, 1280, encap.DefaultOptions, 0, 1232},
		{"gre6", []encap.Layer{gre6}, 1400, encap.DefaultOptions, 1348, 1348},
		{"4in6in4", []encap.Layer{dslite, sit}, 1400, encap.DefaultOptions, 1332, 1380},
		{"6in4 in 4in6", []encap.Layer{sit, dslite}, 1400, encap.DefaultOptions, 1352, 1332},
	} {
		s := build(t, c.layers, c.path, c.o)
		if four, six := s.LimitBack(4, c.path), s.LimitBack(6, c.path); four != c.four || six != c.six {
			t.Errorf("%s: %d and %d, want %d and %d", c.name, four, six, c.four, c.six)
		}
	}
}

// TestStackLimits checks which packets fit, counting every header.
func TestStackLimits(t *testing.T) {
	limited, static := encap.DefaultOptions, encap.DefaultOptions
	limited.EncapLimit, static.StaticMTU = 4, true
	all := framing.GRE{Keyed: true, Checksum: true, Sequence: true}
	four := []encap.Layer{gre6, sit, layer(encap.GREInFour, "203.0.113.1", "203.0.113.2"), layer(encap.FourInSix, "fc00::1", "fc00::2")}
	for _, c := range []struct {
		name         string
		layers       []encap.Layer
		path         encap.PathMTU
		o            encap.Options
		four, six    encap.TunnelMTU // the sizes that senders get
		over4, over6 int
	}{
		{"4in4", []encap.Layer{ipip}, 1500, limited, 1480, 0, 20, 0},
		{"4in4 over 100", []encap.Layer{ipip}, 100, limited, 80, 0, 20, 0},
		{"gre", []encap.Layer{gre4}, 1500, limited, 1476, 1476, 24, 24},
		{"gre over 1280", []encap.Layer{gre4}, 1280, limited, 1256, 1280, 24, 24},
		{"gre with everything", []encap.Layer{greLayer(encap.GREInFour, "192.0.2.1", "198.51.100.2", all)}, 1500, limited, 1464, 1464, 36, 36},
		{"gre6", []encap.Layer{gre6}, 1500, encap.DefaultOptions, 1456, 1456, 44, 44},
		{"gre6 with everything", []encap.Layer{greLayer(encap.GREInSix, "2001:db8:a::1", "2001:db8:b::1", all)}, 1500, limited, 1436, 1436, 64, 64},
		{"gre6 over 1280", []encap.Layer{gre6}, 1280, encap.DefaultOptions, 1236, 1280, 44, 44},
		{"4in6", []encap.Layer{dslite}, 1500, encap.DefaultOptions, 1460, 0, 40, 0},
		{"6in6", []encap.Layer{sixes}, 1500, limited, 0, 1452, 0, 48},
		{"gre6 in 6in4", []encap.Layer{gre6, sit}, 1500, encap.DefaultOptions, 1436, 1436, 64, 64},
		{"gre6 in 6in4 over 1280", []encap.Layer{gre6, sit}, 1280, encap.DefaultOptions, 1236, 1280, 64, 64}, // 6in4 carries 1280
		{"6in4 in gre", []encap.Layer{sit, gre4}, 1500, encap.DefaultOptions, 1476, 1456, 24, 44},
		{"6in4 in 4in6", []encap.Layer{sit, dslite}, 1280, encap.DefaultOptions, 1240, 1280, 40, 60},
		{"4in4, static", []encap.Layer{ipip}, 1500, static, 65515, 0, 20, 0},
		{"4in6, static", []encap.Layer{dslite}, 1500, static, 1460, 0, 40, 0},
		{"4in6 in 6in4, static", []encap.Layer{dslite, sit}, 1500, static, 65475, 65515, 60, 20},
		{"four layers", four, 1500, encap.DefaultOptions, 1372, 1372, 128, 128},
		{"four layers, limited", four, 1500, limited, 1356, 1356, 144, 144},
	} {
		s := build(t, c.layers, c.path, c.o)
		if s.Limit(4) != c.four || s.Limit(6) != c.six {
			t.Errorf("%s: %d and %d, want %d and %d", c.name, s.Limit(4), s.Limit(6), c.four, c.six)
		}
		if c.four != 0 && s.Overhead(4) != c.over4 || c.six != 0 && s.Overhead(6) != c.over6 {
			t.Errorf("%s: other overheads than %d and %d", c.name, c.over4, c.over6)
		}
		for version, limit := range map[int]encap.TunnelMTU{4: c.four, 6: c.six} {
			if limit == 0 {
				continue
			}
			for _, size := range []int{int(limit), int(limit) + 1} {
				inner := header4("10.0.0.1", "10.0.0.2", header.ICMP, make([]byte, size-20))
				if version == 6 {
					inner = header6("2001:db8::1", "2001:db8::2", header.ICMPv6, make([]byte, size-40))
				}
				pkt, r := encapsulate(s, inner)
				if fits := size == int(limit); fits && r != drop.None && !s.InPieces(inner, size) || !fits && r != drop.TooBig {
					t.Errorf("%s, IPv%d of %d: %v", c.name, version, size, r)
				}
				// Only IPv4 that routers may fragment is larger than the path MTU.
				if r == drop.None && len(pkt) > int(c.path) && (header.Version(pkt) == 6 || !header.IPv4(pkt).MayFragment()) {
					t.Errorf("%s, IPv%d of %d: %d bytes", c.name, version, size, len(pkt))
				}
			}
		}
	}
}

// TestNewRefusesStacks: impossible stacks are refused, with the name of the layer.
func TestNewRefusesStacks(t *testing.T) {
	fixed := sit
	fixed.Resolver = embedded{}
	wrong := gre6
	wrong.Remote = netip.MustParseAddr("192.0.2.1")
	none := ipip
	none.Remote = netip.Addr{}
	automatic := gre4
	automatic.Resolver = embedded{}
	limited := encap.DefaultOptions
	limited.EncapLimit = 1
	for _, c := range []struct {
		name   string
		layers []encap.Layer
		o      encap.Options
		want   string
	}{
		{"none", nil, encap.DefaultOptions, "1 to 4 layers, not 0"},
		{"five", slices.Repeat([]encap.Layer{gre4}, 5), encap.DefaultOptions, "1 to 4 layers, not 5"},
		{"4in6 in 4in4", []encap.Layer{dslite, ipip}, encap.DefaultOptions, "4in4 does not carry IPv6"},
		{"4in4 in 6in4", []encap.Layer{ipip, sit}, encap.DefaultOptions, "6in4 does not carry IPv4"},
		{"gre in 6in6", []encap.Layer{gre4, sixes}, encap.DefaultOptions, "6in6 does not carry IPv4"},
		{"gre6 in 4in6", []encap.Layer{gre6, dslite}, encap.DefaultOptions, "4in6 does not carry IPv6"},
		{"remote of another family", []encap.Layer{wrong}, encap.DefaultOptions, "gre6 needs a local and a remote IPv6 address"},
		{"no remote", []encap.Layer{none}, encap.DefaultOptions, "4in4 needs a local and a remote IPv4 address"},
		{"gre that finds its addresses", []encap.Layer{automatic}, encap.DefaultOptions, "gre cannot find its addresses itself"},
		{"limit for one layer", []encap.Layer{dslite, sixes, layer(encap.SixInSix, "fc00::1", "fc00::2")}, limited, "encapsulation limit of 1"},
	} {
		_, err := encap.New(c.layers, 1500, c.o, nil, encap.NewRecord())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := encap.New([]encap.Layer{fixed}, 1500, encap.DefaultOptions, nil, encap.NewRecord()); err != nil {
		t.Error(err)
	}
}

// TestPiecesOfStacks: a packet that does not fit is carried in pieces, each of which
// fits, and comes out whole at the other end. Into IPv4 the pieces are separate IPv4
// packets.
func TestPiecesOfStacks(t *testing.T) {
	limited := encap.DefaultOptions
	limited.EncapLimit = 4
	for _, layers := range append(deep(), []encap.Layer{sixes, layer(encap.SixInSix, "fc00::1", "fc00::2")}) {
		for _, path := range []encap.PathMTU{1280, 1300, 1500} {
			for _, o := range []encap.Options{encap.DefaultOptions, limited} {
				t.Run(fmt.Sprintf("%s over %d, limit %d", names(layers), path, o.EncapLimit), func(t *testing.T) {
					testPieces(t, layers, path, o)
				})
			}
		}
	}
}

func testPieces(t *testing.T, layers []encap.Layer, path encap.PathMTU, o encap.Options) {
	s, back := build(t, layers, path, o), build(t, flip(layers), path, o)
	payload := make([]byte, 3000)
	for i := range payload {
		payload[i] = byte(i * 7 / 3)
	}
	for _, inner := range [][]byte{
		header4("10.0.0.1", "10.0.0.2", header.ICMP, payload[:2900]),
		header4("10.0.0.1", "10.0.0.2", header.ICMP, payload[:1481]),
		header6("2001:db8::1", "2001:db8::2", header.ICMPv6, payload[:1240]),
		// Next header, length, limit 3, PadN.
		header6("2001:db8::1", "2001:db8::2", header.DestOptions, append([]byte{header.ICMPv6, 0, 4, 1, 3, 1, 1, 0}, payload[:1232]...)),
	} {
		if _, r := encapsulate(s, inner); r != drop.TooBig {
			continue // it fits, or is not carried
		}
		if !s.InPieces(inner, len(inner)) {
			t.Errorf("%d bytes of IPv%d cannot be carried", len(inner), header.Version(inner))
			continue
		}
		got := pieces(t, s, inner)
		if len(got) < 2 {
			t.Fatalf("%d pieces", len(got))
		}
		for _, p := range got {
			if len(p) > int(path) && (header.Version(p) == 6 || !header.IPv4(p).MayFragment()) {
				t.Errorf("a piece of %d bytes over %d", len(p), path)
			}
		}
		var whole []byte
		if kind := entering(layers, header.Version(inner)); header.Version(inner) == 4 && kind.Over() == 4 {
			whole = joined(t, back, got)
		} else {
			whole = reassemble(t, back, got)
		}
		if !bytes.Equal(whole, inner) {
			t.Errorf("%d pieces\n got %x\nwant %x", len(got), whole, inner)
		}
	}
	df := sum(put(header4("10.0.0.1", "10.0.0.2", header.ICMP, payload), 6, 0x40), 0)
	if s.InPieces(df, len(df)) || s.InPieces(header6("2001:db8::1", "2001:db8::2", header.ICMPv6, payload[:1241]), 1281) {
		t.Error("what must not be fragmented may be")
	}
}

// TestPiecesOfTheLargest: a packet that is too long for a length field with our headers
// is refused.
func TestPiecesOfTheLargest(t *testing.T) {
	limited := encap.DefaultOptions
	limited.EncapLimit = 4
	for _, c := range []struct {
		layer  encap.Layer
		o      encap.Options
		size   int
		refuse bool
	}{
		{dslite, encap.DefaultOptions, 65535, false},
		{dslite, limited, 65527, false},
		{dslite, limited, 65528, true},
		{gre6, encap.DefaultOptions, 65531, false},
		{gre6, encap.DefaultOptions, 65532, true},
		{ipip, encap.DefaultOptions, 65535, false},
	} {
		inner := header4("10.0.0.1", "10.0.0.2", header.ICMP, make([]byte, c.size-20))
		s := build(t, []encap.Layer{c.layer}, 1500, c.o)
		n, refused := 0, 0
		for _, r := range s.EncapsulatePieces(append(make([]byte, encap.Headroom), inner...), encap.Headroom, make([]byte, 2000)) {
			if n++; r == drop.TooBig {
				refused++
			}
		}
		if c.refuse && (n != 1 || refused != 1) || !c.refuse && (n < 44 || refused != 0) {
			t.Errorf("%v, %d bytes: %d pieces, %d refused", c.layer.Kind, c.size, n, refused)
		}
	}
}

// entering returns the kind of layer at which packets of an IP version enter.
func entering(layers []encap.Layer, version int) encap.Kind {
	for _, l := range layers {
		if l.Kind.Carries(version) {
			return l.Kind
		}
	}
	return layers[0].Kind
}

// joined reassembles a packet whose fragments are carried separately.
func joined(t *testing.T, s *encap.Stack, outer [][]byte) []byte {
	t.Helper()
	var whole []byte
	for i, pkt := range outer {
		inner, r := s.Decapsulate(bytes.Clone(pkt))
		if r != drop.None {
			t.Fatal(r)
		}
		ip := header.IPv4(inner)
		if i == 0 {
			whole = bytes.Clone(inner[:20])
		}
		if int(ip.Fragment()&header.OffsetMask)*8 != len(whole)-20 || (ip.Fragment()&header.MF != 0) == (i == len(outer)-1) {
			t.Fatalf("piece %d of %d: %x", i, len(outer), ip[:20])
		}
		whole = append(whole, ip.Payload()...)
	}
	whole[6], whole[7] = 0, 0
	binary.BigEndian.PutUint16(whole[2:], uint16(len(whole)))
	return sum(whole, 0)
}
