package encap_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/source"
)

// Layers with FOU.
var (
	fouInFour = encap.SixInFour.With(framing.FOU{Local: 5555, Remote: 5555})
	fouInSix  = encap.SixInSix.With(framing.FOU{Local: 5555, Remote: 5555})
)

// fouVectors are packets to (a) and from (b) tunnels of the Linux kernels 6.1 and 6.12 with
// FOU. It accepted those to it; those from it were captured. It dropped D1 to D3. They begin
// with the outer IP header.
var fouVectors = map[string]string{
	"FOU-1a": "45000054140140004011ae93cb007102cb0071019c4015a500403b7d60000000" +
		"00103a4020010db800f20000000000000000000220010db800f2000000000000" +
		"00000001800042c012340001736978666f757221",
	"FOU-1b": "450000542abb4000401197d9cb007101cb00710215a515a500400000600333c8" +
		"00103a4020010db800f20000000000000000000120010db800f2000000000000" +
		"00000002810041c012340001736978666f757221",
	"FOU-2a": "45000054140140004011ae93cb007102cb00710115a515a50040000060000000" +
		"00103a4020010db800f20000000000000000000220010db800f2000000000000" +
		"00000001800042c012340001736978666f757221",
	"FOU-2b": "450000542a2b400040119869cb007101cb00710215a515a500400000600333c8" +
		"00103a4020010db800f20000000000000000000120010db800f2000000000000" +
		"00000002810041c012340001736978666f757221",
	"FOU-3a": "45000040140140004011aea0cb007109cb00710115801580002c000045000024" +
		"0a00400040010ac50a0909020a0909010800186412340001736978666f757221",
	"FOU-3b": "45000040131e40004011af83cb007101cb00710915801580002c000045000024" +
		"a8cf00004001abf50a0909010a0909020000206412340001736978666f757221",
	"FOU-4a": "600000000040114020010db801130000000000000000001220010db801130000" +
		"000000000000000115a515a50040dc726000000000103a4020010db80f120000" +
		"000000000000000220010db80f12000000000000000000018000268012340001" +
		"736978666f757221",
	"FOU-4b": "600b84ab0040114020010db801130000000000000000000120010db801130000" +
		"000000000000001215a515a5004057bc600b84ab00103a4020010db80f120000" +
		"000000000000000120010db80f12000000000000000000028100258012340001" +
		"736978666f757221",
	"FOU-6a": "60000000002c114020010db801130000000000000000001120010db801130000" +
		"000000000000000115801580002c0000450000240a004000400106c50a090b02" +
		"0a090b010800186412340001736978666f757221",
	"FOU-6b": "6000f8cf002c114020010db801130000000000000000000120010db801130000" +
		"000000000000001115801580002c76ec450000246ac400004001e6000a090b01" +
		"0a090b020000206412340001736978666f757221",
	"FOU-7": "45000070096640004011b912cb007101cb00710215a515a5005c000045000054" +
		"07d3400040011ac20a0902010a09020208004764011e000140470d6b00000000" +
		"99f7090000000000101112131415161718191a1b1c1d1e1f2021222324252627" +
		"28292a2b2c2d2e2f3031323334353637",
	"FOU-D1": "45000054140140004011ae93cb007102cb0071019c4015a50040111160000000" +
		"00103a4020010db800f20000000000000000000220010db800f2000000000000" +
		"00000001800042c012340001736978666f757221",
	"FOU-D2": "45000054140140004011ae48cb00714dcb00710115a515a50040000060000000" +
		"00103a4020010db800f20000000000000000000220010db800f2000000000000" +
		"00000001800042c012340001736978666f757221",
	"FOU-D3": "45030054140140004011ae90cb007102cb00710115a515a50040000060000000" +
		"00103a4020010db800f20000000000000000000220010db800f2000000000000" +
		"00000001800042c012340001736978666f757221",
}

// fouLayer returns the layer that makes a vector.
func fouLayer(outer []byte, f framing.FOU) encap.Layer {
	if header.Version(outer) == 4 {
		ip := header.IPv4(outer)
		return encap.Layer{Kind: fouInFour.With(f), Local: ip.Src(), Remote: ip.Dst()}
	}
	ip := header.IPv6(outer)
	return encap.Layer{Kind: fouInSix.With(f), Local: ip.Src(), Remote: ip.Dst()}
}

func TestVectorsOfFOU(t *testing.T) {
	for name, text := range fouVectors {
		outer := unhex(t, text)
		at, o := header.IPv4Len, vectorOptions(encap.NoEncapLimit)
		if header.Version(outer) == 6 {
			at = header.IPv6Len
			o.FlowLabel = encap.FlowLabel{Source: encap.FlowLabelFixed, Fixed: header.IPv6(outer).FlowLabel()}
		}
		udp := outer[at:]
		f := framing.FOU{Local: binary.BigEndian.Uint16(udp), Remote: binary.BigEndian.Uint16(udp[2:]), NoChecksum: udp[6]|udp[7] == 0}
		l, inner := fouLayer(outer, f), udp[8:]
		// A peer with the addresses of FOU-1a, and any port.
		back := flip([]encap.Layer{l})[0]
		back.Kind = l.Kind.With(framing.FOU{Local: f.Remote, Remote: f.Local + 1})
		want := drop.None
		switch name {
		case "FOU-D1":
			want = drop.BadChecksum
		case "FOU-D2":
			want, back.Remote = drop.ForeignSource, netip.MustParseAddr("203.0.113.2")
		case "FOU-D3":
			want = drop.Congestion
		}
		in := build(t, []encap.Layer{back}, 1500, o)
		if got, r := in.Decapsulate(append(bytes.Clone(outer), 0, 0)); r != want || r == drop.None && !bytes.Equal(got, inner) {
			t.Errorf("%s: %v, want %v: %x", name, r, want, got)
		}
		said := header.OuterOf(outer)
		if got, r := in.Open(said, bytes.Clone(inner)); name != "FOU-D1" && r != want || r == drop.None && !bytes.Equal(got, inner) {
			t.Errorf("%s, without its headers: %v, want %v: %x", name, r, want, got)
		}
		if want != drop.None || name == "FOU-6a" || name == "FOU-6b" && udp[6]|udp[7] == 0 { // we always write a checksum over IPv6
			continue
		}
		s := build(t, []encap.Layer{l}, 1500, o)
		got, r := encapsulate(s, inner)
		if r != drop.None {
			t.Errorf("%s: %v", name, r)
			continue
		}
		if at == header.IPv4Len { // we send no identification with DF
			copy(got[4:6], outer[4:6])
			header.IPv4(got).SetChecksum()
		}
		if !bytes.Equal(got, outer) {
			t.Errorf("%s\n got %x\nwant %x", name, got, outer)
		}
		// Every cut of it is recognized in an ICMP error, and no other ports are.
		for n := at + 8; n <= len(outer); n++ {
			if q, ok := s.Unquote(quoted(got, n)); !ok || n == len(outer) && !bytes.Equal(q.Inner, inner) {
				t.Fatalf("%s, quoted to %d bytes: %v, %x", name, n, ok, q.Inner)
			}
		}
		other := quoted(got, len(got))
		other[at+3]++
		if _, ok := s.Unquote(other); ok {
			t.Errorf("%s: another port is unquoted", name)
		}
	}
}

// quoted returns the first n bytes of a packet of ours, with identification 0.
func quoted(pkt []byte, n int) []byte {
	b := bytes.Clone(pkt)
	if header.Version(b) == 4 {
		b[4], b[5] = 0, 0
		header.IPv4(b).SetChecksum()
	}
	return b[:n]
}

// TestFOUSegments: the checksum covers a payload that is elsewhere.
func TestFOUSegments(t *testing.T) {
	for _, l := range []encap.Layer{layer(fouInFour, "192.0.2.1", "198.51.100.2"), layer(fouInSix, "2001:db8:a::1", "2001:db8:b::1")} {
		s, in := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions), build(t, flip([]encap.Layer{l}), 1500, encap.DefaultOptions)
		for _, n := range []int{0, 1, 2, 33} {
			inner := header4("10.0.0.1", "10.0.0.2", header.TCP, bytes.Repeat([]byte{0xa5}, 21+n))
			b := append(make([]byte, encap.Headroom), inner[:41]...)
			outer, r := s.EncapsulateSegment(b, encap.Headroom, inner[41:])
			if r != drop.None {
				t.Fatal(r)
			}
			if got, r := in.Decapsulate(append(outer, inner[41:]...)); r != drop.None || !bytes.Equal(got, inner) {
				t.Errorf("%v, %d bytes elsewhere: %v", l.Kind, n, r)
			}
		}
	}
}

// TestFOUPassesOthers: UDP between the two ends that is not to or from our port is neither a
// tunnel packet nor a loop, and a framing with another port is told apart.
func TestFOUPassesOthers(t *testing.T) {
	l := layer(fouInFour, "192.0.2.1", "198.51.100.2")
	s := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions)
	for port, want := range map[uint16]drop.Reason{5555: drop.Loop, 53: drop.None} {
		udp := []byte{5555 >> 8, 5555 & 0xff, byte(port >> 8), byte(port), 0, 8, 0, 0}
		udp = append(udp, 0x45)
		binary.BigEndian.PutUint16(udp[4:], 9)
		if _, r := encapsulate(s, header4("192.0.2.1", "198.51.100.2", header.UDP, udp)); r != want {
			t.Errorf("to port %d: %v, want %v", port, r, want)
		}
		if got := fouInFour.Framing().Matches(udp); got != (port == 5555) {
			t.Errorf("port %d matches: %v", port, got)
		}
	}
	// Inside another layer, what is to another port is for our end of the layer.
	inside := []encap.Layer{layer(fouInSix, "fc00::1", "fc00::2"), sit}
	in := build(t, flip(inside), 1500, encap.DefaultOptions)
	dns := header6("fc00::1", "fc00::2", header.UDP, []byte{0, 53, 0, 53, 0, 8, 0, 0})
	outer, r := encapsulate(build(t, []encap.Layer{sit}, 1500, encap.DefaultOptions), dns)
	if r != drop.None {
		t.Fatal(r)
	}
	if got, r := in.Decapsulate(outer); r != drop.None || !bytes.Equal(got, dns) {
		t.Errorf("a packet to another port of our end: %v, %x", r, got)
	}
}

func TestFOUNoAllocs(t *testing.T) {
	for _, f := range []framing.FOU{{Local: 5555, Remote: 5555}, {Local: 5555, Remote: 5555, NoChecksum: true}} {
		l := layer(fouInFour, "192.0.2.1", "198.51.100.2")
		l.Kind = l.Kind.With(f)
		out := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions)
		in, err := encap.New(flip([]encap.Layer{l}), 1500, encap.DefaultOptions, source.New(nil, nil, false), encap.NewRecord())
		if err != nil {
			t.Fatal(err)
		}
		b := append(make([]byte, encap.Headroom), header4("10.0.0.1", "10.0.0.2", header.UDP, make([]byte, 60))...)
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
}

// Packets of the IP version that a tunnel does not carry are neither sent nor accepted, also
// where the kernel's ipproto would accept them.
func TestFOUVersion(t *testing.T) {
	l := layer(encap.SixInFour.With(framing.FOU{Local: 5555, Remote: 5555, Version: 6}), "192.0.2.1", "198.51.100.2")
	s := build(t, []encap.Layer{l}, 1500, encap.DefaultOptions)
	inner4 := header4("10.0.0.1", "10.0.0.2", header.UDP, make([]byte, 8))
	if _, r := encapsulate(s, inner4); r != drop.WrongFamily {
		t.Errorf("IPv4 is sent: %v", r)
	}
	either := layer(fouInFour, "192.0.2.1", "198.51.100.2")
	outer, r := encapsulate(build(t, []encap.Layer{either}, 1500, encap.DefaultOptions), inner4)
	if r != drop.None {
		t.Fatal(r)
	}
	if _, r := build(t, flip([]encap.Layer{l}), 1500, encap.DefaultOptions).Decapsulate(outer); r != drop.UnknownProtocol {
		t.Errorf("IPv4 is accepted: %v", r)
	}
}
