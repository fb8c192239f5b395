package node

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/mape"
	"sixfour/encap/resolve"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// The rule of the examples of RFC 7597, appendix A, and two customer edges with 192.0.2.18.
var shared = mape.Rule{IPv6: prefix("2001:db8::/40"), IPv4: prefix("192.0.2.0/24"), EABits: 16, Ports: mape.Ports{Offset: 6}, Forwarding: true}

const (
	br     = "2001:db8:ffff::1"
	edge34 = "2001:db8:12:3400:0:c000:212:34"
	edge35 = "2001:db8:12:3500:0:c000:212:35"
	port34 = 1232 // the first of each set
	port35 = 1236
)

// packet is an IPv4 packet of a protocol between two ends: an address, a colon, and a port or an
// ICMP identifier. Offset is the fragment offset in bytes; more says that others follow.
type packet struct {
	protocol byte
	src, dst string
	kind     byte // type of ICMP
	quoted   []byte
	id       uint16
	offset   int
	more     bool
	cut      int // bytes at the end that are missing
}

func split(t testing.TB, s string) (a netip.Addr, port uint16) {
	t.Helper()
	if !strings.Contains(s, ":") {
		return addr(s), 0
	}
	p, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatal(err)
	}
	return p.Addr(), p.Port()
}

func (p packet) bytes(t testing.TB) []byte {
	t.Helper()
	src, from := split(t, p.src)
	dst, to := split(t, p.dst)
	l4 := make([]byte, 16)
	switch {
	case p.offset > 0: // no header
		for i := range l4 {
			l4[i] = 0xff
		}
	case p.protocol == header.ICMP:
		l4[0] = p.kind
		binary.BigEndian.PutUint16(l4[4:], from+to) // one of them is 0
		if p.quoted != nil {
			binary.BigEndian.PutUint32(l4[4:], 0)
			l4 = append(l4[:8], p.quoted...)
		}
	default:
		binary.BigEndian.PutUint16(l4, from)
		binary.BigEndian.PutUint16(l4[2:], to)
	}
	b := make(header.IPv4, 20, 20+len(l4))
	b = append(b, l4...)
	b[0], b[8], b[9] = 0x45, 64, p.protocol
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[4:], p.id)
	field := uint16(p.offset / 8)
	if p.more {
		field |= header.MF
	}
	binary.BigEndian.PutUint16(b[6:], field)
	copy(b.Source(), src.AsSlice())
	copy(b.Dest(), dst.AsSlice())
	b.SetChecksum()
	return b[:len(b)-p.cut]
}

const tcp, udp, icmpv4, gre = protoTCP, header.UDP, header.ICMP, 47

func at(local string) resolve.Site { return resolve.Site{Local: addr(local)} }

func resolver(t testing.TB, m resolve.Mechanism, site resolve.Site) resolve.Agent {
	t.Helper()
	r, err := m.Resolver(site)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := r.(resolve.DualResolver); !ok {
		t.Fatal("it does not carry IPv4")
	}
	return r.(resolve.Agent)
}

// step is a packet that leaves, if to is set, or arrives from an end.
type step struct {
	name string
	packet
	to, from string
	why      drop.Reason
}

func (s step) check(t *testing.T, r resolve.Resolver) {
	t.Helper()
	if s.from != "" {
		if why := r.From(resolve.EndpointOf(netip.AddrPortFrom(addr(s.from), 0)), resolve.Endpoint{}, s.bytes(t)); why != s.why {
			t.Errorf("%s: from %s: %v, want %v", s.name, s.from, why, s.why)
		}
		return
	}
	end, why := r.To(s.bytes(t))
	if why != s.why || why == drop.None && end.Addr() != addr(s.to) {
		t.Errorf("%s: to %v, %v, want %s, %v", s.name, end.Addr(), why, s.to, s.why)
	}
}

func TestRelay(t *testing.T) {
	r := resolver(t, Relay{[]mape.Rule{shared}}, at(br))
	const web, a34, a35 = "198.51.100.1:80", "192.0.2.18:1232", "192.0.2.18:1236"
	sent34 := packet{protocol: udp, src: a34, dst: "198.51.100.1:53"}.bytes(t)
	got34 := packet{protocol: udp, src: "198.51.100.1:53", dst: a34}.bytes(t)
	pinged := packet{protocol: icmpv4, kind: 8, src: a34, dst: "198.51.100.1"}.bytes(t)
	for _, s := range []step{
		{name: "tcp", packet: packet{protocol: tcp, src: web, dst: a34}, to: edge34},
		{name: "tcp to the other", packet: packet{protocol: tcp, src: web, dst: a35}, to: edge35},
		{name: "the last range", packet: packet{protocol: udp, src: web, dst: "192.0.2.18:64723"}, to: edge34},
		{name: "a port of nobody", packet: packet{protocol: udp, src: web, dst: "192.0.2.18:1000"}, why: drop.NoPeer},
		{name: "an address of nobody", packet: packet{protocol: udp, src: web, dst: "192.0.3.18:1232"}, why: drop.NoPeer},
		{name: "an echo request", packet: packet{protocol: icmpv4, kind: 8, src: "198.51.100.1", dst: a34}, to: edge34},
		{name: "an echo reply", packet: packet{protocol: icmpv4, kind: 0, src: "198.51.100.1", dst: a35}, to: edge35},
		{name: "no ports", packet: packet{protocol: gre, src: "198.51.100.1", dst: "192.0.2.18"}, why: drop.NoPeer},
		{name: "cut off", packet: packet{protocol: udp, src: web, dst: a34, cut: 13}, why: drop.NoPeer},
		{name: "an error", packet: packet{protocol: icmpv4, kind: 3, src: "203.0.113.1", dst: "192.0.2.18", quoted: sent34[:28]}, to: edge34},
		{name: "an error about a ping", packet: packet{protocol: icmpv4, kind: 11, src: "203.0.113.1", dst: "192.0.2.18", quoted: pinged[:28]}, to: edge34},
		{name: "an error about a packet of another address", packet: packet{protocol: icmpv4, kind: 3, src: "203.0.113.1", dst: "192.0.2.19", quoted: sent34[:28]}, why: drop.NoPeer},
		{name: "an error with a short quote", packet: packet{protocol: icmpv4, kind: 3, src: "203.0.113.1", dst: "192.0.2.18", quoted: sent34[:22]}, why: drop.NoPeer},

		{name: "tcp", packet: packet{protocol: tcp, src: a34, dst: web}, from: edge34},
		{name: "another's port", packet: packet{protocol: tcp, src: a35, dst: web}, from: edge34, why: drop.Spoof},
		{name: "another's address", packet: packet{protocol: tcp, src: "192.0.2.19:1232", dst: web}, from: edge34, why: drop.Spoof},
		{name: "a foreign address", packet: packet{protocol: tcp, src: "10.0.0.1:1232", dst: web}, from: edge34, why: drop.Spoof},
		{name: "another interface identifier", packet: packet{protocol: tcp, src: a34, dst: web}, from: "2001:db8:12:3400::1", why: drop.Spoof},
		{name: "a subnet of the edge", packet: packet{protocol: tcp, src: a34, dst: web}, from: "2001:db8:12:3401:0:c000:212:34", why: drop.Spoof},
		{name: "a port of nobody", packet: packet{protocol: udp, src: "192.0.2.18:1000", dst: web}, from: edge34, why: drop.Spoof},
		{name: "an echo request", packet: packet{protocol: icmpv4, kind: 8, src: a34, dst: "198.51.100.1"}, from: edge34},
		{name: "another's identifier", packet: packet{protocol: icmpv4, kind: 8, src: a35, dst: "198.51.100.1"}, from: edge34, why: drop.Spoof},
		{name: "no ports", packet: packet{protocol: gre, src: "192.0.2.18", dst: "198.51.100.1"}, from: edge34, why: drop.Spoof},
		{name: "an error", packet: packet{protocol: icmpv4, kind: 3, src: "192.0.2.18", dst: "198.51.100.1", quoted: got34[:28]}, from: edge34},
		{name: "an error of another", packet: packet{protocol: icmpv4, kind: 3, src: "192.0.2.18", dst: "198.51.100.1", quoted: got34[:28]}, from: edge35, why: drop.Spoof},
		{name: "an error about a packet to another address", packet: packet{protocol: icmpv4, kind: 3, src: "192.0.2.19", dst: "198.51.100.1", quoted: got34[:28]}, from: edge34, why: drop.Spoof},
	} {
		s.check(t, r)
	}
	whole := mape.Rule{IPv6: prefix("2001:db8:100::/48"), IPv4: prefix("198.18.0.0/16"), EABits: 8, Draft03: true}
	r = resolver(t, Relay{[]mape.Rule{shared, whole}}, at(br))
	const net52 = "2001:db8:100:3400:c6:1234:0:0" // 198.18.52.0 in draft 03
	for _, s := range []step{
		{name: "a prefix", packet: packet{protocol: gre, src: "198.51.100.1", dst: "198.18.52.9"}, to: net52},
		{name: "a later fragment to a prefix", packet: packet{protocol: udp, src: "198.51.100.1", dst: "198.18.52.9", offset: 1480}, to: net52},
		{name: "from a prefix", packet: packet{protocol: udp, src: "198.18.52.9:7", dst: "198.51.100.1:80"}, from: net52},
		{name: "from another prefix", packet: packet{protocol: udp, src: "198.18.53.9:7", dst: "198.51.100.1:80"}, from: net52, why: drop.Spoof},
		{name: "a router behind the edge", packet: packet{protocol: icmpv4, kind: 11, src: "198.18.52.1", dst: "198.51.100.1", quoted: got34[:28]}, from: net52},
	} {
		s.check(t, r)
	}
}

// Only the first fragment has ports. The others follow it, and no other end can take its place.
func TestFragments(t *testing.T) {
	r := resolver(t, Relay{[]mape.Rule{shared}}, at(br))
	first := packet{protocol: udp, src: "198.51.100.1:80", dst: "192.0.2.18:1232", id: 7, more: true}
	later := packet{protocol: udp, src: "198.51.100.1", dst: "192.0.2.18", id: 7, offset: 1480}
	step{name: "before the first one", packet: later, why: drop.Unresolved}.check(t, r)
	step{packet: first, to: edge34}.check(t, r)
	step{packet: later, to: edge34}.check(t, r)
	other := later
	other.id++
	step{name: "of another packet", packet: other, why: drop.Unresolved}.check(t, r)
	other = later
	other.protocol = tcp
	step{name: "of another protocol", packet: other, why: drop.Unresolved}.check(t, r)
	other = first
	other.dst = "192.0.2.18:1236"
	step{name: "the number again", packet: other, to: edge35}.check(t, r)
	step{packet: later, to: edge35}.check(t, r)

	sent := packet{protocol: udp, src: "192.0.2.18:1232", dst: "198.51.100.1:80", id: 9, more: true}
	tail := packet{protocol: udp, src: "192.0.2.18", dst: "198.51.100.1", id: 9, offset: 1480}
	step{name: "before the first one", packet: tail, from: edge34, why: drop.Spoof}.check(t, r)
	step{packet: sent, from: edge34}.check(t, r)
	step{packet: tail, from: edge34}.check(t, r)
	step{name: "another's", packet: tail, from: edge35, why: drop.Spoof}.check(t, r)
	forged := sent
	forged.src = "192.0.2.18:1236"
	step{name: "the same number of another", packet: forged, from: edge35}.check(t, r)
	step{packet: tail, from: edge34}.check(t, r)
	step{name: "not to be sent to where it came from", packet: tail, why: drop.NoPeer}.check(t, r)
}

// A later fragment that has arrived before the first one waits for it for a second. An entry is
// valid for 20 to 30 s.
func TestHeldFragments(t *testing.T) {
	r := resolver(t, Relay{[]mape.Rule{shared}}, at(br))
	now := time.Unix(1e9, 0)
	first := packet{protocol: udp, src: "198.51.100.1:80", dst: "192.0.2.18:1232", id: 7, more: true}
	later := packet{protocol: udp, src: "198.51.100.1", dst: "192.0.2.18", id: 7, offset: 1480}.bytes(t)
	_, _, again := r.Next(now)
	if again != now.Add(turnTime) {
		t.Errorf("again after %v", again.Sub(now))
	}
	if !r.Hold(later, now) {
		t.Fatal("not held")
	}
	if send, lost, again := r.Next(now); len(send) > 0 || lost > 0 || !again.After(now) || again.After(now.Add(100*time.Millisecond)) {
		t.Errorf("%v, %d, again after %v", send, lost, again.Sub(now))
	}
	step{packet: first, to: edge34}.check(t, r)
	send, lost, _ := r.Next(now.Add(time.Millisecond))
	if lost > 0 || len(send) != 1 || send[0].To.Addr() != addr(edge34) || string(send[0].Bytes) != string(later) {
		t.Errorf("%v, %d", send, lost)
	}
	other := packet{protocol: udp, src: "198.51.100.2", dst: "192.0.2.18", id: 7, offset: 1480}.bytes(t)
	held := 0
	for r.Hold(other, now) {
		held++
	}
	if held != maxHeld {
		t.Errorf("%d are held", held)
	}
	if send, lost, _ = r.Next(now.Add(holdTime - 1)); len(send)+lost > 0 {
		t.Errorf("%d and %d too early", len(send), lost)
	}
	if _, lost, _ = r.Next(now.Add(holdTime)); lost != maxHeld || !r.Hold(other, now) {
		t.Errorf("%d were lost", lost)
	}
	for n := time.Duration(0); n < 2; n++ {
		r.Next(now.Add((n + 1) * turnTime))
		if _, why := r.To(later); why != drop.None {
			t.Errorf("after %v: %v", (n+1)*turnTime, why)
		}
	}
	r.Next(now.Add(3 * turnTime))
	if _, why := r.To(later); why != drop.Unresolved {
		t.Errorf("after three turns: %v", why)
	}
}

// Any number of first fragments needs the same memory, and those of the last moments are known.
func TestFragmentsAreBounded(t *testing.T) {
	r := resolver(t, Relay{[]mape.Rule{shared}}, at(br))
	p := packet{protocol: udp, src: "198.51.100.1:80", dst: "192.0.2.18:1232", more: true}.bytes(t)
	flood := func() {
		for id := range 1 << 16 {
			binary.BigEndian.PutUint16(p[4:], uint16(id))
			if _, why := r.To(p); why != drop.None {
				t.Fatal(why)
			}
		}
	}
	if n := testing.AllocsPerRun(1, flood); n > 0 {
		t.Errorf("%v allocations", n)
	}
	later := packet{protocol: udp, src: "198.51.100.1", dst: "192.0.2.18", offset: 1480, id: 0xffff}
	step{name: "the last one", packet: later, to: edge34}.check(t, r)
}

func newEdge(t testing.TB, psid string, rules ...mape.Rule) (resolve.Agent, mape.Edge) {
	own, err := shared.Edge(addr("2001:db8:12:" + psid + "::1"))
	if err != nil {
		t.Fatal(err)
	}
	m := Edge{Mode: "map_e", Own: own, Relays: []resolve.Host{{Addr: addr(br)}, {Name: "br.example.net"}}, Rules: rules}
	return resolver(t, m, resolve.Site{Local: own.IPv6, Hosts: [][]netip.Addr{{addr(br)}, {addr("2001:db8:ffff::2")}}}), own
}

func TestEdge(t *testing.T) {
	const web, a34, a35, br2 = "198.51.100.1:80", "192.0.2.18:1232", "192.0.2.18:1236", "2001:db8:ffff::2"
	common := []step{
		{name: "to the internet", packet: packet{protocol: tcp, src: a34, dst: web}, to: br},
		{name: "a ping", packet: packet{protocol: icmpv4, kind: 8, src: a34, dst: "198.51.100.1"}, to: br},
		{name: "a later fragment", packet: packet{protocol: udp, src: "192.0.2.18", dst: "198.51.100.1", offset: 1480}, to: br},
		{name: "another's port", packet: packet{protocol: tcp, src: a35, dst: web}, why: drop.Spoof},
		{name: "not translated", packet: packet{protocol: tcp, src: "192.168.0.2:1232", dst: web}, why: drop.Spoof},
		{name: "to itself", packet: packet{protocol: tcp, src: a34, dst: "192.0.2.18:2256"}, why: drop.Loop},
		{name: "from the relay", packet: packet{protocol: tcp, src: web, dst: a34}, from: br},
		{name: "from the other relay", packet: packet{protocol: tcp, src: web, dst: a34}, from: br2},
		{name: "to another's port", packet: packet{protocol: tcp, src: web, dst: a35}, from: br, why: drop.Spoof},
		{name: "to another's address", packet: packet{protocol: tcp, src: web, dst: "192.0.2.19:1232"}, from: br, why: drop.Spoof},
		{name: "a later fragment from the relay", packet: packet{protocol: udp, src: "198.51.100.1", dst: "192.0.2.18", offset: 1480}, from: br},
	}
	hub, _ := newEdge(t, "3400")
	for _, s := range append(common, []step{
		{name: "to the other edge", packet: packet{protocol: tcp, src: a34, dst: a35}, to: br},
		{name: "from the other edge", packet: packet{protocol: tcp, src: a35, dst: a34}, from: edge35, why: drop.ForeignSource},
	}...) {
		s.check(t, hub)
	}
	mesh, _ := newEdge(t, "3400", shared)
	for _, s := range append(common, []step{
		{name: "to the other edge", packet: packet{protocol: tcp, src: a34, dst: a35}, to: edge35},
		{name: "to a port of nobody", packet: packet{protocol: tcp, src: a34, dst: "192.0.2.20:80"}, why: drop.NoPeer},
		{name: "without ports to an address of the rule", packet: packet{protocol: gre, src: "192.0.2.18", dst: "192.0.2.20"}, why: drop.Spoof},
		{name: "a later fragment to an address of the rule", packet: packet{protocol: udp, src: "192.0.2.18", dst: "192.0.2.20", offset: 1480}, why: drop.Unresolved},
		{name: "from the other edge", packet: packet{protocol: tcp, src: a35, dst: a34}, from: edge35},
		{name: "from the other edge with another's port", packet: packet{protocol: tcp, src: "192.0.2.18:1240", dst: a34}, from: edge35, why: drop.Spoof},
		{name: "from a host of the internet", packet: packet{protocol: tcp, src: web, dst: a34}, from: edge35, why: drop.Spoof},
	}...) {
		s.check(t, mesh)
	}
	own, _ := shared.Edge(addr(edge34))
	m := Edge{Mode: "map_e", Own: own, Relays: []resolve.Host{{Addr: addr(br)}, {Addr: addr(br2)}}}
	r := resolver(t, m, resolve.Site{Local: own.IPv6, Down: []netip.Addr{addr(br)}})
	step{name: "the first relay is down", packet: packet{protocol: tcp, src: a34, dst: web}, to: br2}.check(t, r)
	r = resolver(t, m, resolve.Site{Local: own.IPv6, Down: []netip.Addr{addr(br), addr(br2)}})
	step{name: "all relays are down", packet: packet{protocol: tcp, src: a34, dst: web}, to: br}.check(t, r)
	m.Relays = []resolve.Host{{Name: "br.example.net"}}
	step{name: "no address of the relay", packet: packet{protocol: tcp, src: a34, dst: web}, why: drop.NoRoute}.check(t, resolver(t, m, resolve.Site{Local: own.IPv6, Hosts: make([][]netip.Addr, 1)}))
	if _, err := m.Resolver(at(edge35)); err == nil || !strings.Contains(err.Error(), edge34) {
		t.Errorf("another local address: %v", err)
	}
	if a, p, ok := m.Share(); !ok || a != addr("192.0.2.18") || p.PSID != 0x34 {
		t.Errorf("%v, %v, %v", a, p, ok)
	}
}

func TestAFTR(t *testing.T) {
	bind := func(v4, v6 string, psid uint16, length int) mape.Edge {
		return mape.Edge{IPv4: netip.PrefixFrom(addr(v4), 32), IPv6: addr(v6), Ports: mape.Ports{Offset: 6, PSIDLen: length, PSID: psid}}
	}
	list := []mape.Edge{bind("192.0.2.1", "2001:db8:1::1", 0, 0), bind("192.0.2.2", "2001:db8:2::1", 1, 4), bind("192.0.2.2", "2001:db8:2::2", 2, 4)}
	r := resolver(t, AFTR{list}, at(br))
	const web = "198.51.100.1:80"
	for _, s := range []step{
		{name: "all ports", packet: packet{protocol: gre, src: "198.51.100.1", dst: "192.0.2.1"}, to: "2001:db8:1::1"},
		{name: "set 1", packet: packet{protocol: udp, src: web, dst: "192.0.2.2:1088"}, to: "2001:db8:2::1"},
		{name: "set 2", packet: packet{protocol: udp, src: web, dst: "192.0.2.2:1152"}, to: "2001:db8:2::2"},
		{name: "set 3", packet: packet{protocol: udp, src: web, dst: "192.0.2.2:1216"}, why: drop.NoPeer},
		{name: "no set", packet: packet{protocol: udp, src: web, dst: "192.0.2.2:80"}, why: drop.NoPeer},
		{name: "no binding", packet: packet{protocol: udp, src: web, dst: "192.0.2.3:1088"}, why: drop.NoPeer},
		{name: "without ports", packet: packet{protocol: gre, src: "198.51.100.1", dst: "192.0.2.2"}, why: drop.NoPeer},
		{name: "from set 1", packet: packet{protocol: udp, src: "192.0.2.2:1088", dst: web}, from: "2001:db8:2::1"},
		{name: "another's", packet: packet{protocol: udp, src: "192.0.2.2:1152", dst: web}, from: "2001:db8:2::1", why: drop.Spoof},
	} {
		s.check(t, r)
	}
	b4 := resolver(t, Edge{Mode: "lw4o6", Own: mape.Edge{IPv4: list[1].IPv4, Ports: list[1].Ports}, Relays: []resolve.Host{{Addr: addr(br)}}}, at("2001:db8:2::1"))
	step{name: "the B4", packet: packet{protocol: udp, src: "192.0.2.2:1088", dst: web}, to: br}.check(t, b4)
	step{name: "the B4", packet: packet{protocol: udp, src: web, dst: "192.0.2.2:1088"}, from: br}.check(t, b4)
	for want, other := range map[string]mape.Edge{
		"different form": bind("192.0.2.2", "2001:db8:2::3", 3, 5),
		"same port set":  bind("192.0.2.2", "2001:db8:2::3", 2, 4),
		"all ports":      bind("192.0.2.1", "2001:db8:2::3", 0, 0),
		"IPv6 address":   bind("192.0.2.9", "192.0.2.1", 0, 0),
		"0 to 15":        bind("192.0.2.9", "2001:db8:9::1", 16, 4),
	} {
		if _, err := (AFTR{append(list, other)}).Resolver(at(br)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for _, m := range []resolve.Mechanism{AFTR{list}, Relay{[]mape.Rule{shared}}, Edge{Mode: "lw4o6", Own: list[0]}} {
		if _, err := m.Resolver(at("192.0.2.9")); err == nil || !strings.Contains(err.Error(), "IPv6 address of this host") {
			t.Errorf("over IPv4: %v", err)
		}
	}
	if _, err := (Relay{[]mape.Rule{shared, shared}}).Resolver(at(br)); err == nil || !strings.Contains(err.Error(), "two rules") {
		t.Errorf("the same rule twice: %v", err)
	}
}

// For any rule, packets go where package mape says, and may come from there only.
func TestProperty(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		v4, q, offset := 8+random.IntN(25), random.IntN(9), random.IntN(7)
		r := mape.Rule{IPv4: netip.PrefixFrom(addr("198.51.100.77"), v4).Masked(), EABits: 32 - v4 + q, Ports: mape.Ports{Offset: offset}, Draft03: random.IntN(2) == 0}
		switch random.IntN(3) {
		case 0: // prefixes
			r.EABits = random.IntN(33 - v4)
		case 1: // shared without EA bits
			if v4 == 32 {
				r.EABits, r.Ports = 0, mape.Ports{Offset: offset, PSIDLen: q, PSID: uint16(random.IntN(1 << q))}
			}
		}
		r.IPv6 = netip.PrefixFrom(addr("2001:db8:55aa:c3c3::"), 64-r.EABits-random.IntN(64-r.EABits)).Masked()
		if err := r.Check(); err != nil {
			continue
		}
		list, err := newRules([]mape.Rule{r})
		if err != nil {
			t.Fatal(err)
		}
		a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, word4(r.IPv4.Addr())|random.Uint32()&uint32(1<<(32-v4)-1))))
		p := uint16(random.Uint32())
		want, err := r.To(a, p)
		end, f := list.at(word4(a), port{p, withPort})
		if (err == nil) != (f == someone) || err == nil && end.Addr() != want.IPv6 {
			t.Fatalf("%+v: %v, port %d: %v, %v, want %v, %v", r, a, p, end.Addr(), f, want.IPv6, err)
		}
	}
}

func TestNoAllocs(t *testing.T) {
	ce, _ := newEdge(t, "3400", shared)
	relay := resolver(t, Relay{[]mape.Rule{shared}}, at(br))
	out := packet{protocol: udp, src: "192.0.2.18:1232", dst: "198.51.100.1:80"}.bytes(t)
	in := packet{protocol: udp, src: "198.51.100.1:80", dst: "192.0.2.18:1232"}.bytes(t)
	first := packet{protocol: udp, src: "192.0.2.18:1232", dst: "198.51.100.1:80", more: true}.bytes(t)
	from34, fromBR := resolve.EndpointOf(netip.AddrPortFrom(addr(edge34), 0)), resolve.EndpointOf(netip.AddrPortFrom(addr(br), 0))
	if n := testing.AllocsPerRun(100, func() {
		_, a := ce.To(out)
		_, b := relay.To(in)
		if a != drop.None || b != drop.None || ce.From(fromBR, from34, in) != drop.None || relay.From(from34, fromBR, out) != drop.None || relay.From(from34, fromBR, first) != drop.None {
			t.Fatal(a, b)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever a packet has after its header, nothing reads beyond its end.
func FuzzPackets(f *testing.F) {
	ce, _ := newEdge(f, "3400", shared)
	relay := resolver(f, Relay{[]mape.Rule{shared}}, at(br))
	from := resolve.EndpointOf(netip.AddrPortFrom(addr(edge34), 0))
	sent := packet{protocol: udp, src: "192.0.2.18:1232", dst: "198.51.100.1:80"}.bytes(f)
	f.Add(sent)
	f.Add(packet{protocol: icmpv4, kind: 3, src: "198.51.100.1", dst: "192.0.2.18", quoted: sent}.bytes(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < header.IPv4Len || b[0]>>4 != 4 || int(b[0]&15) < 5 || int(b[0]&15)*4 > len(b) {
			return
		}
		for _, r := range []resolve.Agent{ce, relay} {
			end, why := r.To(b)
			if why == drop.None && !end.IsPlain6() {
				t.Errorf("%x goes to %v", b, end)
			}
			r.From(from, from, b)
		}
	})
}

func BenchmarkRelay(b *testing.B) {
	relay := resolver(b, Relay{[]mape.Rule{shared}}, at(br))
	in := packet{protocol: udp, src: "198.51.100.1:80", dst: "192.0.2.18:1232"}.bytes(b)
	out := packet{protocol: udp, src: "192.0.2.18:1232", dst: "198.51.100.1:80"}.bytes(b)
	from := resolve.EndpointOf(netip.AddrPortFrom(addr(edge34), 0))
	b.Run("to", func(b *testing.B) {
		for b.Loop() {
			relay.To(in)
		}
	})
	b.Run("from", func(b *testing.B) {
		for b.Loop() {
			relay.From(from, from, out)
		}
	})
}
