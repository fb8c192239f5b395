package encap_test

import (
	"bytes"
	"net/netip"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/source"
)

// kinds returns every kind of layer in the table of modes, once.
func kinds() (all []encap.Kind) {
	seen := make(map[encap.Kind]bool)
	for _, m := range encap.Modes {
		for _, k := range m.Layers {
			if !seen[k] {
				seen[k] = true
				all = append(all, k)
			}
		}
	}
	return all
}

// TestHeadroom: the headroom is enough for the longest header of every framing in a stack of
// the greatest depth.
func TestHeadroom(t *testing.T) {
	for _, k := range kinds() {
		p := k.Properties()
		if need := encap.MaxDepth * (header.IPv6Len + header.EncapLimitLen + p.Longest); need > encap.Headroom {
			t.Errorf("%v: a stack of %d layers needs %d bytes of headroom, and there are %d", k, encap.MaxDepth, need, encap.Headroom)
		}
		if p.Overhead > p.Longest || p.OverheadBack > p.Longest {
			t.Errorf("%v: overheads %d and %d, of at most %d", k, p.Overhead, p.OverheadBack, p.Longest)
		}
	}
}

// TestFramings: what Properties say holds for the header that Append makes.
func TestFramings(t *testing.T) {
	all := kinds()
	all = append(all, encap.GREInFour.With(framing.GRE{Keyed: true, Key: 7, Checksum: true, Sequence: true}),
		encap.GREInSix.With(framing.GRE{Apart: true, InKeyed: true, InKey: 7}), encap.GREInFour.With(framing.GRE{Apart: true, Keyed: true, Key: 7}))
	for _, l := range udpKinds() {
		switch f := l.Kind.Framing().(type) { // Finish writes the port of a flow
		case framing.FOU:
			f.Flow = false
			all = append(all, l.Kind.With(f))
		case framing.GUE:
			f.Flow = false
			all = append(all, l.Kind.With(f))
		}
	}
	for i, k := range all {
		f, p := k.Framing().Codec(new(framing.State)), k.Properties()
		for _, version := range []int{4, 6} {
			if !k.Carries(version) {
				continue
			}
			b := f.Append([]byte{1, 2, 3}, version)
			if len(b) != 3+p.Overhead || !bytes.Equal(b[:3], []byte{1, 2, 3}) {
				t.Errorf("%v: a header of %d bytes, not %d", k, len(b)-3, p.Overhead)
			}
			if _, flow := k.Framing().(framing.LISP); flow {
				b[3] |= 0xc0 // Finish writes the port of a flow
			}
			inner, size, got, ok := f.Unquote(append(b[3:], byte(version<<4)), p.Overhead+100)
			if !ok || len(inner) != 1 || size != 100 || got != version {
				t.Errorf("%v: our own header is unquoted as %x, %d bytes, version %d, %v", k, inner, size, got, ok)
			}
			for n := range p.Overhead {
				if inner, _, _, ok := f.Unquote(b[3:3+n], p.Overhead+100); !ok || len(inner) > 0 {
					t.Errorf("%v: our own header, cut off after %d bytes: %x, %v", k, n, inner, ok)
				}
			}
		}
		if p.Ports.Local == 0 && p.Ports.Remote != 0 {
			t.Errorf("%v: ports %v", k, p.Ports)
		}
		for _, other := range all[:i] {
			if o := other.Properties(); k.Framing() == other.Framing() && o.Identity != p.Identity {
				t.Errorf("%v: two identities", k)
			}
		}
	}
}

// TestOpen: a packet without its delivery header, as the kernel hands it over, gives the
// same inner packet as a whole one, if it is between the two ends.
func TestOpen(t *testing.T) {
	inner4, inner6 := header4("10.0.0.1", "10.0.0.2", header.UDP, make([]byte, 60)), header6("2001:db8:1::1", "2001:db8:2::1", header.UDP, make([]byte, 60))
	for _, layers := range [][]encap.Layer{{sit}, {gre4}, {gre6}, {dslite, sit}, {dslite, gre4}} {
		inner := inner4
		if layers[0].Kind == encap.SixInFour {
			inner = inner6
		}
		for _, ecn := range []byte{header.NotECT, header.CE} {
			outer, r := encapsulate(build(t, layers, 1500, encap.DefaultOptions), inner)
			if r != drop.None {
				t.Fatal(r)
			}
			at := header.IPv4Len
			if header.Version(outer) == 6 {
				at = header.IPv6Len
			}
			o := header.OuterOf(outer)
			o.TOS |= ecn
			s := build(t, flip(layers), 1500, encap.DefaultOptions)
			for _, c := range []struct {
				name string
				o    func(o *header.Outer)
				want drop.Reason
			}{
				{"another source", func(o *header.Outer) { o.From = netip.AddrPortFrom(o.From.Addr().Next(), 0) }, drop.ForeignSource},
				{"another destination", func(o *header.Outer) { o.At = netip.AddrPortFrom(o.At.Addr().Next(), 0) }, drop.ForeignDestination},
			} {
				o := o
				c.o(&o)
				if _, r := s.Open(o, bytes.Clone(outer[at:])); r != c.want {
					t.Errorf("%v, %s: %v, want %v", layers[0].Kind, c.name, r, c.want)
				}
			}
			got, r := s.Open(o, bytes.Clone(outer[at:]))
			want := drop.None
			if ecn == header.CE && len(layers) == 1 {
				want = drop.Congestion // the inner packet is not ECN capable
			}
			if ecn == header.CE && len(layers) == 2 { // nor is the packet of the layer inside
				want = drop.Congestion
			}
			if r != want || r == drop.None && !bytes.Equal(got, inner) {
				t.Errorf("%v: %v, %x", layers[0].Kind, r, got)
			}
		}
	}
}

// TestOpenNoAllocs: nor does a packet without its delivery header cost an allocation.
func TestOpenNoAllocs(t *testing.T) {
	for _, l := range []encap.Layer{gre4, gre6} {
		outer, r := encapsulate(build(t, []encap.Layer{l}, 1500, encap.DefaultOptions), header4("10.0.0.1", "10.0.0.2", header.UDP, make([]byte, 60)))
		if r != drop.None {
			t.Fatal(r)
		}
		s, err := encap.New(flip([]encap.Layer{l}), 1500, encap.DefaultOptions, source.New(nil, nil, false), encap.NewRecord())
		if err != nil {
			t.Fatal(err)
		}
		o, at := header.OuterOf(outer), len(outer)-80-4
		if n := testing.AllocsPerRun(100, func() {
			if _, r := s.Open(o, outer[at:]); r != drop.None {
				t.Fatal(r)
			}
		}); n != 0 {
			t.Errorf("%v: %v allocations", l.Kind, n)
		}
	}
}
