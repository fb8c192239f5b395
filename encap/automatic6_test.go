package encap_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// embedded6 is a resolver for tests in a layer over IPv6: the outer address is
// 2001:db8:a:: and an inner IPv4 address, or the first half of an inner IPv6 address with
// ::1. All ports are port.
type embedded6 struct{ port uint16 }

func (embedded6) CarriesIPv4() {}

func (embedded6) of(inner, addr []byte) header.Word6 {
	if header.Version(inner) == 4 {
		return header.Word6{Hi: 0x20010db8000a0000, Lo: uint64(binary.BigEndian.Uint32(addr))}
	}
	return header.Word6{Hi: binary.BigEndian.Uint64(addr), Lo: 1}
}

func (e embedded6) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	to := inner[16:20]
	if header.Version(inner) == 6 {
		to = inner[24:]
	}
	if to[0] == 192 || to[0] == 0xff {
		return resolve.Endpoint{}, drop.NoPeer
	}
	end := resolve.Endpoint6(e.of(inner, to))
	end.Port = e.port
	return end, drop.None
}

func (e embedded6) From(from, at resolve.Endpoint, inner []byte) drop.Reason {
	src := inner[12:16]
	if header.Version(inner) == 6 {
		src = inner[8:]
	}
	if from.IPv6() != e.of(inner, src) || !at.IsPlain6() || from.Port != e.port {
		return drop.Spoof
	}
	return drop.None
}

// automatic6 is a layer with that resolver, at 10.1.1.1.
var automatic6 = encap.Layer{Kind: encap.FourInSix, Local: netip.MustParseAddr("2001:db8:a::a01:101"), Resolver: embedded6{}}

const there6 = "2001:db8:a::a01:102" // 10.1.1.2

func TestAutomatic6Encapsulate(t *testing.T) {
	sixes := encap.Layer{Kind: encap.SixInSix, Local: netip.MustParseAddr("2001:db8:1::1"), Resolver: embedded6{}}
	limited := encap.DefaultOptions
	limited.EncapLimit = 4
	for _, c := range []struct {
		name  string
		layer encap.Layer
		o     encap.Options
		inner []byte
		want  string
		r     drop.Reason
	}{
		{"a peer", automatic6, encap.DefaultOptions, header4("10.1.1.1", "10.1.1.2", header.ICMP, make([]byte, 33)), there6, drop.None},
		{"another", automatic6, encap.DefaultOptions, header4("10.1.1.1", "10.1.1.3", header.ICMP, make([]byte, 33)), "2001:db8:a::a01:103", drop.None},
		{"with a limit", automatic6, limited, header4("10.1.1.1", "10.1.1.2", header.ICMP, make([]byte, 33)), there6, drop.None},
		{"nobody", automatic6, encap.DefaultOptions, header4("10.1.1.1", "192.0.2.1", header.ICMP, nil), "", drop.NoPeer},
		{"IPv6", sixes, encap.DefaultOptions, header6("2001:db8:1::7", "2001:db8:2::7", header.UDP, make([]byte, 8)), "2001:db8:2::1", drop.None},
		{"IPv6 to nobody", sixes, encap.DefaultOptions, header6("2001:db8:1::7", "ff02::1", header.UDP, make([]byte, 8)), "", drop.NoPeer},
		{"of its own layer", sixes, encap.DefaultOptions, header6("2001:db8:1::1", "2001:db8:9::1", header.ProtoIPv6, header6("2001:db8:1::7", "2001:db8:2::7", header.UDP, nil)), "", drop.Loop},
	} {
		pkt, r := encapsulate(build(t, []encap.Layer{c.layer}, 1500, c.o), c.inner)
		if r != c.r {
			t.Errorf("%s: %v", c.name, r)
			continue
		}
		if r != drop.None {
			continue
		}
		ip := header.IPv6(pkt)
		if ip.Dst().String() != c.want || ip.Src() != c.layer.Local || ip.PayloadLen() != len(pkt)-40 || !bytes.HasSuffix(pkt, c.inner) {
			t.Errorf("%s: %x", c.name, pkt)
		}
	}
}

func TestAutomatic6Decapsulate(t *testing.T) {
	s := build(t, []encap.Layer{automatic6}, 1500, encap.DefaultOptions)
	inner := header4("10.1.1.2", "10.1.1.1", header.ICMP, make([]byte, 8))
	limit := append([]byte{header.ProtoIPv4, 0, 4, 1, 4, 1, 0, 0}, inner...)
	for _, c := range []struct {
		name, from, to string
		next           byte
		payload        []byte
		want           drop.Reason
	}{
		{"a peer", there6, "2001:db8:a::a01:101", header.ProtoIPv4, inner, drop.None},
		{"a peer with an option", there6, "2001:db8:a::a01:101", header.DestOptions, limit, drop.None},
		{"another's source", "2001:db8:a::a01:103", "2001:db8:a::a01:101", header.ProtoIPv4, inner, drop.Spoof},
		{"another's source with an option", "2001:db8:a::a01:103", "2001:db8:a::a01:101", header.DestOptions, limit, drop.Spoof},
		{"not to us", there6, "2001:db8:a::a01:109", header.ProtoIPv4, inner, drop.UnknownProtocol},
		{"another protocol", there6, "2001:db8:a::a01:101", header.UDP, inner, drop.UnknownProtocol},
	} {
		got, r := s.Decapsulate(header6(c.from, c.to, c.next, bytes.Clone(c.payload)))
		if r != c.want || r == drop.None && !bytes.Equal(got, inner) {
			t.Errorf("%s: %v, want %v", c.name, r, c.want)
		}
	}
	if got, r := s.DecapsulateReassembled(header6(there6, "2001:db8:a::a01:101", header.ProtoIPv4, inner)); r != drop.None || !bytes.Equal(got, inner) {
		t.Errorf("reassembled: %v", r)
	}
	if _, r := s.DecapsulateReassembled(header6("2001:db8:a::1", "2001:db8:a::a01:101", header.ProtoIPv4, inner)); r != drop.Spoof {
		t.Errorf("reassembled, another's source: %v", r)
	}
	piece := append([]byte{header.ProtoIPv4, 0, 0, 1, 0, 0, 0, 7}, inner[:24]...)
	if got, r := s.Decapsulate(header6(there6, "2001:db8:a::a01:101", header.FragmentHdr, piece)); r != drop.Fragment || got == nil {
		t.Errorf("a fragment: %v", r)
	}
}

// A smaller path MTU to one destination holds for that one. A packet that may be fragmented
// goes there in pieces that fit.
func TestAutomatic6Narrow(t *testing.T) {
	rec := encap.NewRecord()
	s := buildWith(t, []encap.Layer{automatic6}, 1500, encap.DefaultOptions, rec)
	now := time.Unix(1e9, 0)
	packet := func(dst string, size int, df bool) []byte {
		b := header4("10.1.1.1", dst, header.ICMP, make([]byte, size-20))
		if df {
			b[6] = 0x40
			header.IPv4(b).SetChecksum()
		}
		return b
	}
	check := func(when, dst string, size int, limit encap.TunnelMTU, want drop.Reason) {
		t.Helper()
		b := packet(dst, size, true)
		if got := s.LimitTo(b[:20]); got != limit {
			t.Errorf("%s: limit %d, want %d", when, got, limit)
		}
		if _, r := encapsulate(s, b); r != want {
			t.Errorf("%s, %d bytes: %v, want %v", when, size, r, want)
		}
	}
	check("at first", "10.1.1.2", 1460, 1460, drop.None)
	check("at first", "10.1.1.2", 1461, 1460, drop.TooBig)
	rec.SetMTU(netip.MustParseAddr(there6), 1400, now)
	check("narrow", "10.1.1.2", 1360, 1360, drop.None)
	check("narrow", "10.1.1.2", 1361, 1360, drop.TooBig)
	check("to another", "10.1.1.3", 1460, 1460, drop.None)

	reassembler := fragment.NewReassembler(fragment.DefaultLimits, func(r drop.Reason, n int) { t.Error(r) })
	inner := packet("10.1.1.2", 1460, false)
	if !s.InPieces(inner, len(inner)) {
		t.Fatal("not in pieces")
	}
	var whole []byte
	n := 0
	for p, r := range s.EncapsulatePieces(append(make([]byte, encap.Headroom), inner...), encap.Headroom, make([]byte, encap.Headroom+1500)) {
		n++
		if r != drop.None || len(p) > 1400 || header.IPv6(p).Dst().String() != there6 {
			t.Fatalf("%v, %d bytes", r, len(p))
		}
		if whole, r = reassembler.Add(header.IPv6(bytes.Clone(p)), now); r != drop.None {
			t.Fatal(r)
		}
	}
	if n != 2 || !bytes.HasSuffix(whole, inner) {
		t.Errorf("%d pieces, %x", n, whole)
	}

	rec.SetMTU(netip.MustParseAddr(there6), 1000, now) // every path carries 1280
	check("below 1280", "10.1.1.2", 1240, 1240, drop.None)
	check("below 1280", "10.1.1.2", 1241, 1240, drop.TooBig)
	rec.ExpireMTUs(now.Add(time.Hour))
	check("later", "10.1.1.2", 1460, 1460, drop.None)
}

func TestAutomatic6Unquote(t *testing.T) {
	s := build(t, []encap.Layer{automatic6}, 1500, encap.DefaultOptions)
	pkt, r := encapsulate(s, header4("10.1.1.1", "10.1.1.2", header.ICMP, make([]byte, 8)))
	if r != drop.None {
		t.Fatal(r)
	}
	to := netip.MustParseAddr(there6)
	if q, ok := s.Unquote(pkt); !ok || q.To != to || q.Size != len(pkt) || len(q.Inner) != len(pkt)-40 {
		t.Errorf("%v %+v", ok, q)
	}
	for name, at := range map[string]int{"source": 23, "destination": 39, "next header": 6, "inner destination": 40 + 19} {
		b := bytes.Clone(pkt)
		b[at]++
		if q, ok := s.Unquote(b); ok {
			t.Errorf("wrong %s: %+v", name, q)
		}
	}
}

// The resolver's port is the destination port, and From sees the one a packet comes from.
func TestAutomatic6Port(t *testing.T) {
	at := func(local string, f ported, port uint16) *encap.Stack {
		return build(t, []encap.Layer{{Kind: encap.SixInSix.With(f), Local: netip.MustParseAddr(local), Resolver: embedded6{port}}}, 1500, encap.DefaultOptions)
	}
	inner := header6("2001:db8:1::7", "2001:db8:2::7", header.UDP, make([]byte, 20))
	outer, r := encapsulate(at("2001:db8:1::1", ported{4000, 5000}, 6000), inner)
	if r != drop.None {
		t.Fatal(r)
	}
	if from, to := header.Ports(outer[40:]); from != 4000 || to != 6000 {
		t.Errorf("from port %d to %d", from, to)
	}
	if got, r := at("2001:db8:2::1", ported{6000, 4000}, 4000).Decapsulate(bytes.Clone(outer)); r != drop.None || !bytes.Equal(got, inner) {
		t.Errorf("%v, %x", r, got)
	}
	if _, r := at("2001:db8:2::1", ported{6000, 4000}, 4001).Decapsulate(bytes.Clone(outer)); r != drop.Spoof {
		t.Errorf("from another port: %v", r)
	}
	o := header.Outer{From: netip.MustParseAddrPort("[2001:db8:1::1]:4001"), At: netip.MustParseAddrPort("[2001:db8:2::1]:6000")}
	if _, r := at("2001:db8:2::1", ported{6000, 4000}, 4000).Open(o, outer[40:]); r != drop.Spoof {
		t.Errorf("a datagram from another port: %v", r)
	}
}

func TestAutomatic6NoAllocs(t *testing.T) {
	rec := encap.NewRecord()
	s := buildWith(t, []encap.Layer{automatic6}, 1500, encap.DefaultOptions, rec)
	rec.SetMTU(netip.MustParseAddr(there6), 1400, time.Unix(1e9, 0))
	back := automatic6
	back.Local = netip.MustParseAddr(there6)
	in := build(t, []encap.Layer{back}, 1500, encap.DefaultOptions)
	buf := append(make([]byte, encap.Headroom), header4("10.1.1.1", "10.1.1.2", header.ICMP, make([]byte, 100))...)
	if n := testing.AllocsPerRun(1000, func() {
		pkt, r := s.Encapsulate(buf, encap.Headroom)
		if r != drop.None {
			t.Fatal(r)
		}
		if _, r := in.Decapsulate(pkt); r != drop.None {
			t.Fatal(r)
		}
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}
