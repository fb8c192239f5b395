package address

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sixfour/encap/mape"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestExplain(t *testing.T) {
	domain := Options{Prefix: prefix("2001:db8::/32"), MaskLen: 8, BorderRelay: addr("10.0.0.1")}
	for _, c := range []struct {
		mechanism, addr string
		o               Options
		want            string // lines of the answer, in this order
	}{
		{"6to4", "192.0.2.1", Options{}, "IPv4 192.0.2.1|prefix 2002:c000:201::/48"},
		{"6to4", "10.0.0.1", Options{}, "IPv4 10.0.0.1 (martian: not globally unique)|prefix 2002:a00:1::/48"},
		{"6to4", "2002:c000:201:7::1", Options{}, "IPv4 192.0.2.1|prefix 2002:c000:201::/48|subnet 7"},
		{"6to4", "2002:c058:6301::", Options{}, "IPv4 192.88.99.1|prefix 2002:c058:6301::/48|subnet 0"},
		{"6rd", "10.100.100.1", domain, "IPv4 10.100.100.1 (martian: not globally unique)|prefix 2001:db8:6464:100::/56|border relay 10.0.0.1"},
		{"6rd", "2001:db8:6464:1ff::1", domain, "IPv4 10.100.100.1 (martian: not globally unique)|prefix 2001:db8:6464:100::/56|border relay 10.0.0.1"},
		{"6rd", "2001:db8:6464:1ff::1", Options{Prefix: domain.Prefix, MaskLen: 8, Common: addr("11.0.0.0")}, "IPv4 11.100.100.1|prefix 2001:db8:6464:100::/56"},
		{"6rd", "2001:db8:c000:201::1", Options{Prefix: domain.Prefix}, "IPv4 192.0.2.1|prefix 2001:db8:c000:201::/64"},
		{"isatap", "192.0.2.1", Options{}, "IPv4 192.0.2.1|link-local fe80::200:5efe:c000:201"},
		{"isatap", "10.1.1.1", Options{Prefix: prefix("2001:db8:5efe:1::9/64")}, "IPv4 10.1.1.1 (martian: not globally unique)|prefix 2001:db8:5efe:1::/64|address 2001:db8:5efe:1:0:5efe:a01:101|link-local fe80::5efe:a01:101"},
		{"isatap", "2001:db8:5efe:1::5efe:10.1.1.2", Options{}, "IPv4 10.1.1.2 (martian: not globally unique)|prefix 2001:db8:5efe:1::/64|link-local fe80::5efe:a01:102"},
		{"isatap", "fe80::200:5efe:192.0.2.1%eth0", Options{}, "IPv4 192.0.2.1|prefix fe80::/64|link-local fe80::200:5efe:c000:201"},
		{"teredo", "2001:0:4136:e378:0:63bf:3fff:fdd2", Options{}, "IPv4 192.0.2.45|server 65.54.227.120|prefix 2001:0:4136:e378::/64|address 2001:0:4136:e378:0:63bf:3fff:fdd2|port 40000|flags 0x0000, cone bit not set"},
		{"teredo", "2001:0:4136:e378:8000:63bf:3fff:fdd2", Options{}, "IPv4 192.0.2.45|server 65.54.227.120|prefix 2001:0:4136:e378::/64|address 2001:0:4136:e378:8000:63bf:3fff:fdd2|port 40000|flags 0x8000, cone bit set"},
		{"teredo", "192.0.2.45", Options{Server: addr("65.54.227.120"), Port: 40000}, "IPv4 192.0.2.45|server 65.54.227.120|prefix 2001:0:4136:e378::/64|address 2001:0:4136:e378:0:63bf:3fff:fdd2|port 40000|flags 0x0000, cone bit not set"},
		{"teredo", "65.54.227.120", Options{}, "server 65.54.227.120|prefix 2001:0:4136:e378::/64"},
		{"teredo", "2001:0:a00:1:0:63bf:3fff:fdd2", Options{}, "IPv4 192.0.2.45|server 10.0.0.1 (martian: not globally unique)|prefix 2001:0:a00:1::/64|address 2001:0:a00:1:0:63bf:3fff:fdd2|port 40000|flags 0x0000, cone bit not set"},
		{"v4compat", "192.0.2.1", Options{}, "IPv4 192.0.2.1|address ::c000:201"},
		{"v4compat", "::127.0.0.1", Options{}, "IPv4 127.0.0.1 (martian: not globally unique)|address ::7f00:1"},
		{"6bed4", "fc64:bed:c633:6402:c800:7107:9c40:c001", Options{}, "IPv4 203.0.113.7|router 198.51.100.2|prefix fc64:bed:c633:6402::/64|address fc64:bed:c633:6402:c800:7107:9c40:c001|port 40000"},
		{"6bed4", "203.0.113.7", Options{Prefix: prefix("2001:db8:b:b::/64"), Port: 40000}, "IPv4 203.0.113.7|prefix 2001:db8:b:b::/64|address 2001:db8:b:b:c800:7107:9c40:c001|port 40000"},
		{"6bed4", "fc64:bad:cb00:7114::1", Options{}, "IPv4 none: it is not a peer's address, but the router's own|router 203.0.113.20|prefix fc64:bad:cb00:7114::/64|address fc64:bad:cb00:7114::1"},
		{"6bed4", "2001:db8:b:b::1", Options{Prefix: prefix("2001:db8:b:b::/64")}, "IPv4 none: it is not a peer's address, but the router's own|prefix 2001:db8:b:b::/64|address 2001:db8:b:b::1"},
		{"6a44", "2001:db8:44:c633:6402:9cbb:c0a8:10a", Options{Prefix: prefix("2001:db8:44::/48")}, "IPv4 198.51.100.2|prefix 2001:db8:44:c633:6402:9cbb::/96|address 2001:db8:44:c633:6402:9cbb:c0a8:10a|port 40123|inside 192.168.1.10"},
		{"map_e", "2001:db8:12:3400::", Options{Rule: rule("2001:db8::/40,192.0.2.0/25,16")}, "IPv4 192.0.2.9|prefix 2001:db8:12:3400::/56|address 2001:db8:12:3400:0:c000:209:34|PSID 52 (0x34) of 9 bits, after 6 bits|ports 1128-1129 " + rest},
		{"map_e", "2001:db8:12:3400::", Options{Rule: rule("2001:db8:12:3400::/56,192.0.2.18/32,0,4,8,52,draft03")}, "IPv4 192.0.2.18|prefix 2001:db8:12:3400::/56|address 2001:db8:12:3400:c0:2:1200:3400|PSID 52 (0x34) of 8 bits, after 4 bits|ports " + fifteen},
		{"map_e", "192.0.2.18", Options{Rule: rule("2001:db8:12:3400::/56,192.0.2.18/32,0")}, "IPv4 192.0.2.18|prefix 2001:db8:12:3400::/56|address 2001:db8:12:3400:0:c000:212:0"},
	} {
		got, err := Explain(c.mechanism, c.addr, c.o)
		if err != nil || len(got) != 1 {
			t.Errorf("%s %s: %v, %v", c.mechanism, c.addr, got, err)
			continue
		}
		if text := lines(got[0]); text != c.mechanism+"|"+c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.mechanism, c.addr, text, c.want)
		}
	}
}

// rest are the other ports of the test with map_e: each range is 1024 after the one before it.
var rest = func() string {
	var all []string
	for first := 1128 + 1024; first < 1<<16; first += 1024 {
		all = append(all, fmt.Sprintf("%d-%d", first, first+1))
	}
	return strings.Join(all, " ")
}()

// fifteen are the ports with an offset of four bits.
var fifteen = func() string {
	var all []string
	for first := 4096 + 52*16; first < 1<<16; first += 4096 {
		all = append(all, fmt.Sprintf("%d-%d", first, first+15))
	}
	return strings.Join(all, " ")
}()

func TestParseRule(t *testing.T) {
	for _, text := range []string{"", "2001:db8::/40", "2001:db8::/40,192.0.2.0/24,x", "2001:db8::/40,192.0.2.0,16", "2001:db8::/40,192.0.2.0/24,16,6,8", "2001:db8::/40,192.0.2.0/24,16,6,8,1,1", "2001:db8::/40,192.0.2.0/24,-1"} {
		if r, err := ParseRule(text); err == nil || !strings.Contains(err.Error(), "such as 2001:db8::/40,192.0.2.0/24,16") {
			t.Errorf("%q: %v, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "zz", "0000", "005e0000", "005a00"} {
		if r, err := ParseOption94(text, addr("2001:db8::1")); err == nil {
			t.Errorf("%q: %v", text, r)
		}
	}
}

func rule(text string) *mape.Rule {
	r, err := ParseRule(text)
	if err != nil {
		panic(err)
	}
	return r
}

// lines are an answer's, with single spaces.
func lines(a Answer) string {
	var out []string
	for _, l := range strings.Split(strings.TrimSpace(a.String()), "\n") {
		out = append(out, strings.Join(strings.Fields(l), " "))
	}
	return strings.Join(out, "|")
}

func TestExplainAll(t *testing.T) {
	domain := Options{Prefix: prefix("2001:db8::/32")}
	for _, c := range []struct {
		addr string
		o    Options
		want string
	}{
		{"192.0.2.1", Options{}, "6to4 isatap teredo v4compat"},
		{"192.0.2.1", domain, "6to4 6rd teredo v4compat"}, // a /32 is no ISATAP prefix
		{"2002:c000:201::5efe:10.0.0.1", Options{}, "6to4 isatap"},
		{"2001:db8:c000:201::5efe:10.0.0.1", domain, "6rd isatap"},
		{"2001:db8:c000:201::5efe:10.0.0.1", Options{}, "isatap"},
		{"2001:0:4136:e378:0:63bf:3fff:fdd2", domain, "teredo"},
		{"::192.0.2.1", Options{}, "v4compat"},
	} {
		got, err := Explain("", c.addr, c.o)
		var names []string
		for _, a := range got {
			names = append(names, a.Mechanism)
		}
		if text := strings.Join(names, " "); err != nil || text != c.want {
			t.Errorf("%s: %s, %v; want %s", c.addr, text, err, c.want)
		}
	}
}

func TestExplainErrors(t *testing.T) {
	domain := Options{Prefix: prefix("2001:db8::/32"), MaskLen: 8}
	for _, c := range []struct {
		mechanism, addr string
		o               Options
		want            string
	}{
		{"6to4", "nonsense", Options{}, `"nonsense" is not an address`},
		{"6in4", "192.0.2.1", Options{}, `unknown mechanism "6in4": use one of 6to4, 6rd, isatap, teredo, 6bed4, 6a44, map_e, v4compat`},
		{"6to4", "::ffff:192.0.2.1", Options{}, "give 192.0.2.1"},
		{"6to4", "2001:db8::1", Options{}, "2001:db8::1 is not a 6to4 address: those are in 2002::/16"},
		{"6rd", "192.0.2.1", Options{}, "give its --prefix"},
		{"6rd", "2001:db9::1", domain, "2001:db9::1 is not in the 6rd prefix 2001:db8::/32"},
		{"6rd", "2001:db8::1", domain, "--common"},
		{"6rd", "10.0.0.1", Options{Prefix: prefix("2001:db8::/32"), MaskLen: 40}, "mask length 40"},
		{"6rd", "2001:db8::1", Options{Prefix: prefix("2001:db8::/40")}, "delegated prefix of 72 bits"},
		{"6rd", "192.0.2.1", Options{Prefix: prefix("10.0.0.0/8")}, "use an IPv6 prefix"},
		{"6rd", "192.0.2.1", Options{Prefix: prefix("2001:db8::/32"), MaskLen: 8, Common: addr("10.0.0.0")}, "does not begin with the 8 bits of 10.0.0.0"},
		{"isatap", "192.0.2.1", Options{Prefix: prefix("2001:db8::/32")}, "2001:db8::/32: addresses have an identifier of 64 bits"},
		{"isatap", "2001:db8::1", Options{}, "2001:db8::1 is not an ISATAP address"},
		{"teredo", "2001:db8::1", Options{}, "those are in 2001::/32"},
		{"teredo", "192.0.2.1", Options{Port: 1}, "--server and --port"},
		{"teredo", "192.0.2.1", Options{Server: addr("192.0.2.2")}, "--server and --port"},
		{"v4compat", "::1", Options{}, "::1 is not an IPv4-compatible address"},
		{"", "2001:db8::1", Options{}, "2001:db8::1 has no IPv4 address in it"},
		{"", "2001:db8::1", domain, "--common"},
		{"6bed4", "2001:db8::1", Options{}, "those are in fc64::/16"},
		{"6bed4", "192.0.2.1", Options{}, "give the router's --prefix"},
		{"6bed4", "192.0.2.1", Options{Prefix: prefix("fc64::/64")}, "give --port"},
		{"6a44", "2001:db8::1", Options{}, "give its --prefix"},
		{"6a44", "192.0.2.1", Options{Prefix: prefix("2001:db8:44::/48")}, "give an IPv6 address"},
		{"map_e", "2001:db8::1", Options{}, "give --rule"},
		{"map_e", "2001:db9::1", Options{Rule: rule("2001:db8::/40,192.0.2.0/24,16")}, "is not in 2001:db8::/40"},
		{"map_e", "192.0.2.1", Options{Rule: rule("2001:db8::/40,192.0.2.0/24,16"), Port: 80}, "port 80 of 192.0.2.1 belongs to no customer edge"},
		{"map_e", "192.0.2.1", Options{Rule: rule("2001:db8::/60,192.0.2.0/24,16")}, "would have 76 bits"},
	} {
		got, err := Explain(c.mechanism, c.addr, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v, %v; want %q", c.mechanism, c.addr, got, err, c.want)
		}
	}
}

func TestJSON(t *testing.T) {
	for _, c := range []struct{ mechanism, addr, want string }{
		{"6to4", "192.0.2.1", `{"mechanism":"6to4","asked":"192.0.2.1","ipv4":"192.0.2.1","martian":false,"prefix":"2002:c000:201::/48"}`},
		{"teredo", "2001:0:4136:e378:8000:63bf:3fff:fdd2", `{"mechanism":"teredo","asked":"2001:0:4136:e378:8000:63bf:3fff:fdd2","ipv4":"192.0.2.45","martian":false,"prefix":"2001:0:4136:e378::/64","ipv6":"2001:0:4136:e378:8000:63bf:3fff:fdd2","server":"65.54.227.120","port":40000,"flags":"0x8000","cone":true}`},
	} {
		got, err := Explain(c.mechanism, c.addr, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := json.Marshal(got[0]); err != nil || string(b) != c.want {
			t.Errorf("%s, %v\nwant %s", b, err, c.want)
		}
	}
}
