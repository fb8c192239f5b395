package bench

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/source"
)

var (
	left = encap.Endpoints{
		Local: netip.MustParseAddr("203.0.113.10"), Remote: netip.MustParseAddr("203.0.113.20"),
		Local6: netip.MustParseAddr("fc00::1"), Remote6: netip.MustParseAddr("fc00::2"),
	}
	right = encap.Endpoints{Local: left.Remote, Remote: left.Local, Local6: left.Remote6, Remote6: left.Local6}
	sizes = []int{64, 576, 1440}
)

// modes are the measured modes: those of the configuration, gre with all options, and
// stacks of several.
var modes = []string{"4in6in4", "6in4", "4in4", "4in6", "6in6", "gre", "gre6", "gre key csum seq", "gre6 in 6in4", "6in4 to anywhere"}

// layersOf returns the layers of a mode.
func layersOf(tb testing.TB, mode string, e encap.Endpoints) []encap.Layer {
	tb.Helper()
	var layers []encap.Layer
	for _, name := range strings.Split(mode, " in ") {
		word, rest, _ := strings.Cut(name, " ")
		m, ok := encap.ModeByName(word)
		if !ok {
			tb.Fatalf("no mode %s", mode)
		}
		layers = append(layers, m.Between(e)...)
		switch l := &layers[len(layers)-1]; rest {
		case "key csum seq":
			l.Kind = l.Kind.With(framing.GRE{Keyed: true, Key: 7, Checksum: true, Sequence: true})
		case "to anywhere":
			l.Remote, l.Resolver = netip.Addr{}, anywhere(binary.BigEndian.Uint32(e.Remote.AsSlice()))
		}
	}
	return layers
}

// anywhere is a resolver that always returns the same address, to measure the cost of
// calling one.
type anywhere uint32

func (a anywhere) To([]byte) (resolve.Endpoint, drop.Reason) {
	return resolve.Endpoint4(uint32(a)), drop.None
}

func (a anywhere) From(_, _ resolve.Endpoint, _ []byte) drop.Reason { return drop.None }

// stack returns a stack whose path carries the largest of the sizes in every mode.
func stack(tb testing.TB, mode string, e encap.Endpoints, o encap.Options) *encap.Stack {
	tb.Helper()
	s, err := encap.New(layersOf(tb, mode, e), 1504, o, source.New(nil, []netip.Addr{e.Local, e.Local6}, false), encap.NewRecord())
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// packet returns a UDP packet of size bytes after the headroom, of the IP version that
// the mode carries innermost.
func packet(mode string, size int) []byte {
	b := make([]byte, encap.Headroom+size)
	p := b[encap.Headroom:]
	if strings.HasPrefix(mode, "6") {
		p[0] = 0x60
		binary.BigEndian.PutUint16(p[4:], uint16(size-header.IPv6Len))
		p[6], p[7] = header.UDP, 64
		copy(p[8:], netip.MustParseAddr("2001:db8::1").AsSlice())
		copy(p[24:], netip.MustParseAddr("2001:db8::2").AsSlice())
		return b
	}
	p[0] = 0x45
	binary.BigEndian.PutUint16(p[2:], uint16(size))
	p[8], p[9] = 64, header.UDP
	copy(p[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2, 0x30, 0x39, 0, 80})
	header.IPv4(p).SetChecksum()
	return b
}

func BenchmarkEncapsulate(b *testing.B) {
	for _, mode := range modes {
		for _, size := range sizes {
			b.Run(fmt.Sprintf("%s/%d", mode, size), func(b *testing.B) {
				s, p := stack(b, mode, left, encap.DefaultOptions), packet(mode, size)
				b.ReportAllocs()
				for b.Loop() {
					if _, r := s.Encapsulate(p, encap.Headroom); r != drop.None {
						b.Fatal(r)
					}
				}
			})
		}
	}
}

func BenchmarkDecapsulate(b *testing.B) {
	for _, mode := range modes {
		for _, size := range sizes {
			b.Run(fmt.Sprintf("%s/%d", mode, size), func(b *testing.B) {
				outer, r := stack(b, mode, left, encap.DefaultOptions).Encapsulate(packet(mode, size), encap.Headroom)
				if r != drop.None {
					b.Fatal(r)
				}
				s := stack(b, mode, right, encap.DefaultOptions)
				next := numbered(mode, outer)
				b.ReportAllocs()
				for b.Loop() {
					if next != nil {
						next()
					}
					if _, r := s.Decapsulate(outer); r != drop.None {
						b.Fatal(r)
					}
				}
			})
		}
	}
}

// numbered returns a function that changes a packet with a sequence number to the next
// one, and updates its checksum (RFC 1624). For other modes it returns nil.
func numbered(mode string, outer []byte) func() {
	if !strings.HasSuffix(mode, "seq") {
		return nil
	}
	gre := outer[header.IPv4Len:]
	return func() {
		n := binary.BigEndian.Uint32(gre[12:])
		sum := header.Update(binary.BigEndian.Uint16(gre[4:]), uint16(n), uint16(n+1))
		sum = header.Update(sum, uint16(n>>16), uint16((n+1)>>16))
		binary.BigEndian.PutUint16(gre[4:], sum)
		binary.BigEndian.PutUint32(gre[12:], n+1)
	}
}

// BenchmarkComposition measures the cost of building the double encapsulation from two
// layers: it compares the stack with a single function that writes the same bytes.
func BenchmarkComposition(b *testing.B) {
	o := encap.DefaultOptions
	o.FlowLabel = encap.FlowLabel{Source: encap.FlowLabelFixed, Fixed: 0xabcde}
	p := packet("4in6in4", 64)
	s := stack(b, "4in6in4", left, o)
	b.Run("layers", func(b *testing.B) {
		for b.Loop() {
			if _, r := s.Encapsulate(p, encap.Headroom); r != drop.None {
				b.Fatal(r)
			}
		}
	})
	f := newFused(left, 0xabcde)
	b.Run("fused", func(b *testing.B) {
		for b.Loop() {
			if _, r := f.encapsulate(p, encap.Headroom); r != drop.None {
				b.Fatal(r)
			}
		}
	})
}

// fused is the double encapsulation as one function, for comparison.
type fused struct {
	tmpl [60]byte
	sum  uint32
}

func newFused(e encap.Endpoints, label uint32) *fused {
	f := new(fused)
	f.tmpl[0], f.tmpl[6], f.tmpl[8], f.tmpl[9] = 0x45, 0x40, 64, header.ProtoIPv6
	copy(f.tmpl[12:], e.Local.AsSlice())
	copy(f.tmpl[16:], e.Remote.AsSlice())
	f.sum = uint32(header.Sum(f.tmpl[:20], 0))
	binary.BigEndian.PutUint32(f.tmpl[20:], 6<<28|label)
	f.tmpl[26], f.tmpl[27] = header.ProtoIPv4, 64
	copy(f.tmpl[28:], e.Local6.AsSlice())
	copy(f.tmpl[44:], e.Remote6.AsSlice())
	return f
}

func (f *fused) encapsulate(b []byte, off int) ([]byte, drop.Reason) {
	if header.Version(b[off:]) != 4 {
		return nil, drop.WrongVersion
	}
	inner, r := header.CutIPv4(b[off:])
	if r != drop.None {
		return nil, r
	}
	total := 60 + len(inner)
	if total > 65535 {
		return nil, drop.TooBig
	}
	h := b[off-60 : off+len(inner)]
	copy(h, f.tmpl[:])
	tos := inner.TOS()
	h[1] = tos
	binary.BigEndian.PutUint16(h[2:], uint16(total))
	binary.BigEndian.PutUint16(h[10:], ^header.Fold(f.sum+uint32(tos)+uint32(total)))
	h[20] |= tos >> 4
	h[21] |= tos << 4
	binary.BigEndian.PutUint16(h[24:], uint16(total-60))
	return h, drop.None
}

// TestFusedWritesTheSame: the comparison is fair only if both write the same bytes.
func TestFusedWritesTheSame(t *testing.T) {
	o := encap.DefaultOptions
	o.FlowLabel = encap.FlowLabel{Source: encap.FlowLabelFixed, Fixed: 0xabcde}
	for _, size := range sizes {
		got, _ := stack(t, "4in6in4", left, o).Encapsulate(packet("4in6in4", size), encap.Headroom)
		want, _ := newFused(left, 0xabcde).encapsulate(packet("4in6in4", size), encap.Headroom)
		if string(got) != string(want) {
			t.Errorf("%d bytes\n got %x\nwant %x", size, got, want)
		}
	}
}

// TestNoAllocs: the absence of allocations is a guarantee, so it is tested.
func TestNoAllocs(t *testing.T) {
	for _, mode := range modes {
		out, in := stack(t, mode, left, encap.DefaultOptions), stack(t, mode, right, encap.DefaultOptions)
		for _, size := range sizes {
			p := packet(mode, size)
			if n := testing.AllocsPerRun(1000, func() {
				outer, r := out.Encapsulate(p, encap.Headroom)
				if r != drop.None {
					t.Fatal(r)
				}
				if _, r := in.Decapsulate(outer); r != drop.None {
					t.Fatal(r)
				}
			}); n != 0 {
				t.Errorf("%s, %d bytes: %v allocations", mode, size, n)
			}
		}
	}
}
