package nd_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
)

var (
	one    = netip.MustParseAddr("fe80::c000:201")
	two    = netip.MustParseAddr("fe80::c633:6402")
	prefix = netip.MustParsePrefix("2001:db8:5efe:1::/64")
)

// messages are all messages that the package writes, with their bytes after the IPv6
// header and the ICMPv6 checksum.
var messages = []struct {
	name     string
	src, dst netip.Addr
	m        nd.Message
	want     []byte
}{
	{"RS", one, two, nd.Message{Type: nd.RouterSolicitation, Link: []byte{0, 0, 192, 0, 2, 1}}, []byte{
		0, 0, 0, 0, // reserved
		1, 1, 0, 0, 192, 0, 2, 1, // source link-layer address
	}},
	{"RA", one, two, nd.Message{Type: nd.RouterAdvertisement, HopLimit: 64, Other: true, Lifetime: 1800 * time.Second,
		Reachable: 30 * time.Second, Retrans: time.Second, MTU: 1280, Prefixes: []nd.Prefix{
			{Prefix: prefix, Auto: true, Valid: 7200 * time.Second, Preferred: 3600 * time.Second},
			{Prefix: prefix, OnLink: true, Valid: nd.Infinite, Preferred: nd.Infinite},
		}}, []byte{
		64, 0x40, 7, 8, // hop limit, flags, lifetime
		0, 0, 0x75, 0x30, 0, 0, 3, 0xe8, // reachable time, retransmission timer
		5, 1, 0, 0, 0, 0, 5, 0, // MTU
		3, 4, 64, 0x40, 0, 0, 0x1c, 0x20, 0, 0, 0x0e, 0x10, 0, 0, 0, 0, // prefix: flags, lifetimes
		0x20, 1, 0x0d, 0xb8, 0x5e, 0xfe, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
		3, 4, 64, 0x80, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0,
		0x20, 1, 0x0d, 0xb8, 0x5e, 0xfe, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
	}},
	{"NS", one, nd.SolicitedNode(two), nd.Message{Type: nd.NeighborSolicitation, Target: two, Link: []byte{0, 0, 192, 0, 2, 1}}, []byte{
		0, 0, 0, 0,
		0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc6, 0x33, 0x64, 2, // target
		1, 1, 0, 0, 192, 0, 2, 1,
	}},
	{"NA", two, one, nd.Message{Type: nd.NeighborAdvertisement, Target: two, Router: true, Solicited: true, Override: true, Link: []byte{0, 0, 198, 51, 100, 2}}, []byte{
		0xe0, 0, 0, 0,
		0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc6, 0x33, 0x64, 2,
		2, 1, 0, 0, 198, 51, 100, 2,
	}},
}

func TestMessages(t *testing.T) {
	for _, c := range messages {
		b := nd.Append([]byte("front"), c.src, c.dst, &c.m)[5:]
		ip, r := header.ParseIPv6(b)
		if r != drop.None || ip.HopLimit() != 255 || ip.Src() != c.src || ip.Dst() != c.dst || !nd.Is(ip) || ip[40] != c.m.Type {
			t.Errorf("%s: %v %x", c.name, r, b)
			continue
		}
		if got := ip.Payload()[4:]; !bytes.Equal(got, c.want) {
			t.Errorf("%s\n got %x\nwant %x", c.name, got, c.want)
		}
		m, ok := nd.Parse(ip)
		if again := nd.Append(nil, c.src, c.dst, &m); !ok || !bytes.Equal(again, b) {
			t.Errorf("%s: %v, read and written again\n got %x\nwant %x", c.name, ok, again, b)
		}
	}
}

// packet returns a message whose bytes a test has changed, with a correct checksum.
func packet(src, dst netip.Addr, m nd.Message, change func(b []byte) []byte) header.IPv6 {
	b := change(nd.Append(nil, src, dst, &m))
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	b[42], b[43] = 0, 0
	binary.BigEndian.PutUint16(b[42:], ^header.Sum(b[40:], header.PseudoSum(b[8:24], b[24:40], len(b)-40, header.ICMPv6)))
	return b
}

func TestWhatMustNotBeBelieved(t *testing.T) {
	rs, ra, ns, na := messages[0].m, messages[1].m, messages[2].m, messages[3].m
	multicast := netip.MustParseAddr("ff02::1")
	to := func(m nd.Message, target netip.Addr) nd.Message { m.Target = target; return m }
	bare := ns
	bare.Link = nil
	same := func(b []byte) []byte { return b }
	for _, c := range []struct {
		name   string
		ip     header.IPv6
		passes bool
	}{
		{"as it is", packet(one, two, rs, same), true},
		{"hop limit 254", packet(one, two, rs, func(b []byte) []byte { b[7] = 254; return b }), false},
		{"code 1", packet(one, two, rs, func(b []byte) []byte { b[41] = 1; return b }), false},
		{"another protocol", packet(one, two, rs, func(b []byte) []byte { b[6] = header.UDP; return b }), false},
		{"another type", packet(one, two, rs, func(b []byte) []byte { b[40] = 128; return b }), false},
		{"a redirect", packet(one, two, rs, func(b []byte) []byte { b[40] = nd.Redirect; return b }), false},
		{"option of length 0", packet(one, two, rs, func(b []byte) []byte { b[49] = 0; return b }), false},
		{"option too long", packet(one, two, rs, func(b []byte) []byte { b[49] = 2; return b }), false},
		{"half an option", packet(one, two, rs, func(b []byte) []byte { return append(b, 1, 1, 0, 0) }), false},
		{"unknown option", packet(one, two, rs, func(b []byte) []byte { return append(b, 200, 1, 0, 0, 0, 0, 0, 0) }), true},
		{"RS cut", packet(one, two, rs, func(b []byte) []byte { return b[:46] }), false},
		{"RA cut", packet(one, two, ra, func(b []byte) []byte { return b[:54] }), false},
		{"NS cut", packet(one, two, ns, func(b []byte) []byte { return b[:60] }), false},
		{"NA cut", packet(one, two, na, func(b []byte) []byte { return b[:60] }), false},
		{"nothing", packet(one, two, ns, func(b []byte) []byte { return append(b[:40], 133, 0, 0, 0) }), false},
		{"RS from nobody with an address", packet(netip.IPv6Unspecified(), two, rs, same), false},
		{"RA from a global address", packet(netip.MustParseAddr("2001:db8::1"), two, ra, same), false},
		{"NS for a group", packet(one, two, to(ns, multicast), same), false},
		{"NA for a group", packet(one, two, to(na, multicast), same), false},
		{"solicited NA to all", packet(one, multicast, na, same), false},
		{"DAD", packet(netip.IPv6Unspecified(), nd.SolicitedNode(two), bare, same), true},
		{"DAD to another group", packet(netip.IPv6Unspecified(), multicast, bare, same), false},
		{"DAD with an address", packet(netip.IPv6Unspecified(), nd.SolicitedNode(two), ns, same), false},
		{"MTU of two units", packet(one, two, ra, func(b []byte) []byte { b[57] = 5; return b }), true}, // it covers the prefix option
	} {
		if _, ok := nd.Parse(c.ip); ok != c.passes {
			t.Errorf("%s: %v", c.name, ok)
		}
	}
	bad := packet(one, two, rs, same)
	bad[43]++
	if _, ok := nd.Parse(bad); ok {
		t.Error("wrong checksum passes")
	}
	many := ra
	for range 100 {
		many.Prefixes = append(many.Prefixes, ra.Prefixes[0])
	}
	if m, ok := nd.Parse(packet(one, two, many, same)); !ok || len(m.Prefixes) > 16 {
		t.Errorf("%d prefixes", len(m.Prefixes))
	}
}

// FuzzParse: no packet causes a panic, and every parsed message can be written again.
func FuzzParse(f *testing.F) {
	for _, c := range messages {
		f.Add(nd.Append(nil, c.src, c.dst, &c.m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ip, r := header.ParseIPv6(b)
		if r != drop.None {
			return
		}
		nd.Is(ip)
		if len(ip) >= 44 { // let the fuzzer pass the checksum
			ip[42], ip[43] = 0, 0
			binary.BigEndian.PutUint16(ip[42:], ^header.Sum(ip[40:], header.PseudoSum(ip[8:24], ip[24:40], len(ip)-40, header.ICMPv6)))
		}
		m, ok := nd.Parse(ip)
		if !ok {
			return
		}
		again, r := header.ParseIPv6(nd.Append(nil, ip.Src(), ip.Dst(), &m))
		if r != drop.None {
			t.Fatal(r)
		}
		n, ok := nd.Parse(again)
		if !ok || n.Type != m.Type || n.Target != m.Target || n.MTU != m.MTU || len(n.Prefixes) != len(m.Prefixes) || !bytes.Equal(n.Link, m.Link) {
			t.Fatalf("%+v, again %+v", m, n)
		}
	})
}

// TestHiddenMessages: a message after extension headers is recognized, so that no other
// system gets it, and is refused.
func TestHiddenMessages(t *testing.T) {
	behind := func(kind byte, extension ...byte) header.IPv6 {
		ip := packet(one, two, messages[1].m, func(b []byte) []byte { return b })
		extension[0], ip[6] = header.ICMPv6, kind
		ip = slices.Insert(ip, header.IPv6Len, extension...)
		ip[5] += byte(len(extension))
		return ip
	}
	for _, c := range []struct {
		name string
		ip   header.IPv6
	}{
		{"options", behind(header.DestOptions, 0, 0, 1, 4, 0, 0, 0, 0)},
		{"hop-by-hop", behind(header.HopByHop, 0, 0, 1, 4, 0, 0, 0, 0)},
		{"atomic fragment", behind(header.FragmentHdr, 0, 0, 0, 0, 0, 0, 0, 1)},
		{"first fragment", behind(header.FragmentHdr, 0, 0, 0, 1, 0, 0, 0, 1)},
	} {
		if _, believed := nd.Parse(c.ip); !nd.Is(c.ip) || believed {
			t.Errorf("%s: is one %v, is believed %v", c.name, nd.Is(c.ip), believed)
		}
	}
	if nd.Is(behind(header.FragmentHdr, 0, 0, 0, 9, 0, 0, 0, 1)) || nd.Is(behind(header.DestOptions, 0, 99, 1, 4, 0, 0, 0, 0)) {
		t.Error("what cannot be seen is a message")
	}
}
