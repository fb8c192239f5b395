package encap_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// embedded is a resolver for tests: the outer address follows 64:ff9b:: in the inner
// one, and a source must embed the outer source. All ports are port.
type embedded struct{ port uint16 }

func (e embedded) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	ip := header.IPv6(inner)
	if binary.BigEndian.Uint32(ip.Dest()) != 0x0064ff9b {
		return resolve.Endpoint{}, drop.NoPeer
	}
	to := resolve.Endpoint4(binary.BigEndian.Uint32(ip.Dest()[4:]))
	to.Port = e.port
	return to, drop.None
}

func (e embedded) From(from, _ resolve.Endpoint, pkt []byte) drop.Reason {
	inner := header.IPv6(pkt)
	if binary.BigEndian.Uint32(inner.Source()) != 0x0064ff9b || binary.BigEndian.Uint32(inner.Source()[4:]) != from.IPv4() || from.Port != e.port {
		return drop.Spoof
	}
	return drop.None
}

// automatic is a layer with that resolver, at 192.0.2.1.
var automatic = encap.Layer{Kind: encap.SixInFour, Local: netip.MustParseAddr("192.0.2.1"), Resolver: embedded{}}

// Inner packets to 198.51.100.2 and 198.51.100.3, and from there.
const (
	here  = "64:ff9b:c000:201::1"
	there = "64:ff9b:c633:6402::1"
	far   = "64:ff9b:c633:6403::1"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAutomaticEncapsulate: the resolver's destination is in the header, and the
// checksum covers it, whatever else differs between packets.
func TestAutomaticEncapsulate(t *testing.T) {
	static := encap.DefaultOptions
	static.StaticMTU = true
	for _, c := range []struct {
		name string
		path encap.PathMTU
		o    encap.Options
		dst  string
		want string // outer destination
		df   bool
		r    drop.Reason
	}{
		{"a peer", 1500, encap.DefaultOptions, there, "198.51.100.2", true, drop.None},
		{"another", 1500, encap.DefaultOptions, far, "198.51.100.3", true, drop.None},
		{"0.0.0.0", 1500, encap.DefaultOptions, "64:ff9b::1", "0.0.0.0", true, drop.None},
		{"255.255.255.255", 1500, encap.DefaultOptions, "64:ff9b:ffff:ffff::1", "255.255.255.255", true, drop.None},
		{"narrow path", 1280, encap.DefaultOptions, there, "198.51.100.2", false, drop.None},
		{"static", 1500, static, there, "198.51.100.2", false, drop.None},
		{"nobody", 1500, encap.DefaultOptions, "2001:db8::1", "", false, drop.NoPeer},
	} {
		s := build(t, []encap.Layer{automatic}, c.path, c.o)
		inner := header6(here, c.dst, header.ICMPv6, make([]byte, 33))
		inner[0], inner[1] = 0x6b, 0x9f // DSCP 46, ECT(1), and a flow label
		pkt, r := encapsulate(s, inner)
		if r != c.r {
			t.Errorf("%s: %v", c.name, r)
			continue
		}
		if r != drop.None {
			continue
		}
		ip := header.IPv4(pkt)
		if ip.Dst().String() != c.want || ip.Src() != automatic.Local || ip.MayFragment() == c.df || (ip.ID() == 0) != c.df ||
			ip.TOS() != 0xb9 || slowSum(ip[:20]) != 0xffff || !bytes.Equal(ip[20:], inner) {
			t.Errorf("%s: %x", c.name, pkt)
		}
	}
}

func TestAutomaticDecapsulate(t *testing.T) {
	s := build(t, []encap.Layer{automatic}, 1500, encap.DefaultOptions)
	for _, c := range []struct {
		name, from, to, src string
		want                drop.Reason
	}{
		{"a peer", "198.51.100.2", "192.0.2.1", there, drop.None},
		{"another", "198.51.100.3", "192.0.2.1", far, drop.None},
		{"another's source", "198.51.100.3", "192.0.2.1", there, drop.Spoof},
		{"a source without", "198.51.100.2", "192.0.2.1", "2001:db8::1", drop.Spoof},
		{"not to us", "198.51.100.2", "192.0.2.9", there, drop.ForeignDestination},
		{"an outer source of nobody", "0.0.0.0", "192.0.2.1", there, drop.Spoof},
		{"a source that is no source", "198.51.100.2", "192.0.2.1", "ff02::1", drop.Spoof},
	} {
		inner := header6(c.src, here, header.ICMPv6, make([]byte, 8))
		got, r := s.Decapsulate(header4(c.from, c.to, header.ProtoIPv6, inner))
		if r != c.want || r == drop.None && !bytes.Equal(got, inner) {
			t.Errorf("%s: %v, want %v", c.name, r, c.want)
		}
	}
	if _, r := s.Decapsulate(header4("198.51.100.2", "192.0.2.1", header.ProtoIPv4, header4("10.0.0.1", "10.0.0.2", 1, nil))); r != drop.UnknownProtocol {
		t.Errorf("protocol 4: %v", r)
	}
}

// TestNarrow: a path MTU that routers report for one destination holds for that one, for
// ten minutes; below 1300 the outer packet may be fragmented, as for a configured peer.
func TestNarrow(t *testing.T) {
	rec := encap.NewRecord()
	s := buildWith(t, []encap.Layer{automatic}, 1500, encap.DefaultOptions, rec)
	now := time.Unix(1e9, 0)
	narrow := func(dst string, mtu encap.PathMTU, after time.Duration) {
		rec.SetMTU(netip.MustParseAddr(dst), mtu, now.Add(after))
	}
	check := func(when, dst string, size int, limit encap.TunnelMTU, r drop.Reason, df bool) {
		t.Helper()
		inner := header6(here, dst, header.ICMPv6, make([]byte, size-40))
		before := bytes.Clone(inner[:40])
		if got := s.LimitTo(inner[:40]); got != limit || !bytes.Equal(inner[:40], before) {
			t.Errorf("%s: limit %d, want %d", when, got, limit)
		}
		pkt, got := encapsulate(s, inner)
		if got != r {
			t.Errorf("%s, %d bytes: %v, want %v", when, size, got, r)
			return
		}
		if r != drop.None {
			return
		}
		if ip := header.IPv4(pkt); ip.MayFragment() == df || (ip.ID() == 0) != df || slowSum(ip[:20]) != 0xffff {
			t.Errorf("%s, %d bytes: %x", when, size, ip[:20])
		}
	}
	check("at first", there, 1480, 1480, drop.None, true)
	check("at first", there, 1481, 1480, drop.TooBig, true)

	narrow("198.51.100.2", 1400, 0)
	check("narrow", there, 1380, 1380, drop.None, true)
	check("narrow", there, 1381, 1380, drop.TooBig, true)
	check("to another", far, 1480, 1480, drop.None, true)
	narrow("198.51.100.2", 1450, 0)
	check("wider than before", there, 1381, 1380, drop.TooBig, true)

	narrow("198.51.100.2", 1300, time.Minute)
	check("at 1300", there, 1280, 1280, drop.None, true)
	narrow("198.51.100.2", 1299, time.Minute)
	check("below 1300", there, 1280, 1280, drop.None, false)
	check("below 1300", there, 100, 1280, drop.None, false)
	check("below 1300", there, 1281, 1280, drop.TooBig, false)

	narrow("198.51.100.3", 1350, 2*time.Minute)
	rec.ExpireMTUs(now.Add(11 * time.Minute))
	check("ten minutes", there, 1280, 1280, drop.None, false)
	rec.ExpireMTUs(now.Add(11*time.Minute + 1))
	check("after ten minutes", there, 1480, 1480, drop.None, true)
	check("the later one", far, 1331, 1330, drop.TooBig, true)
	rec.ExpireMTUs(now.Add(time.Hour))
	check("after all", far, 1480, 1480, drop.None, true)

	// A path MTU of the tunnel that is already small, or static, does not change.
	s = buildWith(t, []encap.Layer{automatic}, 1300, encap.DefaultOptions, rec)
	narrow("198.51.100.2", 1400, 0)
	check("first hop narrower", there, 1281, 1280, drop.TooBig, true)
	static := encap.DefaultOptions
	static.StaticMTU = true
	s = buildWith(t, []encap.Layer{automatic}, 1500, static, rec)
	if _, r := encapsulate(s, header6(here, there, header.ICMPv6, make([]byte, 1460))); r != drop.None {
		t.Errorf("static: %v", r)
	}
}

// TestLimitToOfNothing: a layer that does not carry IPv4 has no limit for it.
func TestLimitToOfNothing(t *testing.T) {
	if limit := build(t, []encap.Layer{automatic}, 1500, encap.DefaultOptions).LimitTo(header4("10.0.0.1", "10.0.0.2", header.ICMP, nil)); limit != 0 {
		t.Errorf("%d", limit)
	}
}

// TestNarrowIsBounded: forged messages from many routers cannot fill memory without
// bound, nor keep out reports of others.
func TestNarrowIsBounded(t *testing.T) {
	rec, now := encap.NewRecord(), time.Unix(1e9, 0)
	s := buildWith(t, []encap.Layer{automatic}, 1500, encap.DefaultOptions, rec)
	limit := func(dst uint32) encap.TunnelMTU {
		ip := header6(here, there, header.NoNextHeader, nil)
		binary.BigEndian.PutUint32(ip[28:], dst)
		return s.LimitTo(ip)
	}
	const told, room = 2000, 1024
	for dst := range uint32(told) {
		now = now.Add(time.Millisecond)
		if rec.SetMTU(resolve.Endpoint4(dst+1).Addr(), 1400, now); limit(dst+1) != 1380 {
			t.Fatalf("no room for number %d", dst)
		}
	}
	for dst := range uint32(told) {
		if known, want := limit(dst+1) == 1380, dst >= told-room; known != want {
			t.Fatalf("number %d: remembered %v, want %v", dst, known, want)
		}
	}
	rec.SetMTU(resolve.Endpoint4(told).Addr(), 1350, now) // a known one may still become smaller
	if limit(told) != 1330 {
		t.Errorf("limit %d", limit(told))
	}
	rec.ExpireMTUs(now.Add(time.Hour))
	if limit(told) != 1480 {
		t.Errorf("limit %d after a long time", limit(told))
	}
}

// TestAutomaticUnquote: an error must be about a packet to the destination that the
// inner packet would have.
func TestAutomaticUnquote(t *testing.T) {
	s := build(t, []encap.Layer{automatic}, 1500, encap.DefaultOptions)
	pkt, r := encapsulate(s, header6(here, there, header.ICMPv6, make([]byte, 8)))
	if r != drop.None {
		t.Fatal(r)
	}
	to := netip.MustParseAddr("198.51.100.2")
	for n := range len(pkt) + 1 {
		q, ok := s.Unquote(pkt[:n])
		if ok != (n >= 28) || ok && (q.To != to || q.Size != len(pkt)) || (q.Inner != nil) != (n >= 60) {
			t.Errorf("%d bytes: %v %+v", n, ok, q)
		}
	}
	for name, edit := range map[string]func(b []byte){
		"source":            func(b []byte) { b[15]++ },
		"destination":       func(b []byte) { b[19]++ },
		"protocol":          func(b []byte) { b[9] = 4 },
		"inner destination": func(b []byte) { b[20+24+7]++ },
		"no destination":    func(b []byte) { b[20+24] = 0x20 },
		"identification":    func(b []byte) { b[5]++ },
	} {
		b := bytes.Clone(pkt)
		edit(b)
		if q, ok := s.Unquote(b); ok {
			t.Errorf("wrong %s: %+v", name, q)
		}
	}
}

// TestAutomaticStack: in a stack the resolver finds the destination for packets of the
// layer inside it.
func TestAutomaticStack(t *testing.T) {
	layers := []encap.Layer{layer(encap.FourInSix, here, there), automatic}
	inner := header4("10.0.0.1", "10.0.0.2", header.ICMP, make([]byte, 30))
	pkt, r := encapsulate(build(t, layers, 1500, encap.DefaultOptions), inner)
	if r != drop.None || header.IPv4(pkt).Dst().String() != "198.51.100.2" || slowSum(pkt[:20]) != 0xffff {
		t.Fatalf("%v %x", r, pkt)
	}
	other := automatic
	other.Local = netip.MustParseAddr("198.51.100.2")
	got, r := build(t, []encap.Layer{layer(encap.FourInSix, there, here), other}, 1500, encap.DefaultOptions).Decapsulate(pkt)
	if r != drop.None || !bytes.Equal(got, inner) {
		t.Errorf("%v %x", r, got)
	}
	// The smaller path MTU also counts for inner packets.
	rec := encap.NewRecord()
	s := buildWith(t, layers, 1500, encap.DefaultOptions, rec)
	rec.SetMTU(netip.MustParseAddr("198.51.100.2"), 1400, time.Unix(1e9, 0))
	for _, size := range []int{1340, 1341} {
		_, r := encapsulate(s, header4("10.0.0.1", "10.0.0.2", header.ICMP, make([]byte, size-20)))
		if limit := s.LimitTo(inner); limit != 1340 || (r == drop.None) != (size <= 1340) {
			t.Errorf("%d bytes: %v, limit %d", size, r, limit)
		}
	}
}
