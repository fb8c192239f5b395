package node

import (
	"net/netip"
	"testing"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/lisp"
	"sixfour/encap/source"
)

// BenchmarkStack compares encapsulation and decapsulation with those of FOU.
func BenchmarkStack(b *testing.B) {
	local, remote := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	r := newRouter(Router{EIDs: prefixes("2001:db8:e1::/48")}, local)
	r.install(&lisp.Record{TTL: 60, EID: lisp.EID{Prefix: netip.MustParsePrefix("2001:db8:e2::/48")}, Locators: []lisp.Locator{{Priority: 1, Weight: 1, Flags: 1, Addr: remote}}}, netip.Addr{}, time.Now())
	o := encap.DefaultOptions
	o.TTL = encap.InheritTTL
	for name, l := range map[string]encap.Layer{
		"lisp": {Kind: encap.InLISP, Local: local, Resolver: r},
		"fou":  {Kind: encap.SixInFour.With(framing.FOU{Local: 5555, Remote: 5555, NoChecksum: true}), Local: local, Remote: remote},
	} {
		out, in := packet("2001:db8:e1::1", "2001:db8:e2::1", 1), packet("2001:db8:e2::1", "2001:db8:e1::1", 1)
		s, err := encap.New([]encap.Layer{l}, 1500, o, source.New(nil, nil, false).For(l.Resolver), encap.NewRecord())
		if err != nil {
			b.Fatal(err)
		}
		buf := append(make([]byte, encap.Headroom), out...)
		b.Run(name+" out", func(b *testing.B) {
			for b.Loop() {
				if _, why := s.EncapsulateSegment(buf, encap.Headroom, nil); why != drop.None {
					b.Fatal(why)
				}
			}
		})
		pkt := append(make([]byte, encap.Headroom), in...)
		if l.Resolver != nil { // the other end
			far := newRouter(Router{EIDs: prefixes("2001:db8:e2::/48")}, remote)
			far.install(&lisp.Record{TTL: 60, EID: lisp.EID{Prefix: netip.MustParsePrefix("2001:db8:e1::/48")}, Locators: []lisp.Locator{{Priority: 1, Weight: 1, Flags: 1, Addr: local}}}, netip.Addr{}, time.Now())
			l.Resolver = far
		}
		l.Local, l.Remote = remote, local
		t, err := encap.New([]encap.Layer{l}, 1500, o, nil, encap.NewRecord())
		if err != nil {
			b.Fatal(err)
		}
		outer, why := t.EncapsulateSegment(pkt, encap.Headroom, nil)
		if why != drop.None {
			b.Fatal(why)
		}
		r.heard.open.Store(false)
		b.Run(name+" in", func(b *testing.B) {
			for b.Loop() {
				if _, why := s.Decapsulate(outer); why != drop.None {
					b.Fatal(why)
				}
			}
		})
	}
}
