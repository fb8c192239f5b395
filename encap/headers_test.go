package encap_test

import (
	"bytes"
	"net/netip"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// TestHeaders: what Headers returns, with the fields that differ from packet to packet filled
// in, is what Encapsulate writes. Package transport/kernel compares every packet.
func TestHeaders(t *testing.T) {
	inner := header4("10.0.0.1", "10.0.0.2", header.UDP, make([]byte, 40))
	s := build(t, layersOf(t, "4in6in4"), 1500, encap.DefaultOptions)
	h, err := s.Headers(4)
	if err != nil {
		t.Fatal(err)
	}
	pkt, r := encapsulate(s, inner)
	if r != drop.None {
		t.Fatal(r)
	}
	want := bytes.Clone(pkt[:header.IPv4Len+header.IPv6Len])
	for _, at := range []int{1, 2, 3, 8, 10, 11, 20, 21, 22, 23, 24, 25, 27} { // TOS, length, TTL, checksum; the first word, length, hop limit
		want[at] = 0
	}
	if !bytes.Equal(h.Bytes, want) || h.Over != 4 || h.TTL != 64 || h.HopLimit != 64 || h.Limit != 1440 || h.NeedsDF {
		t.Errorf("got %+v, want headers % x", h, want)
	}
	if h, err := s.Headers(6); err != nil || len(h.Bytes) != header.IPv4Len {
		t.Errorf("IPv6: got %+v, %v, want an IPv4 header", h, err)
	}
}

// TestHeadersRefused: a stack whose headers depend on more than the packet's own header has no
// description, and the error says why.
func TestHeadersRefused(t *testing.T) {
	static, cut, limit := encap.DefaultOptions, encap.DefaultOptions, encap.DefaultOptions
	static.StaticMTU = true
	cut.StaticMTU, cut.IgnoreDF = true, true
	limit.EncapLimit = 4
	gre := layersOf(t, "gre")
	gre[0].Kind = gre[0].Kind.With(framing.GRE{Sequence: true})
	for _, c := range []struct {
		name    string
		layers  []encap.Layer
		path    encap.PathMTU
		o       encap.Options
		version int
		want    string
	}{
		{"IPv4 in 6in4", layersOf(t, "6in4"), 1500, encap.DefaultOptions, 4, "the mode does not carry the packets"},
		{"static MTU", layersOf(t, "6in4"), 1500, static, 6, "the outer packets may be fragmented, and need identifications"},
		{"static MTU, with DF", layersOf(t, "4in4"), 1500, static, 4, ""},
		{"static MTU, DF ignored", layersOf(t, "4in4"), 1500, cut, 4, "the outer packets may be fragmented, and need identifications"},
		{"small path MTU", layersOf(t, "6in4"), 1290, encap.DefaultOptions, 6, "the outer packets may be fragmented, and need identifications"},
		{"encapsulation limit", layersOf(t, "4in6"), 1500, limit, 4, "the packets have an encapsulation limit"},
		{"sequence numbers", gre, 1500, encap.DefaultOptions, 4, "the header between the IP headers has a field that differs from packet to packet"},
		{"two IPv4 headers", append(layersOf(t, "4in4"), layersOf(t, "4in4")...), 1500, encap.DefaultOptions, 4, "the layers are not one of IPv4 or IPv6, or IPv6 in IPv4"},
	} {
		got := ""
		if h, err := build(t, c.layers, c.path, c.o).Headers(c.version); err != nil {
			got = err.Error()
		} else if !h.NeedsDF {
			t.Errorf("%s: NeedsDF is not set", c.name)
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// layersOf returns the layers of a mode between documentation addresses.
func layersOf(t *testing.T, name string) []encap.Layer {
	t.Helper()
	m, ok := encap.ModeByName(name)
	if !ok {
		t.Fatalf("no mode %s", name)
	}
	return m.Between(encap.Endpoints{
		Local: netip.MustParseAddr("203.0.113.1"), Remote: netip.MustParseAddr("203.0.113.2"),
		Local6: netip.MustParseAddr("2001:db8::1"), Remote6: netip.MustParseAddr("2001:db8::2"),
	})
}
