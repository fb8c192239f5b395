package address

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
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
		{"6in4", "192.0.2.1", Options{}, `unknown mechanism "6in4": use one of 6to4, 6rd, isatap, teredo, v4compat`},
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
