package encap_test

import (
	"bytes"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// With a static MTU larger than the path, what may be fragmented is cut outside.
// An IPv4 packet with DF has it outside, too (RFC 2003 section 3.1), and so must
// fit the path.
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
