package mape

import (
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// shared is the rule of the examples in RFC 7597, appendix A.
var shared = Rule{IPv6: prefix("2001:db8::/40"), IPv4: prefix("192.0.2.0/24"), EABits: 16, Ports: Ports{Offset: DefaultOffset}}

// The examples of RFC 7597, appendix A, and of draft 03.
func TestExamples(t *testing.T) {
	draft := shared
	draft.Draft03 = true
	for _, c := range []struct {
		name       string
		rule       Rule
		v4, at     string
		psid       uint16
		psidLen    int
		firstPorts string
		ports      int
	}{
		{"1, 2 and 3", shared, "192.0.2.18/32", "2001:db8:12:3400:0:c000:212:34", 0x34, 8, "1232-1235 2256-2259 3280-3283", 252},
		{"draft 03", draft, "192.0.2.18/32", "2001:db8:12:3400:c0:2:1200:3400", 0x34, 8, "1232-1235 2256-2259 3280-3283", 252},
		{"4: not shared, no EA bits", Rule{IPv6: prefix("2001:db8:12:3400::/56"), IPv4: prefix("192.0.2.18/32")}, "192.0.2.18/32", "2001:db8:12:3400:0:c000:212:0", 0, 0, "0-65535", 65536},
		{"5: shared, no EA bits", Rule{IPv6: prefix("2001:db8:12:3400::/56"), IPv4: prefix("192.0.2.18/32"), Ports: Ports{Offset: 6, PSIDLen: 8, PSID: 0x34}}, "192.0.2.18/32", "2001:db8:12:3400:0:c000:212:34", 0x34, 8, "1232-1235 2256-2259 3280-3283", 252},
		{"a prefix", Rule{IPv6: prefix("2001:db8::/48"), IPv4: prefix("192.0.0.0/16"), EABits: 8}, "192.0.52.0/24", "", 0, 0, "0-65535", 65536},
	} {
		asked := addr("2001:db8:12:3400::1")
		if c.name == "a prefix" {
			asked = addr("2001:db8:0:3412::1")
			c.at = "2001:db8:0:3400:0:c000:3400:0"
		}
		e, err := c.rule.Edge(asked)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if e.IPv4.String() != c.v4 || e.IPv6 != addr(c.at) || e.Ports.PSID != c.psid || e.Ports.PSIDLen != c.psidLen || e.Ports.Count() != c.ports {
			t.Errorf("%s: %+v, %d ports", c.name, e, e.Ports.Count())
		}
		var ports []string
		for r := range e.Ports.Ranges() {
			if ports = append(ports, r.String()); len(ports) == 3 {
				break
			}
		}
		if got := strings.Join(ports, " "); got != c.firstPorts {
			t.Errorf("%s: ports %s", c.name, got)
		}
		back, err := c.rule.To(e.IPv4.Addr(), 1232)
		if err != nil || back != e {
			t.Errorf("%s: back: %+v, %v", c.name, back, err)
		}
	}
	var all []Range
	e, _ := shared.Edge(addr("2001:db8:12:3400::"))
	for r := range e.Ports.Ranges() {
		all = append(all, r)
	}
	if len(all) != 63 || all[62] != (Range{64720, 64723}) {
		t.Errorf("%d ranges: %v", len(all), all)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		change func(r *Rule)
		want   string
	}{
		{func(r *Rule) { r.IPv6 = netip.Prefix{} }, "must be one of IPv6"},
		{func(r *Rule) { r.IPv4 = r.IPv6 }, "must be one of IPv4"},
		{func(r *Rule) { r.EABits = 49 }, "0 to 48"},
		{func(r *Rule) { r.EABits = 25 }, "would have 65 bits"},
		{func(r *Rule) { r.Ports.PSIDLen = 4 }, "leave the first one out"},
		{func(r *Rule) { r.EABits, r.Ports.PSIDLen = 4, 4 }, "cannot be shared"},
		{func(r *Rule) { r.Ports.Offset = 16 }, "0 to 15"},
		{func(r *Rule) { r.Ports.Offset = 9 }, "ports have 16 bits"},
		{func(r *Rule) { r.EABits, r.Ports.PSIDLen, r.Ports.PSID = 8, 2, 4 }, "0 to 3"},
	} {
		r := shared
		c.change(&r)
		if _, err := r.Edge(addr("2001:db8::1")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", r, err, c.want)
		}
	}
	if _, err := shared.Edge(addr("2001:db9::1")); err == nil {
		t.Error("an address of another rule")
	}
	for _, c := range []struct {
		a    string
		port uint16
	}{{"192.0.3.1", 2000}, {"192.0.2.1", 1023}} {
		if e, err := shared.To(addr(c.a), c.port); err == nil {
			t.Errorf("%s, port %d: %+v", c.a, c.port, e)
		}
	}
}

// For any rule, each port from 1024 of each address belongs to exactly one customer edge, and
// both ways of the calculation agree.
func TestProperty(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		v4 := 16 + random.IntN(17)
		q := random.IntN(10)
		r := Rule{
			IPv6: netip.PrefixFrom(addr("2001:db8:55aa:c3c3::"), 64-(32-v4)-q-random.IntN(5)).Masked(),
			IPv4: netip.PrefixFrom(addr("198.51.100.77"), v4).Masked(), EABits: 32 - v4 + q, Ports: Ports{Offset: random.IntN(16 - q)}, Draft03: random.IntN(2) == 0,
		}
		if r.IPv6.Bits()+r.EABits > 64 {
			continue
		}
		b := r.IPv4.Addr().As4()
		low := random.Uint32() & (1<<(32-v4) - 1)
		b[3] |= byte(low)
		b[2] |= byte(low >> 8)
		a, port := netip.AddrFrom4(b), uint16(random.Uint32())
		e, err := r.To(a, port)
		if q > 0 && r.Ports.Offset > 0 && int(port)>>(16-r.Ports.Offset) == 0 {
			if err == nil {
				t.Fatalf("%+v: port %d belongs to %+v", r, port, e)
			}
			continue
		}
		if err != nil || e.IPv4.Addr() != a || !e.Ports.Has(port) || !e.Prefix.Contains(e.IPv6) || !r.IPv6.Contains(e.IPv6) {
			t.Fatalf("%+v: %v, port %d: %+v, %v", r, a, port, e, err)
		}
		found := false
		for x := range e.Ports.Ranges() {
			found = found || x.First <= port && port <= x.Last
		}
		if back, err := r.Edge(e.IPv6); !found || err != nil || back != e {
			t.Fatalf("%+v: %v, port %d: %+v, back %+v, %v, %v", r, a, port, e, back, err, found)
		}
	}
	for _, p := range []Ports{{Offset: 6}, {Offset: 0}, {Offset: 4}} { // together the sets have all ports once
		p.PSIDLen = 5
		seen := make([]int, 1<<16)
		for p.PSID = range uint16(1 << 5) {
			for r := range p.Ranges() {
				for port := int(r.First); port <= int(r.Last); port++ {
					seen[port]++
				}
			}
		}
		first := slices.Index(seen, 1)
		if want := (1 << (16 - p.Offset)) % (1 << 16); first != want || slices.Contains(seen[first:], 0) || slices.Max(seen) != 1 {
			t.Errorf("offset %d: the first port is %d, want %d", p.Offset, first, want)
		}
	}
}

// optionMAPE is the option of a container with a rule and a border relay.
const optionMAPE = "005e" + "0035" +
	"0059" + "001d" + "01" + "10" + "18" + "c0000200" + "28" + "20010db800" + "005d0004" + "06000000" + "00ff0004" + "00000000" +
	"005a" + "0010" + "20010db8ffff00000000000000000001"

func TestOption(t *testing.T) {
	b, err := hex.DecodeString(optionMAPE)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Parse(b)
	want := shared
	want.Forwarding = true
	if err != nil || len(d.Rules) != 1 || d.Rules[0] != want || len(d.BRs) != 1 || d.BRs[0] != addr("2001:db8:ffff::1") {
		t.Fatalf("%+v, %v", d, err)
	}
	for n := range b {
		if _, err := Parse(b[:n]); err == nil {
			t.Errorf("cut off after %d bytes", n)
		}
	}
	lw := "0060" + "002c" + "005c" + "0014" + "c0000212" + "38" + "20010db8001234" + "005d0004" + "06083400" +
		"005a" + "0010" + "20010db8ffff00000000000000000001"
	if b, err = hex.DecodeString(lw); err != nil {
		t.Fatal(err)
	}
	d, err = Parse(b)
	if err != nil || d.Bind == nil || d.Bind.IPv4 != addr("192.0.2.18") || d.Bind.Prefix != prefix("2001:db8:12:3400::/56") || d.Bind.Ports != (Ports{6, 8, 0x34}) || len(d.BRs) != 1 {
		t.Fatalf("%+v, %v", d, err)
	}
}

func FuzzParse(f *testing.F) {
	b, _ := hex.DecodeString(optionMAPE)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse(b)
		if err != nil {
			return
		}
		for _, r := range d.Rules {
			if e, err := r.Edge(r.IPv6.Addr()); err != nil || !r.IPv6.Contains(e.IPv6) {
				t.Errorf("%+v: %+v, %v", r, e, err)
			}
		}
	})
}
