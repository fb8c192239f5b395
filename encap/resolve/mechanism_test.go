package resolve

import (
	"net/netip"
	"slices"
	"testing"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/internal/vectors"
)

// vector returns a test vector, its outer and its inner packet.
func vector(t testing.TB, name string) (header.IPv4, header.IPv6) {
	t.Helper()
	outer, r := header.ParseIPv4(vectors.Read(t)[name])
	if r != drop.None {
		t.Fatalf("%s: %v", name, r)
	}
	inner, r := header.ParseIPv6(outer.Payload())
	if r != drop.None {
		t.Fatalf("%s: %v", name, r)
	}
	return outer, inner
}

func at(local string, own ...string) Site {
	return Site{Local: netip.MustParseAddr(local), Own: prefixes(own...)}
}

func resolver(t testing.TB, m Mechanism, s Site) Resolver {
	t.Helper()
	r, err := m.Resolver(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// v4 returns an IPv4 address in the form of the resolvers.
func v4(s string) uint32 {
	if s == "" {
		return 0
	}
	w, _ := word4(netip.MustParseAddr(s))
	return w
}

// received returns what a resolver says of an inner packet in an outer one.
func received(r Resolver, outer, inner []byte) drop.Reason {
	o := header.OuterOf(outer)
	return r.From(EndpointOf(o.From), EndpointOf(o.At), inner)
}

// heard returns the outer headers of a packet from an IPv4 address.
func heard(from string) header.Outer {
	return header.Outer{From: netip.AddrPortFrom(netip.MustParseAddr(from), 0)}
}

func host(s string) Host { return Host{Addr: netip.MustParseAddr(s)} }

// flow is the expected result of a resolver for a packet between two inner addresses.
// With out it is the outer destination of To, with why the reason to drop it. With in,
// the packet is received from one outer address at another.
type flow struct {
	out, in  string // the outer destination expected of To; the outer source given to From
	to       string // the outer destination given to From
	src, dst string
	why      drop.Reason
}

func (f flow) check(t *testing.T, r Resolver) {
	t.Helper()
	ip := header.IPv6(inner(f.src, f.dst))
	if f.in == "" {
		if dst, why := r.To(ip); why != f.why || why == drop.None && dst.IPv4() != v4(f.out) {
			t.Errorf("%s > %s goes to %v, %v; want %s, %v", f.src, f.dst, dst.Addr(), why, f.out, f.why)
		}
		return
	}
	if why := received(r, inner(f.in, f.to), ip); why != f.why {
		t.Errorf("%s > %s from %s to %s: %v, want %v", f.src, f.dst, f.in, f.to, why, f.why)
	}
}

func TestVectorsOfMechanisms(t *testing.T) {
	router := SixToFour{Role: RoleRouter, Relay: host("192.88.99.1")}
	sixrd := SixRD{Prefix: netip.MustParsePrefix("2001:db8::/32"), MaskLen: 8, Role: RoleCE, Relays: []Host{host("10.0.0.1")}}
	br := sixrd
	br.Role, br.Relays = RoleBR, nil
	server := SixToFour{Role: RoleReturn, Sources: prefixes("2001:db8:5::/48")}
	for _, c := range []struct {
		name string
		from Mechanism // who sends it; nil: nobody does
		to   Mechanism // who receives it
		why  drop.Reason
	}{
		{"AUTO-1", V4Compat{}, V4Compat{}, drop.None},
		{"6TO4-1", router, router, drop.None},
		{"6TO4-2", router, SixToFour{Role: RoleRelay, Clients: prefixes("192.0.2.0/24")}, drop.None},
		{"6TO4-3", server, router, drop.None},
		{"6TO4-D1", nil, router, drop.Spoof},
		{"6TO4-D2", nil, router, drop.Martian},
		{"6TO4-D3", nil, router, drop.Spoof},
		{"6RD-1", sixrd, sixrd, drop.None},
		{"6RD-2", sixrd, br, drop.None},
		{"6RD-3", br, sixrd, drop.None},
		{"6RD-D1", nil, br, drop.Spoof},
	} {
		t.Run(c.name, func(t *testing.T) {
			outer, in := vector(t, c.name)
			if c.from != nil {
				dst, why := resolver(t, c.from, Site{Local: outer.Src()}).To(in)
				if why != drop.None || dst.Addr() != outer.Dst() {
					t.Errorf("goes to %v, %v; want %v", dst.Addr(), why, outer.Dst())
				}
			}
			if c.to != nil {
				if why := received(resolver(t, c.to, Site{Local: outer.Dst()}), outer, in); why != c.why {
					t.Errorf("arrives: %v, want %v", why, c.why)
				}
			}
		})
	}
}

// TestResolversNoAllocs: no mechanism allocates in either direction.
func TestResolversNoAllocs(t *testing.T) {
	for _, c := range []struct {
		m             Mechanism
		s             Site
		src, dst      string
		theirs, outer string
	}{
		{SixToFour{Role: RoleRouter, Relay: host("192.88.99.1")}, at("192.0.2.1", "2002:c000:201::1/16"), "2002:c000:201::1", "2001:db8::1", "198.51.100.2", "192.0.2.1"},
		{SixRD{Prefix: netip.MustParsePrefix("2001:db8::/32"), MaskLen: 8, Role: RoleCE, Relays: []Host{host("10.0.0.1")}}, at("10.1.1.1"), "2001:db8:101:100::1", "3fff::1", "10.0.0.1", "10.1.1.1"},
		{V4Compat{}, at("192.0.2.1"), "::192.0.2.1", "::198.51.100.2", "198.51.100.2", "192.0.2.1"},
		{SixToFour{Role: RoleRelay, Clients: prefixes("198.51.100.0/24")}, at("192.0.2.1"), "2001:db8::1", "2002:c633:6402::1", "198.51.100.2", "192.0.2.1"},
		{SixRD{Prefix: netip.MustParsePrefix("2001:db8::/32"), MaskLen: 8, Role: RoleBR}, at("10.0.0.1"), "3fff::1", "2001:db8:101:100::1", "10.1.1.1", "10.0.0.1"},
		{ISATAP{Routers: []Host{host("10.0.0.1")}}, at("10.1.1.1", "2001:db8:1::5efe:10.1.1.1/64"), "2001:db8:1::5efe:10.1.1.1", "3fff::1", "10.0.0.1", "10.1.1.1"},
		{isatapServer, at("10.0.0.1"), "3fff::1", "2001:db8:5efe:1::5efe:10.1.1.1", "10.1.1.1", "10.0.0.1"},
	} {
		r := resolver(t, c.m, c.s)
		out, in, outer := header.IPv6(inner(c.src, c.dst)), header.IPv6(inner(c.dst, c.src)), header.IPv4(inner(c.theirs, c.outer))
		if _, why := r.To(out); why != drop.None {
			t.Errorf("%T: %v", r, why)
		}
		if why := received(r, outer, in); why != drop.None {
			t.Errorf("%T: %v", r, why)
		}
		if n := testing.AllocsPerRun(100, func() { r.To(out); received(r, outer, in) }); n != 0 {
			t.Errorf("%T: %v allocations", r, n)
		}
	}
}

// TestLoops: a packet never goes to an address of ours, nor to one from which another
// mechanism would bring it back (RFC 6324 section 2, RFC 6169 section 5).
func TestLoops(t *testing.T) {
	s := at("192.0.2.1")
	s.Links = prefixes("192.0.2.1/24", "203.0.113.5/28")
	s.Delegated = prefixes("2001:db8:6464:100::/56")
	r := resolver(t, SixToFour{Role: RoleRouter, Relay: host("192.88.99.1")}, s)
	const site = "2002:c000:201:1::1"
	for _, f := range []flow{
		{src: site, dst: "2002:c000:201:2::1", why: drop.Loop},                        // our own site
		{src: site, dst: "2002:cb00:7105::1", why: drop.Loop},                         // our other address
		{src: site, dst: "2001:db8:1::5efe:c000:201", why: drop.Loop},                 // ISATAP, private form
		{src: site, dst: "2001:db8:1::200:5efe:203.0.113.5", why: drop.Loop},          // and the other
		{src: site, dst: "2002:c633:6402::200:5efe:192.0.2.1", why: drop.Loop},        // in the 6to4 prefix of another site
		{src: site, dst: "2001:0:4136:e378:0:63bf:3fff:fdfe", why: drop.Loop},         // Teredo client 192.0.2.1
		{src: site, dst: "2001:db8:6464:1ff::1", why: drop.Loop},                      // our 6rd prefix
		{src: "2001:db8:6464:1ff::1", dst: "2002:c633:6402::1", why: drop.Loop},       // arrived by 6rd
		{src: "2001:db8:2::5efe:192.0.2.1", dst: "2002:c633:6402::1", why: drop.Loop}, // arrived by ISATAP
		{src: site, dst: "2002:c000:2ff::1", why: drop.Martian},                       // our subnets' broadcast addresses
		{src: site, dst: "2002:cb00:710f::1", why: drop.Martian},
		{src: site, dst: "2002:cb00:710e::1", out: "203.0.113.14"},
		{src: "2002:c000:201::200:5efe:192.0.2.1", dst: "2002:c633:6402::1", out: "198.51.100.2"}, // ISATAP within the site
		{src: site, dst: "2001:0:4136:e378:0:63bf:3fff:fdfd", out: "192.88.99.1"},
		{in: "198.51.100.9", to: "192.0.2.1", src: "2001:0:4136:e378:0:63bf:3fff:fdfe", dst: site, why: drop.Loop},
		{in: "198.51.100.9", to: "192.0.2.1", src: "2001:db8:6464:100::1", dst: site, why: drop.Loop},
	} {
		f.check(t, r)
	}
}

func TestEmbedded(t *testing.T) {
	for _, c := range []struct {
		addr string
		want []Embedding
	}{
		{"2002:c000:201::1", []Embedding{{Scheme6to4, netip.MustParseAddr("192.0.2.1")}}},
		{"2001:0:4136:e378:0:63bf:3fff:fdd2", []Embedding{{SchemeTeredo, netip.MustParseAddr("192.0.2.45")}}},
		{"fe80::200:5efe:192.0.2.1", []Embedding{{SchemeISATAP, netip.MustParseAddr("192.0.2.1")}}},
		{"2002:c000:201::5efe:10.0.0.1", []Embedding{{Scheme6to4, netip.MustParseAddr("192.0.2.1")}, {SchemeISATAP, netip.MustParseAddr("10.0.0.1")}}},
		{"::192.0.2.1", []Embedding{{SchemeCompat, netip.MustParseAddr("192.0.2.1")}}},
		{"::1", nil}, {"::", nil}, {"::ffff:192.0.2.1", nil}, {"192.0.2.1", nil}, {"2001:db8::1", nil},
		{"2001:1::1", nil}, {"fe80::100:5efe:192.0.2.1", nil},
	} {
		got := Embedded(netip.MustParseAddr(c.addr))
		if len(got) != len(c.want) {
			t.Errorf("%s: %v", c.addr, got)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %v, want %v", c.addr, got[i], c.want[i])
			}
		}
	}
}

func TestTeredo(t *testing.T) {
	want := Teredo{netip.MustParseAddr("65.54.227.120"), netip.MustParseAddrPort("192.0.2.45:40000"), 0x8000}
	a := netip.MustParseAddr("2001:0:4136:e378:8000:63bf:3fff:fdd2")
	if got, ok := ParseTeredo(a); !ok || got != want || !got.Cone() || want.Addr() != a {
		t.Errorf("%+v, %v; %v", got, ok, want.Addr())
	}
	for _, s := range []string{"192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"} {
		if got, ok := ParseTeredo(netip.MustParseAddr(s)); ok {
			t.Errorf("%s: %+v", s, got)
		}
	}
}

// TestAddressesOfMechanisms: Embedded finds the address that a mechanism has embedded.
func TestAddressesOfMechanisms(t *testing.T) {
	for _, s := range []string{"192.0.2.1", "10.0.0.1", "255.255.255.255"} {
		a := netip.MustParseAddr(s)
		for _, c := range []struct {
			made   netip.Addr
			scheme Scheme
		}{
			{Prefix6to4(a).Addr(), Scheme6to4},
			{AddressISATAP(netip.MustParsePrefix("2001:db8::7/64"), a), SchemeISATAP},
			{AddressCompat(a), SchemeCompat},
			{Teredo{Server: a, Client: netip.AddrPortFrom(a, 1)}.Addr(), SchemeTeredo},
		} {
			if got := Embedded(c.made); len(got) != 1 || got[0] != (Embedding{c.scheme, a}) {
				t.Errorf("%v: %v, want %v by %s", c.made, got, a, c.scheme)
			}
		}
	}
}

func TestHosts(t *testing.T) {
	relay, name := host("192.88.99.1"), Host{Name: "isatap.example"}
	for _, c := range []struct {
		m    Mechanism
		want []Host
	}{
		{SixToFour{Relay: relay}, []Host{relay}}, {SixToFour{}, nil}, {SixRD{Relays: []Host{relay, name}}, []Host{relay, name}},
		{V4Compat{}, nil}, {ISATAP{Routers: []Host{name}}, []Host{name}}, {SixOverFour{}, nil}, {PMT{}, nil},
	} {
		if got := c.m.Hosts(); !slices.Equal(got, c.want) {
			t.Errorf("%T: %v, want %v", c.m, got, c.want)
		}
	}
	// Our own address may be on the list, and a name may have addresses of both versions.
	s := at("10.0.0.1", "2001:db8::5efe:10.0.0.1/64")
	s.Hosts = [][]netip.Addr{{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.2")}}
	flow{src: "2001:db8::5efe:10.0.0.1", dst: "3fff::1", out: "10.0.0.2"}.check(t, resolver(t, ISATAP{Routers: []Host{name}}, s))
}
