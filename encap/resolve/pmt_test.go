package resolve

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/internal/vectors"
)

const anycast = "192.88.99.1"

func pmtOf(provider, common string, subnet uint16, mode PMTMode) PMT {
	return PMT{ProviderPrefix: netip.MustParsePrefix(provider), Common: netip.MustParsePrefix(common),
		Customers: prefixes("100.64.0.0/10"), Subnet: subnet, Mode: mode}
}

// pmts are mappings with and without room for the customer's subnets.
var pmts = map[string]PMT{
	"/64, one subnet":     pmtOf("2001:db8::/32", "0.0.0.0/0", 1, PMTRewrite),
	"/64, one, npt":       pmtOf("2001:db8::/32", "0.0.0.0/0", 1, PMTNPT),
	"/54, one subnet":     pmtOf("2001:db8::/32", "100.64.0.0/10", 1, PMTRewrite),
	"/54, one, npt":       pmtOf("2001:db8::/32", "100.64.0.0/10", 1, PMTNPT),
	"/48, subnets":        pmtOf("2001:d00::/26", "100.64.0.0/10", 0, PMTRewrite),
	"/48, subnets, npt":   pmtOf("2001:d00::/26", "100.64.0.0/10", 0, PMTNPT),
	"/46, subnets":        pmtOf("2001:d00::/24", "100.64.0.0/10", 0, PMTRewrite),
	"/46, subnets, npt":   pmtOf("2001:d00::/24", "100.64.0.0/10", 0, PMTNPT),
	"/32 of one customer": {ProviderPrefix: netip.MustParsePrefix("2001:db8::/32"), Common: netip.MustParsePrefix("100.64.1.2/32"), Customers: prefixes("100.64.1.2/32"), Mode: PMTRewrite},
}

func TestPMTVector(t *testing.T) {
	r := resolver(t, pmts["/64, one subnet"], at(anycast))
	outer, in := vector(t, "PMT-1a")
	want := header.IPv6(vectors.Read(t)["PMT-1b"])
	if why := received(r, outer, in); why != drop.None {
		t.Fatal(why)
	}
	in[7]-- // it is forwarded
	if !bytes.Equal(in, want) {
		t.Errorf("\n got %x\nwant %x", []byte(in), []byte(want))
	}
	// The answer goes back to the customer.
	answer := header.IPv6(bytes.Clone(want))
	copy(answer.Source(), want.Dest())
	copy(answer.Dest(), want.Source())
	dst, why := r.To(answer)
	if why != drop.None || dst.Addr() != outer.Src() || answer.Dst() != netip.MustParseAddr("2002:6440:102:1::1") || !whole(answer) {
		t.Errorf("%v, %v: %x", dst.Addr(), why, []byte(answer))
	}
}

// upper returns a packet between two addresses with a transport header and 4 more bytes,
// and correct checksums.
func upper(src, dst string, protocol byte) header.IPv6 {
	ip := inner(src, dst)
	field := map[byte]int{header.TCP: 16, header.UDP: 6, header.ICMPv6: 2}[protocol]
	body := make([]byte, map[byte]int{header.TCP: 24, header.UDP: 12, header.ICMPv6: 12}[protocol])
	for i := range body {
		body[i] = byte(i*37 + 5)
	}
	body[0] = 128 // an echo request, if it is ICMPv6
	ip[6], ip[5] = protocol, byte(len(body))
	ip = append(ip, body...)
	binary.BigEndian.PutUint16(ip[40+field:], 0)
	binary.BigEndian.PutUint16(ip[40+field:], ^header.Sum(ip[40:], pseudo(ip)))
	return ip
}

func pseudo(ip header.IPv6) uint32 {
	return header.PseudoSum(ip.Source(), ip.Dest(), ip.PayloadLen(), ip.NextHeader())
}

// whole reports whether the transport checksum is correct.
func whole(ip header.IPv6) bool { return header.Sum(ip.Payload(), pseudo(ip)) == 0xffff }

// errorAbout returns an ICMPv6 error with a quote of n bytes.
func errorAbout(src, dst string, quote []byte, n int) header.IPv6 {
	ip := inner(src, dst)
	ip = append(append(ip, 1, 3, 0, 0, 0, 0, 0, 0), quote[:min(n, len(quote))]...)
	ip[6], ip[5] = header.ICMPv6, byte(len(ip)-40)
	binary.BigEndian.PutUint16(ip[42:], ^header.Sum(ip[40:], pseudo(ip)))
	return ip
}

// TestPMTBothWays translates packets in both directions, with random addresses: the
// result is the same packet, and the checksum is correct after each step.
func TestPMTBothWays(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for name, m := range pmts {
		t.Run(name, func(t *testing.T) {
			r := resolver(t, m, at(anycast))
			for range 300 {
				customer := v4("100.64.0.0") | random.Uint32()>>10
				if m.Common.Bits() == 32 {
					customer = v4("100.64.1.2")
				}
				subnet := uint64(m.Subnet)
				if m.external() <= 48 {
					subnet = uint64(random.Uint32N(0xffff))
				}
				id := random.Uint64()
				if random.IntN(3) == 0 {
					id |= 0xffff << 48
				}
				inside, native := header.Word6{Hi: prefix6to4(customer).Hi | subnet, Lo: id}.Addr().String(), "2001:4860::8"
				for _, protocol := range []byte{header.TCP, header.UDP, header.ICMPv6} {
					out := upper(inside, native, protocol)
					if out[46] == 0 && out[47] == 0 && protocol == header.UDP {
						continue
					}
					before := bytes.Clone(out)
					outer := header.IPv4(inner(addr4(customer).String(), anycast))
					if why := received(r, outer, out); why != drop.None {
						t.Fatalf("%s: %v", inside, why)
					}
					outside := out.Src()
					if !m.ProviderPrefix.Contains(outside) || !whole(out) {
						t.Fatalf("%s outside is %v, checksum %v", inside, outside, whole(out))
					}
					if got := [2]uint16{sum6(header.ReadWord6(before[8:])), sum6(header.ReadWord6(out.Source()))}; m.Mode == PMTNPT && got[0] != got[1] && (got[0]^got[1]) != 0xffff {
						t.Fatalf("%s > %v is not neutral", inside, outside)
					}
					answer := upper(native, outside.String(), protocol)
					dst, why := r.To(answer)
					if why != drop.None || dst.IPv4() != customer || answer.Dst().String() != netip.MustParseAddr(inside).String() || !whole(answer) {
						t.Fatalf("%v goes to %v, %v, %v, checksum %v", outside, dst.Addr(), why, answer.Dst(), whole(answer))
					}
					// Errors about both, with quotes of different lengths.
					for _, n := range []int{40, 42, 44, 47, 48, 58, 64, 100} {
						e := errorAbout("2001:4860::1", outside.String(), out, n)
						want := errorAbout("2001:4860::1", inside, before, n)
						if _, why := r.To(e); why != drop.None || !whole(e) || n != 47 && !same(e, want) { // at 47 half a checksum is quoted
							t.Fatalf("error about %d bytes: %v, %v\n got %x\nwant %x", n, why, whole(e), []byte(e), []byte(want))
						}
						e = errorAbout(inside, "2001:4860::1", answer, n)
						want = errorAbout(outside.String(), "2001:4860::1", upper(native, outside.String(), protocol), n)
						if why := received(r, outer, e); why != drop.None || !whole(e) || n != 47 && !same(e, want) { // at 47 half a checksum is quoted
							t.Fatalf("error about %d bytes: %v, %v\n got %x\nwant %x", n, why, whole(e), []byte(e), []byte(want))
						}
					}
				}
			}
		})
	}
}

// same compares packets. Checksums of 0 and 0xffff count as equal.
func same(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i += 2 {
		x, y := a[i:min(i+2, len(a))], b[i:min(i+2, len(b))]
		if !bytes.Equal(x, y) && (header.Sum(x, 0)^header.Sum(y, 0) != 0xffff) {
			return false
		}
	}
	return true
}

func TestPMTRules(t *testing.T) {
	r := resolver(t, pmts["/64, one subnet"], at(anycast))
	const native, customer = "2001:4860::8", "100.64.1.2"
	for _, f := range []flow{
		{in: customer, to: anycast, src: "2002:6440:102:1::1", dst: native},
		{in: "100.64.1.3", to: anycast, src: "2002:6440:102:1::1", dst: native, why: drop.Spoof},
		{in: customer, to: anycast, src: "2002:6440:102:2::1", dst: native, why: drop.Spoof}, // another subnet
		{in: customer, to: anycast, src: native, dst: native, why: drop.Spoof},
		{in: "198.51.100.2", to: anycast, src: "2002:c633:6402:1::1", dst: native, why: drop.ForeignSource},
		{in: customer, to: anycast, src: "2002:6440:102:1::1", dst: "2002:6440:103:1::1", why: drop.NoPeer},
		{in: customer, to: anycast, src: "2002:6440:102:1::1", dst: "2001:db8:6440:103::1", why: drop.NoPeer},
		{in: customer, to: anycast, src: "2002:6440:102:1::1", dst: "2001:4860::5efe:192.88.99.1", why: drop.Loop},
		{in: customer, to: anycast, src: "fe80::1", dst: native, why: drop.Martian},
		{in: customer, to: anycast, src: "2002:6440:102:1::1", dst: "ff02::1", why: drop.Martian},
		{in: customer, to: anycast, src: "2002:6440:102:1::1", dst: "::1", why: drop.Martian},
		{src: native, dst: "2001:db8:6440:102::1", out: customer},
		{src: native, dst: "2001:db8:c633:6402::1", why: drop.NoPeer}, // no customer has it
		{src: native, dst: "2001:db9:6440:102::1", why: drop.NoPeer},
		{src: "2002:c633:6402::1", dst: "2001:db8:6440:102::1", why: drop.Spoof},
		{src: "2001:db8:6440:103::1", dst: "2001:db8:6440:102::1", why: drop.Spoof},
		{src: "2001:db8:ff::80", dst: "2001:db8:6440:102::1", out: customer}, // the provider's own server
		{src: "fe80::1", dst: "2001:db8:6440:102::1", why: drop.Martian},
		{src: "2001:4860::5efe:192.88.99.1", dst: "2001:db8:6440:102::1", why: drop.Loop},
	} {
		f.check(t, r)
	}
	// RFC 6296 sections 3.4 and 3.5: no word can compensate the change.
	outer := header.IPv4(inner(customer, anycast))
	for name, src := range map[string]string{"/64, one, npt": "2002:6440:102:1:ffff:ffff:ffff:ffff", "/48, subnets, npt": "2002:6440:102:ffff::1"} {
		ip := header.IPv6(inner(src, native))
		if why := received(resolver(t, pmts[name], at(anycast)), outer, ip); why != drop.Spoof || ip.Src().String() != src {
			t.Errorf("%s: %v, %v", src, why, ip.Src())
		}
	}
	// A quote that is not ours does not change.
	for _, quote := range [][]byte{inner("2001:4860::8", "2001:4860::9"), inner("2001:4860::8", "2002:6440:102:9::1"), make([]byte, 40)} {
		e := errorAbout("2002:6440:102:1::1", native, quote, 40)
		if why := received(r, outer, e); why != drop.None || !whole(e) || !bytes.Equal(e[48:], quote) {
			t.Errorf("%v: %x", why, []byte(e))
		}
	}
	narrow := resolver(t, pmts["/54, one subnet"], at(anycast))
	flow{src: native, dst: "2001:db8:4:800::1", out: "100.64.1.2"}.check(t, narrow)
	flow{src: native, dst: "2001:db8:4:801::1", why: drop.NoPeer}.check(t, narrow) // bits that no customer has
}

// TestPMTChecksumsThatAreNot: a UDP checksum of 0 does not change, an updated one never
// becomes 0, and a missing one is ignored.
func TestPMTChecksumsThatAreNot(t *testing.T) {
	r := resolver(t, pmts["/64, one subnet"], at(anycast))
	outer := header.IPv4(inner("100.64.1.2", anycast))
	without := upper("2002:6440:102:1::1", "2001:4860::8", header.UDP)
	without[46], without[47] = 0, 0
	if why := received(r, outer, without); why != drop.None || without[46] != 0 || without[47] != 0 {
		t.Errorf("%v: %x", why, []byte(without))
	}
	for sum := range 0x10000 {
		ip := upper("2002:6440:102:1::1", "2001:4860::8", header.UDP)
		binary.BigEndian.PutUint16(ip[48:], uint16(sum))
		binary.BigEndian.PutUint16(ip[46:], 0)
		binary.BigEndian.PutUint16(ip[46:], ^header.Sum(ip[40:], pseudo(ip)))
		if ip[46] == 0 && ip[47] == 0 {
			continue
		}
		received(r, outer, ip)
		if ip[46] == 0 && ip[47] == 0 || !whole(ip) {
			t.Fatalf("%x", []byte(ip))
		}
	}
	for n := header.IPv6Len; n < 52; n++ { // the number of bytes that are present
		ip := upper("2002:6440:102:1::1", "2001:4860::8", header.UDP)
		behind := bytes.Clone(ip[n:])
		if why := received(r, outer, ip[:n]); why != drop.None || !bytes.Equal(behind, ip[n:]) || (n >= 48) != whole(ip) {
			t.Errorf("%d bytes: %v, %x", n, why, []byte(ip))
		}
	}
	later := upper("2002:6440:102:1::1", "2001:4860::8", header.UDP) // a later fragment has no checksum
	later[6] = header.FragmentHdr
	copy(later[40:], []byte{header.UDP, 0, 0, 8, 1, 2, 3, 4})
	behind := bytes.Clone(later[40:])
	if why := received(r, outer, later); why != drop.None || !bytes.Equal(behind, later[40:]) {
		t.Errorf("%v: %x", why, []byte(later))
	}
}

func TestPMTNoAllocs(t *testing.T) {
	for name, m := range pmts {
		r := resolver(t, m, at(anycast))
		subnet := "0"
		if m.Subnet == 1 {
			subnet = "1"
		}
		out := upper("2002:6440:102:"+subnet+"::1", "2001:4860::8", header.TCP)
		outer := header.IPv4(inner("100.64.1.2", anycast))
		before := bytes.Clone(out)
		received(r, outer, out)
		in := upper("2001:4860::8", out.Src().String(), header.TCP)
		answer := bytes.Clone(in)
		if n := testing.AllocsPerRun(100, func() {
			copy(out, before)
			copy(in, answer)
			if dst, why := r.To(in); received(r, outer, out) != drop.None || why != drop.None || dst.IPv4() != v4("100.64.1.2") {
				t.Error(why)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestPMTWhereItCannotWork(t *testing.T) {
	good := pmts["/64, one subnet"]
	change := func(f func(m *PMT)) PMT { m := good; f(&m); return m }
	for _, c := range []struct {
		m    PMT
		want string
	}{
		{change(func(m *PMT) { m.ProviderPrefix = netip.MustParsePrefix("2001:db8::/40") }), "/40 and 32 IPv4 bits are 72"},
		{change(func(m *PMT) { m.ProviderPrefix = netip.MustParsePrefix("10.0.0.0/8") }), "use an IPv6 prefix"},
		{change(func(m *PMT) { m.ProviderPrefix = netip.MustParsePrefix("2002:db8::/32") }), "is 6to4's"},
		{change(func(m *PMT) { m.Common = netip.MustParsePrefix("2001:db8::/32") }), "use an IPv4 prefix that holds all customers"},
		{change(func(m *PMT) { m.Common = netip.MustParsePrefix("10.0.0.0/8") }), "100.64.0.0/10 are not all inside the common bits 10.0.0.0/8"},
		{change(func(m *PMT) { m.Customers = nil }), "set customers"},
		{change(func(m *PMT) { m.Mode = "nat" }), `mode "nat": use rewrite or npt`},
		{change(func(m *PMT) { m.ProviderPrefix = netip.MustParsePrefix("2000::/16") }), "leave it out"},
	} {
		if _, err := c.m.Resolver(at(anycast)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.m, err, c.want)
		}
	}
	if _, err := good.Resolver(at("::1")); err == nil || !strings.Contains(err.Error(), "needs an IPv4 address") {
		t.Error(err)
	}
	if _, err := change(func(m *PMT) { m.Common = netip.Prefix{} }).Resolver(at(anycast)); err != nil {
		t.Error(err)
	}
}

// FuzzPMT: no packet causes a panic, and only addresses and checksums change.
func FuzzPMT(f *testing.F) {
	_, in := vector(f, "PMT-1a")
	f.Add([]byte(in))
	e := errorAbout("2002:6440:102:1::1", "2001:4860::1", upper("2001:4860::8", "2002:6440:102:1::1", header.TCP), 100)
	f.Add([]byte(e))
	f.Fuzz(func(t *testing.T, b []byte) {
		ip, why := header.ParseIPv6(b)
		if why != drop.None {
			return
		}
		n := len(ip)
		for _, m := range pmts {
			r := resolver(t, m, at(anycast))
			p := header.IPv6(bytes.Clone(ip))
			copy(p.Source(), []byte{0x20, 2, 100, 64, 1, 2, 0, byte(m.Subnet)})
			received(r, inner("100.64.1.2", anycast), p)
			copy(p.Dest(), p.Source())
			r.To(p)
			if len(p) != n || header.Version(p) != 6 {
				t.Fatalf("%x", []byte(p))
			}
		}
	})
}
