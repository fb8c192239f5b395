package encap_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/source"
)

// golden is one tunnel of the captures, from the recording router's side.
type golden struct {
	layers  []encap.Layer
	options encap.Options
	path    encap.PathMTU
}

// goldenTunnels returns the tunnels by the prefix of the captures' names; the longest
// prefix counts.
func goldenTunnels() map[string]golden {
	inherit, limited, static := kernelOptions, kernelOptions, kernelOptions
	inherit.TTL = encap.InheritTTL // the kernel's ipip and gre do so by default, its ip6tnl does not
	limited.EncapLimit = 4
	static.TTL, static.StaticMTU = encap.InheritTTL, true
	over4 := func(k encap.Kind, g framing.GRE) []encap.Layer {
		return []encap.Layer{greLayer(k, "203.0.113.1", "203.0.113.2", g)}
	}
	over6 := func(k encap.Kind) []encap.Layer {
		return []encap.Layer{layer(k, "2001:db8:ffff::1", "2001:db8:ffff::2")}
	}
	return map[string]golden{
		"ipip-":         {over4(encap.FourInFour, framing.GRE{}), inherit, 1500},
		"ipip-nopmtu":   {over4(encap.FourInFour, framing.GRE{}), static, 1500},
		"gre-v4":        {over4(encap.GREInFour, framing.GRE{}), inherit, 1500},
		"gre-key":       {over4(encap.GREInFour, framing.GRE{Keyed: true, Key: 0x01020304}), inherit, 1500},
		"gre-csum":      {over4(encap.GREInFour, framing.GRE{Checksum: true}), inherit, 1500},
		"gre-seq":       {over4(encap.GREInFour, framing.GRE{Sequence: true}), inherit, 1500},
		"gre-all":       {over4(encap.GREInFour, framing.GRE{Keyed: true, Key: 7, Checksum: true, Sequence: true}), inherit, 1500},
		"ipip6-":        {over6(encap.FourInSix), limited, 1500},
		"ipip6-none":    {over6(encap.FourInSix), kernelOptions, 1500},
		"ip6ip6-":       {over6(encap.SixInSix), limited, 1500},
		"ip6ip6-none":   {over6(encap.SixInSix), kernelOptions, 1500},
		"ip6ip6-lowmtu": {over6(encap.SixInSix), limited, 1280},
		"ip6gre":        {over6(encap.GREInSix), limited, 1500},
	}
}

func goldenTunnel(t *testing.T, file string) golden {
	t.Helper()
	best, all := "", goldenTunnels()
	for name := range all {
		if strings.HasPrefix(file, name) && len(name) > len(best) {
			best = name
		}
	}
	if best == "" {
		t.Fatalf("no tunnel for %s", file)
	}
	return all[best]
}

// stack returns the tunnel with the router's addresses as its own.
func (g golden) stack(t *testing.T, o encap.Options, rec *encap.Record) *encap.Stack {
	t.Helper()
	own := addrs("203.0.113.1", "192.168.1.1", "2001:db8:ffff::1", "2001:db8:1::1")
	s, err := encap.New(g.layers, g.path, o, source.New(
		[]netip.Addr{own.Remote, own.Remote6}, []netip.Addr{own.Local, own.Local6}, false), rec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// carried splits an outer packet of the captures into its delivery header and the inner
// packet, with gopacket and not with our own code. Ok is false if it is not one.
func carried(outer []byte) (delivery gopacket.NetworkLayer, inner []byte, ok bool) {
	first := layers.LayerTypeIPv4
	if outer[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	for _, l := range gopacket.NewPacket(outer, first, gopacket.NoCopy).Layers() {
		ip, is := l.(gopacket.NetworkLayer)
		switch {
		case l.LayerType() == layers.LayerTypeICMPv4, l.LayerType() == layers.LayerTypeICMPv6:
			return nil, nil, false
		case !is:
		case delivery == nil:
			delivery = ip
		default:
			return delivery, outer[cap(outer)-cap(l.LayerContents()):], true // it shares the memory
		}
	}
	return nil, nil, false
}

// ourWay returns a kernel's outer packet with the fields that we fill differently:
//   - Identification: with DF set it has no meaning (RFC 6864 section 4.1), and we
//     write 0; the kernel counts. Without DF both count: it is taken from got.
//   - ECN is copied (RFC 6040 section 4.1, normal mode); the kernel makes an inner CE
//     ECT(0) (RFC 3168 section 9.1.1), and its ip6gre never copies.
//
// It reports whether the second was needed.
func ourWay(outer, inner, got []byte) (packet []byte, ecn bool) {
	b := bytes.Clone(outer)
	var field byte
	if header.Version(inner) == 4 {
		field = header.IPv4(inner).TOS() & header.ECNMask
	} else {
		field = header.IPv6(inner).TrafficClass() & header.ECNMask
	}
	if header.Version(b) == 6 {
		ip := header.IPv6(b)
		ecn = ip.TrafficClass()&header.ECNMask != field
		ip.SetECN(field)
		return b, ecn
	}
	ip := header.IPv4(b)
	ecn = ip.TOS()&header.ECNMask != field
	b[1] = b[1]&^header.ECNMask | field
	b[4], b[5] = 0, 0
	if ip.MayFragment() && len(got) > 6 {
		copy(b[4:6], got[4:6])
	}
	ip.SetChecksum()
	return b, ecn
}

// TestGoldenLayersEncapsulate: a stack makes from each inner packet what the kernel
// sent.
func TestGoldenLayersEncapsulate(t *testing.T) {
	for _, c := range []struct {
		file    string
		packets int // packets encapsulated by a kernel
		ecn     int // of these, packets with another ECN field
	}{
		{"ipip-encap", 16, 2}, {"ipip-big", 8, 0}, {"ipip-decap", 4, 0}, {"ipip-bad", 1, 0}, {"ipip-errors", 17, 0},
		{"gre-v4-encap", 16, 2}, {"gre-v4-big", 8, 0}, {"gre-v4-decap", 4, 0}, {"gre-v4-bad", 1, 0}, {"gre-v4-errors", 17, 0},
		{"gre-key", 2, 0}, {"gre-csum", 3, 0}, {"gre-seq", 3, 0}, {"gre-all", 5, 0},
		{"ipip6-encap", 16, 2}, {"ipip6-none", 12, 2}, {"ipip6-big", 8, 0}, {"ipip6-decap", 4, 0}, {"ipip6-errors", 9, 0},
		{"ip6ip6-encap", 16, 2}, {"ip6ip6-none", 9, 2}, {"ip6ip6-big", 1, 0}, {"ip6ip6-lowmtu", 1, 0}, {"ip6ip6-decap", 4, 0}, {"ip6ip6-errors", 9, 0},
		{"ip6gre", 21, 8},
	} {
		t.Run(c.file, func(t *testing.T) {
			g, rec := goldenTunnel(t, c.file), encap.NewRecord()
			packets, ecns := 0, 0
			for _, f := range readCapture(t, c.file) {
				delivery, inner, ok := carried(f.ip)
				if f.mac != toWAN || !ok {
					continue
				}
				packets++
				o := g.options
				if ip, ok := delivery.(*layers.IPv6); ok {
					o.FlowLabel = encap.FlowLabel{Source: encap.FlowLabelFixed, Fixed: ip.FlowLabel}
				}
				got, r := encapsulate(g.stack(t, o, rec), inner)
				want, ecn := ourWay(f.ip, inner, got)
				if ecn {
					ecns++
				}
				if r != drop.None || !bytes.Equal(got, want) {
					t.Errorf("frame %d (%v)\n got %x\nwant %x", f.n, r, got, want)
				}
				// The other end gets it back, except for marks that only we make.
				back, r := build(t, flip(g.layers), 1500, g.options).Decapsulate(bytes.Clone(f.ip))
				if r != drop.None || !bytes.Equal(back, inner) {
					t.Errorf("frame %d, back (%v)\n got %x\nwant %x", f.n, r, back, inner)
				}
			}
			if packets != c.packets || ecns != c.ecn {
				t.Errorf("%d packets, %d with another ECN field; want %d, %d", packets, ecns, c.packets, c.ecn)
			}
		})
	}
}

// TestGoldenTooBig: for a packet that does not fit, the sender gets the same MTU as from
// the kernel, or the packet is carried in the same pieces. Into IPv6 the kernel
// fragments the inner packet, we the outer one (RFC 2473 section 7.2).
func TestGoldenTooBig(t *testing.T) {
	for _, c := range []struct {
		file               string
		told, cut, fitting int // packets
	}{
		{"ipip-big", 2, 3, 2}, {"gre-v4-big", 2, 3, 2}, {"gre-all", 1, 1, 3}, {"ipip6-big", 2, 3, 2}, {"ipip6-none", 1, 1, 10},
		{"ip6ip6-big", 2, 0, 1}, {"ip6ip6-none", 2, 0, 9}, {"ip6gre", 1, 0, 21},
	} {
		t.Run(c.file, func(t *testing.T) {
			g, rec := goldenTunnel(t, c.file), encap.NewRecord()
			s := g.stack(t, g.options, rec)
			frames := readCapture(t, c.file)
			told, cut, fitting := 0, 0, 0
			for i, f := range frames {
				var kernel []frame // what it sent for the packet
				for _, next := range frames[i+1:] {
					if next.mac == fromLAN || next.mac == fromWAN {
						break
					}
					kernel = append(kernel, next)
				}
				if f.mac != fromLAN || len(kernel) == 0 {
					continue
				}
				inner := forward(f.ip)
				switch _, r := encapsulate(s, inner); {
				case kernel[0].mac == toLAN:
					e := quotedIn(t, kernel[0].ip)
					if header.Version(inner) == 4 && inner[8] == 0 || header.Version(inner) == 6 && inner[7] == 0 {
						continue // dropped because of its TTL
					}
					told++
					if size := int(s.Limit(header.Version(inner))); r != drop.TooBig || size != int(e.Arg) || s.InPieces(inner, len(inner)) {
						t.Errorf("frame %d: %v, limit %d; the kernel says %d", f.n, r, size, e.Arg)
					}
				case len(kernel) == 1:
					fitting++
					if r != drop.None {
						t.Errorf("frame %d: %v", f.n, r)
					}
				default:
					cut++
					if r != drop.TooBig || !s.InPieces(inner, len(inner)) {
						t.Errorf("frame %d: %v", f.n, r)
						continue
					}
					samePieces(t, g, rec, inner, kernel)
				}
			}
			if told != c.told || cut != c.cut || fitting != c.fitting {
				t.Errorf("%d too big, %d in pieces, %d fit; want %d, %d, %d", told, cut, fitting, c.told, c.cut, c.fitting)
			}
		})
	}
}

// samePieces compares the pieces of an inner packet with the kernel's.
func samePieces(t *testing.T, g golden, rec *encap.Record, inner []byte, kernel []frame) {
	t.Helper()
	got := pieces(t, g.stack(t, g.options, rec), inner)
	if g.layers[0].Kind.Over() == 6 {
		whole := reassemble(t, build(t, flip(g.layers), 1500, g.options), got)
		if len(got) != len(kernel) || !bytes.Equal(whole, inner) {
			t.Errorf("frame %d: %d pieces, %x", kernel[0].n, len(got), whole)
		}
		return
	}
	if len(got) != len(kernel) {
		t.Errorf("frame %d: %d pieces, want %d", kernel[0].n, len(got), len(kernel))
		return
	}
	for i, f := range kernel {
		_, part, _ := carried(f.ip)
		want, _ := ourWay(f.ip, part, got[i])
		if g.layers[0].Kind.Properties().Ordered {
			// Sequence numbers continued between the stacks of this test.
			copy(got[i][20+4+8:], want[20+4+8:20+4+12])
			copy(got[i][24:26], want[24:26])
		}
		if !bytes.Equal(got[i], want) {
			t.Errorf("frame %d\n got %x\nwant %x", f.n, got[i], want)
		}
	}
}

// pieces returns the outer packets of one that does not fit.
func pieces(t *testing.T, s *encap.Stack, inner []byte) (out [][]byte) {
	t.Helper()
	b := append(make([]byte, encap.Headroom), inner...)
	for piece, r := range s.EncapsulatePieces(b, encap.Headroom, make([]byte, encap.Headroom+1500)) {
		if r != drop.None {
			t.Fatal(r)
		}
		out = append(out, bytes.Clone(piece))
	}
	return out
}

// reassemble receives pieces at the other end, and reassembles the result: first the
// packet of a layer over IPv6, if that was fragmented.
func reassemble(t *testing.T, s *encap.Stack, outer [][]byte) []byte {
	t.Helper()
	re := fragment.NewReassembler(fragment.Limits{}, nil)
	for _, pkt := range outer {
		inner, r := s.Decapsulate(bytes.Clone(pkt))
		if r != drop.Fragment {
			t.Fatalf("%v of %x", r, pkt)
		}
		whole, r := re.Add(header.IPv6(inner), time.Now())
		if r != drop.None {
			t.Fatal(r)
		}
		if whole == nil {
			continue
		}
		inner, r = s.DecapsulateReassembled(whole)
		if r != drop.None {
			t.Fatal(r)
		}
		return inner
	}
	t.Fatalf("%d pieces are no packet", len(outer))
	return nil
}

// TestGoldenLayersDecapsulate: a packet from the WAN goes to the LAN as the kernel
// forwarded it, or is refused. The reason is ours: the kernel sends nothing, or an ICMP
// error.
func TestGoldenLayersDecapsulate(t *testing.T) {
	for _, c := range []struct {
		file    string
		refused map[int]drop.Reason // by frame; the kernel's socket reassembles fragments of IPv4
		taken   int
	}{
		{"ipip-decap", map[int]drop.Reason{1: drop.Congestion}, 20},
		{"gre-v4-decap", map[int]drop.Reason{1: drop.Congestion}, 20},
		{"ipip6-decap", map[int]drop.Reason{1: drop.Congestion}, 20},
		{"ip6ip6-decap", map[int]drop.Reason{1: drop.Congestion}, 18},
		{"ipip-bad", map[int]drop.Reason{1: drop.ForeignSource, 3: drop.Truncated, 4: drop.Truncated, 5: drop.Truncated, 8: drop.WrongVersion,
			9: drop.BadChecksum, 10: drop.LyingLength, 11: drop.Martian, 12: drop.Martian, 13: drop.Martian, 14: drop.OwnSource,
			17: drop.BadChecksum, 20: drop.ForeignDestination, 21: drop.Truncated, 24: drop.Fragment, 25: drop.Fragment, 27: drop.UnknownProtocol}, 4},
		{"gre-v4-bad", map[int]drop.Reason{1: drop.ForeignSource, 3: drop.Truncated, 4: drop.Truncated, 5: drop.Truncated, 8: drop.WrongVersion,
			9: drop.BadChecksum, 10: drop.LyingLength, 11: drop.Martian, 12: drop.Martian, 13: drop.Martian, 14: drop.OwnSource,
			17: drop.BadChecksum, 20: drop.ForeignDestination, 21: drop.Truncated, 24: drop.Fragment, 25: drop.Fragment, 27: drop.UnknownProtocol}, 4},
		{"gre-key", map[int]drop.Reason{7: drop.Key, 9: drop.Key}, 1},
		{"gre-csum", map[int]drop.Reason{9: drop.BadChecksum, 10: drop.BadChecksum}, 1},
		{"gre-seq", map[int]drop.Reason{11: drop.Sequence, 12: drop.Sequence, 15: drop.Sequence}, 3},
	} {
		t.Run(c.file, func(t *testing.T) {
			g := goldenTunnel(t, c.file)
			s := g.stack(t, g.options, encap.NewRecord())
			frames := readCapture(t, c.file)
			taken := 0
			for i, f := range frames {
				if f.mac != fromWAN {
					continue
				}
				got, r := s.Decapsulate(bytes.Clone(f.ip))
				if want := c.refused[f.n]; r != want {
					t.Errorf("frame %d: %v, want %v", f.n, r, want)
					continue
				}
				if r != drop.None {
					continue
				}
				taken++
				if i+1 < len(frames) && frames[i+1].mac == toLAN {
					if want, got := frames[i+1].ip, forward(got); !bytes.Equal(got, want) {
						t.Errorf("frame %d\n got %x\nwant %x", f.n, got, want)
					}
				} else if _, inner, _ := carried(f.ip); !bytes.Equal(got, inner) { // the router itself received it, or sent it elsewhere
					t.Errorf("frame %d\n got %x\nwant %x", f.n, got, inner)
				}
			}
			if taken != c.taken {
				t.Errorf("%d packets, want %d", taken, c.taken)
			}
		})
	}
}
