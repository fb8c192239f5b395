package encap_test

import (
	"net/netip"
	"testing"

	"sixfour/encap"
)

// stackModes are modes of one layer and of two, bare and with a GRE header.
var stackModes = []string{"6in4", "4in6in4", "gre", "gre6", "6in6"}

// layersFor returns the layers of a mode between two fixed endpoints.
func layersFor(tb testing.TB, mode string) []encap.Layer {
	tb.Helper()
	m, ok := encap.ModeByName(mode)
	if !ok {
		tb.Fatalf("no mode %s", mode)
	}
	return m.Between(encap.Endpoints{
		Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("198.51.100.1"),
		Local6: netip.MustParseAddr("fc00::1"), Remote6: netip.MustParseAddr("fc00::2"),
	})
}

// BenchmarkNew measures the time and the memory of one peer's stack.
func BenchmarkNew(b *testing.B) {
	for _, mode := range stackModes {
		b.Run(mode, func(b *testing.B) {
			layers, rec := layersFor(b, mode), encap.NewRecord()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := encap.New(layers, 1500, encap.DefaultOptions, nil, rec); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Each object that New allocates exists once a peer, and there may be 100,000 peers. A
// layer has one codec, and layers that write the same headers for the packets of both IP
// versions have one template.
func TestNewAllocs(t *testing.T) {
	for mode, most := range map[string]float64{"6in4": 6, "4in6in4": 10, "gre": 10, "gre6": 13, "6in6": 9} {
		layers, rec := layersFor(t, mode), encap.NewRecord()
		got := testing.AllocsPerRun(100, func() {
			if _, err := encap.New(layers, 1500, encap.DefaultOptions, nil, rec); err != nil {
				t.Fatal(err)
			}
		})
		if got > most {
			t.Errorf("%s: %v allocations, want at most %v", mode, got, most)
		}
	}
}
