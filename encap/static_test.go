package encap_test

import (
	"bytes"
	"fmt"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// TestStaticWholePackets: with a static MTU larger than the path MTU, packets that may
// be fragmented are fragmented by routers. An IPv4 packet with DF has DF in the outer
// header too (RFC 2003 section 3.1), and so must fit the path.
func TestStaticWholePackets(t *testing.T) {
	static := encap.DefaultOptions
	static.StaticMTU = true
	for _, c := range []struct {
		name   string
		layers []encap.Layer
		df     bool
		size   int
		want   drop.Reason
		told   encap.TunnelMTU
	}{
		{"4in4, DF, fits", []encap.Layer{ipip}, true, 1480, drop.None, 1480},
		{"4in4, DF", []encap.Layer{ipip}, true, 1481, drop.TooBig, 1480},
		{"4in4", []encap.Layer{ipip}, false, 1481, drop.None, 65515},
		{"gre, DF", []encap.Layer{gre4}, true, 1477, drop.TooBig, 1476},
		{"4in4 in gre, DF", []encap.Layer{ipip, gre4}, true, 1457, drop.TooBig, 1456},
		{"4in6 in 6in4, whose header is IPv6's, DF", []encap.Layer{dslite, sit}, true, 1481, drop.None, 65475},
	} {
		inner := header4("10.0.0.1", "10.0.0.2", header.ICMP, make([]byte, c.size-header.IPv4Len))
		if c.df {
			inner = sum(put(bytes.Clone(inner), 6, 0x40), 0)
		}
		s := build(t, c.layers, 1500, static)
		if _, r := encapsulate(s, inner); r != c.want {
			t.Errorf("%s: %v, want %v", c.name, r, c.want)
		}
		if got := s.LimitTo(inner); got != c.told {
			t.Errorf("%s: its sender is told %d, want %d", c.name, got, c.told)
		}
	}
}

// TestNeedsPathMTU: with a static MTU the path MTU must still be learnt if routers may
// not fragment all packets.
func TestNeedsPathMTU(t *testing.T) {
	for _, c := range []struct {
		name             string
		layers           []encap.Layer
		static, ignoring bool // whether it is needed in this case
	}{
		{"6in4", []encap.Layer{sit}, false, false},
		{"4in6in4", []encap.Layer{dslite, sit}, false, false},
		{"4in4", []encap.Layer{ipip}, true, false},
		{"gre", []encap.Layer{gre4}, true, false},
		{"4in4 in gre", []encap.Layer{ipip, gre4}, true, false},
		{"4in6", []encap.Layer{dslite}, true, true},
		{"6in4 in 4in6", []encap.Layer{sit, dslite}, true, true},
	} {
		o := encap.DefaultOptions
		if !build(t, c.layers, 1500, o).NeedsPathMTU() {
			t.Errorf("%s: not needed", c.name)
		}
		o.StaticMTU = true
		if got := build(t, c.layers, 1500, o).NeedsPathMTU(); got != c.static {
			t.Errorf("%s, static: %v", c.name, got)
		}
		o.IgnoreDF = true
		if got := build(t, c.layers, 1500, o).NeedsPathMTU(); got != c.ignoring {
			t.Errorf("%s, static, DF ignored: %v", c.name, got)
		}
	}
}

// TestIgnoreDF: if DF is ignored, a packet with DF that does not fit is carried in
// fragments of the outer packet, and arrives whole.
func TestIgnoreDF(t *testing.T) {
	for _, static := range []bool{false, true} {
		for _, c := range []struct {
			name   string
			layers []encap.Layer
		}{
			{"4in4", []encap.Layer{ipip}},
			{"gre", []encap.Layer{gre4}},
			{"4in4 in gre", []encap.Layer{ipip, gre4}},
			{"4in6", []encap.Layer{dslite}},
			{"4in6 in 6in4", []encap.Layer{dslite, sit}},
			{"4in4 in 4in6", []encap.Layer{ipip, dslite}},
		} {
			name := fmt.Sprintf("%s, static %v", c.name, static)
			inner := sum(put(header4("10.0.0.1", "10.0.0.2", header.UDP, bytes.Repeat([]byte{1, 2, 3}, 493)), 6, 0x40), 0)
			o := encap.DefaultOptions
			o.StaticMTU = static
			if s := build(t, c.layers, 1400, o); s.InPieces(inner, len(inner)) {
				t.Errorf("%s: may be cut by default", name)
			}
			o.IgnoreDF = true
			s := build(t, c.layers, 1400, o)
			if !s.InPieces(inner, len(inner)) || int(s.LimitTo(inner)) != int(s.Limit(4)) {
				t.Fatalf("%s: may not be cut", name)
			}
			// A packet that fits is not affected.
			small := sum(put(header4("10.0.0.1", "10.0.0.2", header.UDP, make([]byte, 100)), 6, 0x40), 0)
			if _, r := encapsulate(s, small); r != drop.None {
				t.Errorf("%s: %v", name, r)
			}
			outer, r := encapsulate(s, inner)
			if r == drop.None { // the sender must fragment it
				if header.Version(outer) == 4 && !header.IPv4(outer).MayFragment() {
					t.Errorf("%s: outer DF", name)
				}
				continue
			}
			if r != drop.TooBig {
				t.Fatalf("%s: %v", name, r)
			}
			n, total := 0, 0
			for p, r := range s.EncapsulatePieces(append(make([]byte, encap.Headroom), inner...), encap.Headroom, make([]byte, encap.Headroom+65535)) {
				if r != drop.None || len(p) > 1400 {
					t.Fatalf("%s: %d bytes, %v", name, len(p), r)
				}
				if n++; header.Version(p) == 4 && c.layers[0].Kind.Over() == 4 && !header.IPv4(p).MayFragment() {
					t.Errorf("%s: piece %d has DF", name, n)
				}
				total += len(p)
			}
			if n != 2 || total < len(inner)+encap.Overhead(c.layers, o) {
				t.Errorf("%s: %d pieces of %d bytes", name, n, total)
			}
		}
	}
}
