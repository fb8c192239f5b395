package encap_test

import (
	"bytes"
	"slices"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// TestEncapLimitOfStacks: each layer over IPv6 that directly contains another decrements
// the encapsulation limit, ours or the packet's (RFC 2473 section 4.1.1).
func TestEncapLimitOfStacks(t *testing.T) {
	third := layer(encap.SixInSix, "fc00::1", "fc00::2")
	sums := greLayer(encap.GREInFour, "192.0.2.1", "198.51.100.2", framing.GRE{Checksum: true})
	four := header4("10.0.0.1", "10.0.0.2", header.ICMP, nil)
	six := header6("2001:db8::1", "2001:db8::2", header.NoNextHeader, nil)
	carrying := func(limit byte) []byte { // next header, length, limit, PadN
		return header6("2001:db8::1", "2001:db8::2", header.DestOptions, []byte{header.NoNextHeader, 0, 4, 1, limit, 1, 1, 0})
	}
	for _, c := range []struct {
		name   string
		layers []encap.Layer
		limit  int
		inner  []byte
		want   []int // outermost first; -1: a header without limit
		r      drop.Reason
	}{
		{"one", []encap.Layer{dslite}, 4, four, []int{4}, drop.None},
		{"two", []encap.Layer{dslite, sixes}, 4, four, []int{3, 4}, drop.None},
		{"two of none", []encap.Layer{dslite, sixes}, encap.NoEncapLimit, four, []int{-1, -1}, drop.None},
		{"the outer one of two", []encap.Layer{dslite, sixes}, 4, six, []int{4}, drop.None},
		{"three", []encap.Layer{dslite, sixes, third}, 2, four, []int{0, 1, 2}, drop.None},
		{"carried", []encap.Layer{sixes}, encap.NoEncapLimit, carrying(9), []int{8}, drop.None},
		{"carried, two", []encap.Layer{sixes, third}, encap.NoEncapLimit, carrying(9), []int{7, 8}, drop.None},
		{"carried, two, of our own", []encap.Layer{sixes, third}, 200, carrying(9), []int{7, 8}, drop.None},
		{"carried, gre6", []encap.Layer{gre6, third}, encap.NoEncapLimit, carrying(2), []int{0, 1}, drop.None},
		{"carried, just enough", []encap.Layer{sixes, third}, encap.NoEncapLimit, carrying(2), []int{0, 1}, drop.None},
		{"carried, not enough for the second", []encap.Layer{sixes, third}, encap.NoEncapLimit, carrying(1), nil, drop.EncapLimit},
		{"carried, 0", []encap.Layer{sixes}, 4, carrying(0), nil, drop.EncapLimit},
		{"carried into IPv4", []encap.Layer{sixes, sums}, encap.NoEncapLimit, carrying(3), []int{2}, drop.None},
		{"carried, past IPv4", []encap.Layer{sixes, sums, dslite}, encap.NoEncapLimit, carrying(3), []int{-1, 2}, drop.None},
		{"carried, past IPv4, of our own", []encap.Layer{sixes, sums, dslite}, 6, carrying(3), []int{6, 2}, drop.None},
		{"carried 0 into IPv4 alone", []encap.Layer{sit}, encap.NoEncapLimit, carrying(0), []int{}, drop.None},
	} {
		o := encap.DefaultOptions
		o.EncapLimit = c.limit
		pkt, r := encapsulate(build(t, c.layers, 1500, o), c.inner)
		if r != c.r {
			t.Errorf("%s: %v, want %v", c.name, r, c.r)
			continue
		}
		if r != drop.None {
			continue
		}
		var got []int
		for i, at := len(c.layers)-1, 0; at < len(pkt)-len(c.inner); i-- {
			switch {
			case pkt[at]>>4 == 4:
				at += 20
			case pkt[at+6] == header.DestOptions:
				got = append(got, int(pkt[at+44]))
				at += 48
			default:
				got = append(got, -1)
				at += 40
			}
			at += c.layers[i].Kind.Properties().Overhead
		}
		if !slices.Equal(got, c.want) && len(got)+len(c.want) > 0 {
			t.Errorf("%s: limits %v, want %v", c.name, got, c.want)
		}
		back, r := build(t, flip(c.layers), 1500, o).Decapsulate(pkt)
		if r != drop.None || !bytes.Equal(back, c.inner) {
			t.Errorf("%s, back: %v %x", c.name, r, back)
		}
	}
	// The reported MTU takes the option that the packet needs into account.
	s := build(t, []encap.Layer{sixes}, 1500, encap.DefaultOptions)
	if with, without := s.LimitTo(carrying(9)), s.LimitTo(six); with != 1452 || without != 1460 {
		t.Errorf("%d with a limit, %d without", with, without)
	}
	// In pieces, too, a limit that is used up refuses the packet, once.
	large := header6("2001:db8::1", "2001:db8::2", header.DestOptions, append([]byte{header.NoNextHeader, 0, 4, 1, 0, 1, 1, 0}, make([]byte, 1232)...))
	s = build(t, []encap.Layer{sixes}, 1280, encap.DefaultOptions)
	n := 0
	for _, r := range s.EncapsulatePieces(append(make([]byte, encap.Headroom), large...), encap.Headroom, make([]byte, 2000)) {
		if n++; r != drop.EncapLimit {
			t.Errorf("in pieces: %v", r)
		}
	}
	if n != 1 {
		t.Errorf("refused %d times", n)
	}
}
