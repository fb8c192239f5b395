package encap_test

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// byPorts is a resolver for tests: packets go to the first address, and fragments, which have
// no ports, to the second one.
type byPorts [2]netip.Addr

func (byPorts) CarriesIPv4() {}

func (e byPorts) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	to := e[0]
	if header.Version(inner) == 4 && header.IPv4(inner).Fragment()&(header.MF|header.OffsetMask) != 0 {
		to = e[1]
	}
	return resolve.EndpointOf(netip.AddrPortFrom(to, framing.LISPPort)), drop.None
}

func (byPorts) From(_, _ resolve.Endpoint, _ []byte) drop.Reason { return drop.None }

// Too large IPv4 packets that may be fragmented become two halves before they enter LISP, over
// either IP version (RFC 9300 section 5.4.1), or more fragments if a half is too large. What counts
// is the path MTU to the locator to which the fragments go.
func TestHalves(t *testing.T) {
	for _, over := range []struct {
		kind            encap.Kind
		local           string
		whole, fragment string // locators
		header          int
	}{
		{encap.InLISP, "192.0.2.1", "198.51.100.2", "198.51.100.3", 36},
		{encap.InLISP6, "2001:db8::1", "2001:db8::2", "2001:db8::3", 56},
	} {
		ends := byPorts{netip.MustParseAddr(over.whole), netip.MustParseAddr(over.fragment)}
		l := encap.Layer{Kind: over.kind, Local: netip.MustParseAddr(over.local), Resolver: ends}
		most := 1500 - over.header
		for _, f := range []struct {
			size int
			mtu  map[string]encap.PathMTU // recorded for locators
			want []int                    // sizes of the fragments
		}{
			{size: 1500, want: []int{764, 756}},
			{size: 1477, want: []int{756, 741}},
			{size: 1500, mtu: map[string]encap.PathMTU{over.whole: 1400}, want: []int{764, 756}},
			{size: 1400, mtu: map[string]encap.PathMTU{over.whole: 1400, over.fragment: 1350}, want: []int{716, 704}},
			{size: 9000, want: nil},
			{size: 9000, mtu: map[string]encap.PathMTU{over.fragment: 1400}, want: nil},
		} {
			rec := encap.NewRecord()
			for at, mtu := range f.mtu {
				rec.SetMTU(netip.MustParseAddr(at), mtu, time.Unix(1e9, 0))
			}
			s := buildWith(t, []encap.Layer{l}, 1500, encap.DefaultOptions, rec)
			payload := make([]byte, f.size-20)
			for i := range payload {
				payload[i] = byte(i * 7)
			}
			pkt := header4("10.1.0.1", "10.2.0.1", header.ICMP, payload)
			if _, r := encapsulate(s, pkt); r != drop.TooBig || !s.InPieces(pkt, len(pkt)) {
				t.Fatalf("%d bytes: %v", f.size, r)
			}
			limit := most
			if mtu := f.mtu[over.fragment]; mtu != 0 {
				limit = int(mtu) - over.header
			}
			var joined []byte
			more := true
			var sizes []int
			buf := append(make([]byte, encap.Headroom), pkt...)
			for outer, r := range s.EncapsulatePieces(buf, encap.Headroom, make([]byte, encap.Headroom+1500)) {
				if r != drop.None {
					t.Fatalf("%d bytes, %v: %v", f.size, f.mtu, r)
				}
				if o := s.Outer(outer); o.At.Addr() != ends[1] {
					t.Errorf("a fragment goes to %v", o.At)
				}
				inner := outer[over.header:]
				if len(inner) > limit {
					t.Errorf("%d bytes, %v: a fragment of %d bytes", f.size, f.mtu, len(inner))
				}
				sizes = append(sizes, len(inner))
				ip := header.IPv4(inner)
				if !more || int(ip.Fragment()&header.OffsetMask)*8 != len(joined) {
					t.Errorf("%d bytes, %v: a fragment with %#x after %d bytes", f.size, f.mtu, ip.Fragment(), len(joined))
				}
				joined, more = append(joined, ip.Payload()...), ip.Fragment()&header.MF != 0
			}
			if more || !bytes.Equal(joined, payload) {
				t.Errorf("%d bytes, %v: the fragments are not the packet", f.size, f.mtu)
			}
			if f.want != nil && (len(sizes) != 2 || sizes[0] != f.want[0] || sizes[1] != f.want[1]) {
				t.Errorf("%d bytes, %v: fragments of %d bytes, want %d", f.size, f.mtu, sizes, f.want)
			}
		}
		// A packet with DF, and one of IPv6, are refused.
		s := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions)
		df := header4("10.1.0.1", "10.2.0.1", header.ICMP, make([]byte, most-19))
		df[6] = header.DF >> 8
		header.IPv4(df).SetChecksum()
		for _, pkt := range [][]byte{df, header6("2001:db8:e1::1", "2001:db8:e2::1", header.UDP, make([]byte, most-39))} {
			if _, r := encapsulate(s, pkt); r != drop.TooBig || s.InPieces(pkt, len(pkt)) || int(s.LimitTo(pkt)) != most {
				t.Errorf("%x: %v, limit %d", pkt[:20], r, s.LimitTo(pkt))
			}
		}
	}
}

// unresolved is a resolver for tests, which knows no outer address.
type unresolved struct{ byPorts }

func (unresolved) To([]byte) (resolve.Endpoint, drop.Reason) {
	return resolve.Endpoint{}, drop.Unresolved
}

// While the outer address of an inner packet is not known, its fragments are returned, so that they
// can wait for it. Those of a layer's packet are not.
func TestUnresolvedPieces(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers []encap.Layer
		inner  []int // sizes of the inner fragments that are returned
	}{
		{"LISP", []encap.Layer{{Kind: encap.InLISP, Local: netip.MustParseAddr("192.0.2.1"), Resolver: unresolved{}}}, []int{764, 756}},
		{"LISP over IPv6", []encap.Layer{{Kind: encap.InLISP6, Local: netip.MustParseAddr("2001:db8::1"), Resolver: unresolved{}}}, []int{764, 756}},
		{"4in6 in an automatic layer", []encap.Layer{layer(encap.FourInSix, here, there), {Kind: encap.SixInFour, Local: netip.MustParseAddr("192.0.2.1"), Resolver: unresolved{}}}, nil},
	} {
		s := build(t, c.layers, 1500, encap.DefaultOptions)
		pkt := header4("10.1.0.1", "10.2.0.1", header.ICMP, make([]byte, 1480))
		var sizes []int
		for got, r := range s.EncapsulatePieces(append(make([]byte, encap.Headroom), pkt...), encap.Headroom, make([]byte, encap.Headroom+1500)) {
			if r != drop.Unresolved {
				t.Fatalf("%s: %v", c.name, r)
			}
			if got == nil {
				continue
			}
			ip, why := header.ParseIPv4(got)
			if why != drop.None || !ip.IsFragment() {
				t.Errorf("%s: %v, %x", c.name, why, got)
			}
			sizes = append(sizes, len(got))
		}
		if !slices.Equal(sizes, c.inner) {
			t.Errorf("%s: %d, want %d", c.name, sizes, c.inner)
		}
	}
}
