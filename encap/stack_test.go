package encap_test

import (
	"net/netip"
	"slices"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/source"
)

// layer returns a layer between two addresses.
func layer(k encap.Kind, local, remote string) encap.Layer {
	return encap.Layer{Kind: k, Local: netip.MustParseAddr(local), Remote: netip.MustParseAddr(remote)}
}

// greLayer returns a layer with GRE options.
func greLayer(k encap.Kind, local, remote string, g framing.GRE) encap.Layer {
	l := layer(k, local, remote)
	if g != (framing.GRE{}) {
		l.Kind = k.With(g)
	}
	return l
}

// flip returns the layers from the other end's point of view.
func flip(layers []encap.Layer) []encap.Layer {
	layers = slices.Clone(layers)
	for i := range layers {
		layers[i].Local, layers[i].Remote = layers[i].Remote, layers[i].Local
	}
	return layers
}

// build returns a stack with its own ends as endpoints.
func build(t testing.TB, layers []encap.Layer, p encap.PathMTU, o encap.Options) *encap.Stack {
	t.Helper()
	return buildWith(t, layers, p, o, encap.NewRecord())
}

func buildWith(t testing.TB, layers []encap.Layer, p encap.PathMTU, o encap.Options, rec *encap.Record) *encap.Stack {
	t.Helper()
	var ends []netip.Addr
	for _, l := range layers {
		ends = append(ends, l.Local)
	}
	s, err := encap.New(layers, p, o, source.New(nil, ends, false), rec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// noAllocs fails the test if a stack, or the one at the other end, allocates memory for a
// packet.
func noAllocs(t *testing.T, out, in *encap.Stack, inner []byte) {
	t.Helper()
	b := append(make([]byte, encap.Headroom), inner...)
	if n := testing.AllocsPerRun(100, func() {
		outer, r := out.Encapsulate(b, encap.Headroom)
		if r != drop.None {
			t.Fatal(r)
		}
		if _, r := in.Decapsulate(outer); r != drop.None {
			t.Fatal(r)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Layers between documentation addresses, of which the tests build stacks.
var (
	gre4   = layer(encap.GREInFour, "192.0.2.1", "198.51.100.2")
	gre6   = layer(encap.GREInSix, "2001:db8:a::1", "2001:db8:b::1")
	sit    = layer(encap.SixInFour, "192.0.2.1", "198.51.100.2")
	ipip   = layer(encap.FourInFour, "192.0.2.1", "198.51.100.2")
	dslite = layer(encap.FourInSix, "2001:db8:a::1", "2001:db8:b::1")
	sixes  = layer(encap.SixInSix, "2001:db8:c::1", "2001:db8:d::1")
)
