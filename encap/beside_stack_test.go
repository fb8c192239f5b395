package encap_test

import (
	"bytes"
	"net/netip"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/source"
)

// Packets that enter a stack at any layer, with a tunnel encapsulation limit and in pieces, too,
// leave with the second protocol of the outermost layer.
func TestBesideInStack(t *testing.T) {
	local6, remote6 := netip.MustParseAddr("2001:db8:44:c633:6402:9cbb:c0a8:10a"), netip.MustParseAddr("2001:db8:44:c633:6402:9cbc:c0a8:10b")
	r := toForm{from: new(resolve.Endpoint)}
	r.to = resolve.EndpointOf(netip.MustParseAddrPort("192.168.1.11:0"))
	r.to.Form = 1
	v4 := func(size int) []byte {
		b := make(header.IPv4, size)
		copy(b, []byte{0x45, 0, byte(size >> 8), byte(size), 0, 0, 0, 0, 64, header.UDP, 0, 0, 10, 0, 4, 1, 10, 0, 4, 2})
		b.SetChecksum()
		return b
	}
	v6 := func(size int, next byte, head ...byte) []byte {
		b := make([]byte, size)
		b[0], b[4], b[5], b[6], b[7] = 0x60, byte((size-header.IPv6Len)>>8), byte(size-header.IPv6Len), next, 64
		copy(b[8:], netip.MustParseAddr("2001:db8:1::1").AsSlice())
		copy(b[24:], netip.MustParseAddr("2001:db8:1::2").AsSlice())
		copy(b[header.IPv6Len:], head)
		return b
	}
	for _, c := range []struct {
		name   string
		kind   encap.Kind
		inner  []byte
		pieces bool
	}{
		{"IPv4", encap.FourInSix, v4(60), false},
		{"IPv6", encap.SixInSix, v6(60, 59), false},
		{"IPv6 with a limit", encap.SixInSix, v6(60, 60, 59, 0, 4, 1, 3, 1, 1, 0), false},
		{"IPv4 in pieces", encap.FourInSix, v4(1450), true},
	} {
		s, err := encap.New([]encap.Layer{
			{Kind: c.kind, Local: local6, Remote: remote6},
			{Kind: encap.InSixA44, Local: netip.MustParseAddr("192.168.1.10"), Resolver: r},
		}, 1500, encap.DefaultOptions, source.New(nil, nil, false), encap.NewRecord())
		if err != nil {
			t.Fatal(err)
		}
		check := func(got []byte, why drop.Reason) {
			if why != drop.None || header.IPv4(got).Protocol() != header.ProtoIPv6 || header.IPv6(got[header.IPv4Len:]).Dst() != remote6 {
				t.Errorf("%s: %x, %v", c.name, got, why)
			}
		}
		b := append(make([]byte, encap.Headroom), c.inner...)
		if !c.pieces {
			got, why := s.Encapsulate(b, encap.Headroom)
			check(got, why)
			if !bytes.HasSuffix(got, c.inner) {
				t.Errorf("%s: %x does not end with the inner packet", c.name, got)
			}
			continue
		}
		n := 0
		for got, why := range s.EncapsulatePieces(b, encap.Headroom, make([]byte, encap.Headroom+65536)) {
			check(got, why)
			n++
		}
		if n < 2 {
			t.Errorf("%s: %d pieces", c.name, n)
		}
	}
}
