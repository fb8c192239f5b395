package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/rig"
)

// forgery is an IPv4 packet that a host sends to a, and the expected reason; "" is for a
// packet that a's kernel does not deliver to any socket.
type forgery struct {
	name  string
	outer string // source
	src   string
	dst   string
	want  string
	spoil func(inner []byte) []byte
}

func (f forgery) packet(local netip.Addr) []byte {
	inner := experimental(netip.MustParseAddr(f.src), netip.MustParseAddr(f.dst))
	if f.spoil != nil {
		inner = f.spoil(inner)
	}
	return ip4(netip.MustParseAddr(f.outer), local, header.ProtoIPv6, inner)
}

// site is an automatic tunnel at 203.0.113.10, a sender whose packets it accepts, and
// packets that it must refuse.
type site struct {
	name      string
	lines     string // %[1]d… as in tunnelOf
	good      forgery
	forgeries []forgery
}

// invalidSources returns packets between two other hosts with inner addresses that no packet of a
// tunnel without neighbours has (RFC 3964 section 5.3.2, RFC 5969 section 10). Foreign is
// the reason for sources that the mechanism does not know.
func invalidSources(outer, src, dst, foreign string) (list []forgery) {
	for _, a := range []string{"fe80::1", "ff02::1", "ff0e::1"} {
		list = append(list, forgery{"source " + a, outer, a, dst, "martian", nil})
	}
	for _, a := range []string{"::", "::1", "::203.0.113.66", "::ffff:203.0.113.66"} {
		list = append(list, forgery{"source " + a, outer, a, dst, foreign, nil})
	}
	for _, a := range []string{"fe80::1", "ff02::1", "ff0e::1"} {
		list = append(list, forgery{"destination " + a, outer, src, a, "martian", nil})
	}
	return list
}

// notIn6to4 are IPv4 addresses that no 6to4 address contains (RFC 3964 section 5.3.1),
// among them the broadcast address of a's link (section 4.1.4).
var notIn6to4 = []string{"0.1.2.3", "10.0.0.1", "127.0.0.1", "169.254.1.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255", "203.0.113.255"}

// in6to4 returns the 6to4 address ::1 of a site.
func in6to4(v4 string) string {
	b := netip.MustParseAddr(v4).As4()
	return fmt.Sprintf("2002:%02x%02x:%02x%02x::1", b[0], b[1], b[2], b[3])
}

func embeddedMartians(dst string) (list []forgery) {
	for _, v4 := range notIn6to4 {
		list = append(list, forgery{"source of " + v4, "203.0.113.66", in6to4(v4), dst, "martian", nil},
			forgery{"destination of " + v4, "203.0.113.66", in6to4("203.0.113.66"), in6to4(v4), "martian", nil})
		a := netip.MustParseAddr(v4)
		if a.Is4() && a.As4()[0] != 0 && a.As4()[0] != 127 && a.As4()[0] < 224 && v4 != "203.0.113.255" { // those the kernel drops
			list = append(list, forgery{"outer source " + v4, v4, in6to4(v4), dst, "martian", nil})
		}
	}
	return list
}

const (
	mallory  = "203.0.113.66"
	mallory6 = "2002:cb00:7142::1"
	ours6to4 = "2002:cb00:710a::1"
	native   = "2001:db8:77::1"
	sourced  = "2001:db8:5efe:1:200:5efe:203.0.113.10" // embeds us by ISATAP
	teredo   = "2001:0:c633:6401:0:1234:34ff:8ef5"     // and by Teredo
)

func rh0(inner []byte) []byte {
	inner[6] = header.Routing
	copy(inner[40:], []byte{253, 0, 0, 1})
	return inner
}

func hopless(inner []byte) []byte { inner[7] = 0; return inner }

var sites = []site{
	{"6to4 router", "mode = \"6to4\"\n" + local4 + "address = [\"2002:cb00:71%[3]s::1/16\"]\nrelays = [\"203.0.113.1\"]\n",
		forgery{"", mallory, mallory6, ours6to4, "", nil}, concat(invalidSources(mallory, mallory6, ours6to4, "martian"), embeddedMartians(ours6to4), []forgery{
			{"6to4 source of somebody else", mallory, "2002:cb00:7114::1", ours6to4, "spoof", nil},
			{"6to4 destination of somebody else", mallory, mallory6, "2002:cb00:7114::1", "spoof", nil},
			{"native to native", mallory, native, "2001:db8:88::1", "spoof", nil},
			{"native to somebody else", "203.0.113.1", native, "2002:cb00:7114::1", "spoof", nil},
			{"native, not from the relay", mallory, native, ours6to4, "foreign_source", nil},
			{"to native, as if we were a relay", mallory, mallory6, native, "no_peer", nil},
			{"our address", mallory, ours6to4, ours6to4, "own_source", nil},
			{"our site", mallory, "2002:cb00:710a:5::9", ours6to4, "own_source", nil},
			{"our outer address", "203.0.113.10", ours6to4, ours6to4, "", nil},
			{"us by ISATAP", "203.0.113.1", sourced, ours6to4, "loop", nil},
			{"us by Teredo", "203.0.113.1", teredo, ours6to4, "loop", nil},
			{"to us by ISATAP, too", mallory, mallory6, "2002:cb00:710a::200:5efe:203.0.113.10", "delivered", nil}, // in our own prefix
			{"site-local source", mallory, "fec0::1", ours6to4, "martian", nil},
			{"site-local destination", mallory, mallory6, "fec0::1", "martian", nil},
			{"routing header", mallory, mallory6, ours6to4, "source_routing", rh0},
			{"hop limit 0", mallory, mallory6, ours6to4, "ttl_expired", hopless},
			{"cut", mallory, mallory6, ours6to4, "truncated", func(b []byte) []byte { return b[:50] }},
			{"IPv4 inside", mallory, mallory6, ours6to4, "wrong_version", func([]byte) []byte { return experimental(inB, inA) }},
		})},
	{"6to4 host", "mode = \"6to4\"\nrole = \"host\"\n" + local4 + "address = [\"2002:cb00:71%[3]s::1/16\"]\n",
		forgery{"", mallory, native, ours6to4, "", nil}, []forgery{ // any relay's
			{"another address of the site", mallory, mallory6, "2002:cb00:710a::2", "no_peer", nil},
			{"6to4 source of somebody else", mallory, "2002:cb00:7114::1", ours6to4, "spoof", nil},
			{"native to native", mallory, native, "2001:db8:88::1", "spoof", nil},
		}},
	{"6to4 relay", "mode = \"6to4\"\nrole = \"relay\"\nclients = [\"203.0.113.64/28\"]\n" + local4 + "address = [\"2002:cb00:71%[3]s::1/16\"]\n",
		forgery{"", mallory, mallory6, native, "", nil}, concat(invalidSources(mallory, mallory6, native, "martian"), embeddedMartians(native), []forgery{
			{"no client", "203.0.113.99", in6to4("203.0.113.99"), native, "foreign_source", nil},
			{"source of another client", mallory, in6to4("203.0.113.67"), native, "spoof", nil},
			{"to another 6to4 site", mallory, mallory6, "2002:cb00:7114::1", "spoof", nil},
			{"native to native", mallory, native, "2001:db8:88::1", "spoof", nil},
			{"to us by ISATAP", mallory, mallory6, sourced, "loop", nil},
			{"to us by Teredo", mallory, mallory6, teredo, "loop", nil},
			{"our address", mallory, ours6to4, native, "own_source", nil},
		})},
	{"6to4 return path", "mode = \"6to4\"\nrole = \"return\"\nsources = [\"2001:db8:5::/64\"]\n" + local4 + "address = [\"2001:db8:5::1/64\"]\n",
		forgery{}, []forgery{
			{"6to4", mallory, mallory6, "2001:db8:5::1", "foreign_source", nil},
			{"native", mallory, native, "2001:db8:5::1", "foreign_source", nil},
		}},
	{"6rd customer edge", "mode = \"6rd\"\nprefix = \"2001:db8::/32\"\nborder_relay = \"203.0.113.1\"\n" + local4 + "address = [\"2001:db8:cb00:71%[3]s::1/32\"]\n",
		forgery{"", mallory, "2001:db8:cb00:7142::1", "2001:db8:cb00:710a::1", "", nil}, concat(
			invalidSources("203.0.113.1", "3fff::1", "2001:db8:cb00:710a::1", "martian"), []forgery{
				{"another customer's source", mallory, "2001:db8:cb00:7114::1", "2001:db8:cb00:710a::1", "spoof", nil},
				{"another customer's, from the relay", "203.0.113.1", "2001:db8:cb00:7114::1", "2001:db8:cb00:710a::1", "spoof", nil},
				{"from outside, not from the relay", mallory, "3fff::1", "2001:db8:cb00:710a::1", "foreign_source", nil},
				{"to another customer", mallory, "2001:db8:cb00:7142::1", "2001:db8:cb00:7114::1", "spoof", nil},
				{"to outside", mallory, "2001:db8:cb00:7142::1", "3fff::1", "spoof", nil},
				{"our prefix", mallory, "2001:db8:cb00:710a::2", "2001:db8:cb00:710a::1", "own_source", nil},
				{"us by 6to4", "203.0.113.1", "2002:cb00:710a::9", "2001:db8:cb00:710a::1", "loop", nil},
				{"us by ISATAP", "203.0.113.1", "3fff::200:5efe:203.0.113.10", "2001:db8:cb00:710a::1", "loop", nil},
			})},
	{"6rd border relay", "mode = \"6rd\"\nrole = \"br\"\nprefix = \"2001:db8::/32\"\n" + local4 + "address = [\"2001:db8:cb00:71%[3]s::1/32\"]\n",
		forgery{"", mallory, "2001:db8:cb00:7142::1", "3fff::1", "", nil}, concat(
			invalidSources(mallory, "2001:db8:cb00:7142::1", "3fff::1", "spoof"), []forgery{
				{"another customer's source", mallory, "2001:db8:cb00:7114::1", "3fff::1", "spoof", nil},
				{"a source outside the domain", mallory, "3fff::2", "3fff::1", "spoof", nil},
				{"from a 6to4 relay", "192.88.99.1", "2001:db8:c058:6301::1", "3fff::1", "foreign_source", nil},
				{"our prefix", mallory, "2001:db8:cb00:710a::2", "3fff::1", "own_source", nil},
				{"to our prefix", mallory, "2001:db8:cb00:7142::1", "2001:db8:cb00:710a::2", "loop", nil},
				{"to us by 6to4", mallory, "2001:db8:cb00:7142::1", "2002:cb00:710a::1", "loop", nil},
				{"to us by ISATAP", mallory, "2001:db8:cb00:7142::1", "3fff::200:5efe:203.0.113.10", "loop", nil},
			})},
	{"ISATAP host", "mode = \"isatap\"\nrouters = [\"203.0.113.1\"]\n" + local4 + "address = [\"2001:db8:5efe:1:200:5efe:203.0.113.10/64\"]\n",
		forgery{"", mallory, "2001:db8:5efe:1:200:5efe:203.0.113.66", sourced, "", nil}, concat(
			invalidSources("203.0.113.1", "3fff::1", sourced, "martian"), []forgery{
				{"another node's source", mallory, "2001:db8:5efe:1:200:5efe:203.0.113.20", sourced, "spoof", nil},
				{"from outside, not from a router", mallory, "3fff::1", sourced, "foreign_source", nil},
				{"our address", mallory, sourced, sourced, "own_source", nil},
				{"us in another prefix", "203.0.113.1", "3fff::200:5efe:203.0.113.10", sourced, "loop", nil},
				{"us by 6to4", "203.0.113.1", "2002:cb00:710a::9", sourced, "loop", nil},
				{"to us by 6to4", "203.0.113.1", "3fff::1", "2002:cb00:710a::9", "loop", nil},
			})},
	{"ISATAP router", "mode = \"isatap\"\nrouter = true\nprefix = \"2001:db8:5efe:1::/64\"\n" + local4 + "address = [\"2001:db8:5efe:1:200:5efe:203.0.113.10/64\"]\n",
		forgery{"", mallory, "2001:db8:5efe:1:200:5efe:203.0.113.66", "3fff::1", "", nil}, concat(
			invalidSources(mallory, "2001:db8:5efe:1:200:5efe:203.0.113.66", "3fff::1", "foreign_source"), []forgery{
				{"another node's source", mallory, "2001:db8:5efe:1:200:5efe:203.0.113.20", "3fff::1", "spoof", nil},
				{"another prefix", mallory, "3fff::200:5efe:203.0.113.66", "3fff::1", "spoof", nil},
				{"no ISATAP source", mallory, "2001:db8:5efe:1::66", "3fff::1", "foreign_source", nil},
				{"to us in another prefix", mallory, "2001:db8:5efe:1:200:5efe:203.0.113.66", "3fff::200:5efe:203.0.113.10", "loop", nil},
				{"to us by 6to4", mallory, "2001:db8:5efe:1:200:5efe:203.0.113.66", "2002:cb00:710a::9", "loop", nil},
			})},
	{"v4compat", "mode = \"v4compat\"\n" + local4 + "address = [\"::203.0.113.%[1]d0/96\"]\n",
		forgery{"", mallory, "::203.0.113.66", "::203.0.113.10", "", nil}, []forgery{
			{"another source", mallory, "::203.0.113.20", "::203.0.113.10", "spoof", nil},
			{"another destination", mallory, "::203.0.113.66", "::203.0.113.20", "spoof", nil},
			{"native source", mallory, native, "::203.0.113.10", "foreign_source", nil},
			{"native destination", mallory, "::203.0.113.66", native, "spoof", nil},
			{"our address", mallory, "::203.0.113.10", "::203.0.113.10", "own_source", nil},
		}},
}

func concat(lists ...[]forgery) (all []forgery) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// Packets that RFC 3964, RFC 5969 and RFC 5214 forbid, sent from a third host: none of them
// comes out of the interface, and each is counted under one reason.
func TestForgeries(t *testing.T) {
	for _, s := range sites {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts(t, 1500)
			a := start(t, h.a, tunnelOf(s.lines, 1))
			out, err := h.a.Capture("six0")
			must(t, err)
			defer out.Close()
			want := map[string]uint64{}
			for _, f := range s.forgeries {
				_, before := a.status(t)
				send(t, h.b, f.packet(outerA))
				if f.want == "" || f.want == "delivered" {
					continue
				}
				want[f.want]++
				eventually(t, f.name+": "+f.want, func() error {
					if _, now := a.status(t); now.In.Drops[f.want] != before.In.Drops[f.want]+1 || len(now.In.Drops) != len(want) {
						return fmt.Errorf("drops %v, before %v", now.In.Drops, before.In.Drops)
					}
					return nil
				})
			}
			if s.good.src != "" {
				send(t, h.b, s.good.packet(outerA))
			}
			s.checkDelivered(t, out)
			status, tun := a.status(t)
			if fmt.Sprint(tun.In.Drops) != fmt.Sprint(want) || len(status.Stray.Drops) > 0 {
				t.Errorf("drops %v and %v, want %v", tun.In.Drops, status.Stray.Drops, want)
			}
		})
	}
}

// checkDelivered expects the valid packet on the interface, and of the others only those that are
// marked as delivered.
func (s site) checkDelivered(t *testing.T, out *rig.Capture) {
	t.Helper()
	allowed := 0
	for _, f := range s.forgeries {
		if f.want == "delivered" {
			allowed++
		}
	}
	seen := func(f rig.Frame) (good, other bool) {
		p := header.IPv6(f.Packet())
		if f.Outgoing || len(p) < header.IPv6Len || p.NextHeader() != 253 && p.NextHeader() != header.Routing {
			return false, false
		}
		if s.good.src != "" && p.Src() == netip.MustParseAddr(s.good.src) && p.Dst() == netip.MustParseAddr(s.good.dst) {
			return true, false
		}
		if allowed--; allowed < 0 {
			t.Errorf("from %v to %v came out", p.Src(), p.Dst())
		}
		return false, true
	}
	if s.good.src != "" {
		_, err := out.Find(t.Context(), func(f rig.Frame) bool { good, _ := seen(f); return good })
		must(t, err)
	}
	frames, err := out.Waiting()
	must(t, err)
	for _, f := range frames {
		seen(f)
	}
}
