package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// automatics returns three automatic tunnels at one address of the network 203.0.113.0/24,
// with this last byte.
func automatics(last int) string {
	text := `
[[tunnel]]
name = "to4"
mode = "6to4"
local = "203.0.113.%[1]d"
address = ["2002:cb00:71%[2]s::1/16"]

[[tunnel]]
name = "rd"
mode = "6rd"
prefix = "2001:db8::/32"
border_relay = "203.0.113.1"
local = "203.0.113.%[1]d"
address = ["2001:db8:cb00:71%[2]s::1/32"]

[[tunnel]]
name = "isatap"
mode = "isatap"
router = true
prefix = "3fff:1::/64"
local = "203.0.113.%[1]d"
address = ["3fff:1::200:5efe:203.0.113.%[1]d/64"]
`
	return fmt.Sprintf(text, last, fmt.Sprintf("%02x", last))
}

// Several automatic tunnels and a configured one at one address: each packet is delivered
// to the right tunnel.
func TestOneAddress(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	must(t, h.b.AddAddr("vb", netip.MustParsePrefix("203.0.113.30/24")))
	// 6over4 would accept nearly every packet, so it must be checked last.
	greedy := func(last int) string {
		return fmt.Sprintf("[[tunnel]]\nname = \"over\"\nmode = \"6over4\"\nlocal = \"203.0.113.%[1]d\"\naddress = [\"3fff:64::%[1]d/64\"]\n", last)
	}
	a := start(t, h.a, greedy(10)+plainA()+automatics(10))
	start(t, h.b, plainB())
	start(t, h.b, greedy(30)+automatics(30))
	for _, c := range []struct{ name, to string }{
		{"six0", "fc00::2"}, {"to4", "2002:cb00:711e::1"}, {"rd", "2001:db8:cb00:711e::1"}, {"isatap", "3fff:1::200:5efe:203.0.113.30"}, {"over", "3fff:64::30"},
	} {
		to := netip.MustParseAddr(c.to)
		reachable(t, h.a, to)
		before := packetsIn(t, a)
		pings(t, h.a, to, rig.PingOptions{Count: 50, Size: 1432, DF: true})
		transfer(t, h.a, h.b, to, 1<<20)
		for name, n := range packetsIn(t, a) {
			if n -= before[name]; name == c.name && n < 50 || name != c.name && n > 10 { // packets that kernels send by themselves
				t.Errorf("%s: %d packets came through %s", c.name, n, name)
			}
		}
	}
	s, _ := a.status(t)
	for _, tun := range s.Tunnels {
		if len(tun.In.Drops) > 0 {
			t.Errorf("%s: %v", tun.Name, tun.In.Drops)
		}
	}
	if len(s.Stray.Drops) > 0 {
		t.Errorf("strays: %v", s.Stray.Drops)
	}
}

// A packet that another mechanism accepts is not delivered to 6over4, which would accept
// it, too.
func Test6over4IsCheckedLast(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	a := start(t, h.a, `
[[tunnel]]
name = "over"
mode = "6over4"
local = "203.0.113.10"
address = ["3fff:64::10/64"]

[[tunnel]]
name = "rd"
mode = "6rd"
role = "br"
prefix = "2001:db8::/32"
local = "203.0.113.10"
address = ["2001:db8:cb00:710a::1/32"]
`)
	send(t, h.b, forgery{"", mallory, "2001:db8:cb00:7142::1", "3fff:c::2", "", nil}.packet(outerA))
	eventually(t, "it comes out of the 6rd tunnel", func() error {
		if in := packetsIn(t, a); in["rd"] != 1 || in["over"] > 0 {
			return fmt.Errorf("%v", in)
		}
		return nil
	})
}

// packetsIn returns the number of packets received by each tunnel.
func packetsIn(t *testing.T, d *daemon) map[string]uint64 {
	t.Helper()
	s, _ := d.status(t)
	in := map[string]uint64{}
	for _, tun := range s.Tunnels {
		in[tun.Name] = tun.In.Packets
	}
	return in
}

// dropped returns how many packets a daemon dropped for a reason, in all tunnels and
// outside them.
func dropped(s api.Status, reason string) uint64 {
	n := s.Stray.Drops[reason]
	for _, tun := range s.Tunnels {
		n += tun.In.Drops[reason] + tun.Out.Drops[reason]
	}
	return n
}

// Packets that would go from one mechanism of a router to another, or from one router to
// another, and back (RFC 6324): each ends where it is, once, and so does the error that
// there is no route, if it would take the same path.
func TestLoopBetweenMechanisms(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	must(t, h.a.Forward())
	must(t, h.b.Forward())
	relay := strings.Replace(automatics(10), "mode = \"6to4\"\n", "mode = \"6to4\"\nrole = \"relay\"\nclients = [\"203.0.113.0/24\"]\n", 1)
	relay = strings.Replace(relay, "border_relay = \"203.0.113.1\"\n", "role = \"br\"\n", 1)
	a := start(t, h.a, relay)
	b := start(t, h.b, tunnelOf("mode = \"isatap\"\nrouter = true\nprefix = \"3fff:2::/64\"\naddress = [\"3fff:2::200:5efe:203.0.113.20/64\"]\n"+local4, 2))
	// Without tunnels, each is the other's router for unknown destinations.
	must(t, h.a.AddRoute(netip.MustParsePrefix("3fff:2::/64"), outer6B, ""))
	must(t, h.b.AddRoute(netip.MustParsePrefix("::/0"), outer6A, ""))
	wire, err := h.b.Capture("vb")
	must(t, err)
	defer wire.Close()
	inB, err := h.b.Capture("six0")
	must(t, err)
	defer inB.Close()

	tunnelled := func(outer, src, dst string) func() {
		return func() {
			send(t, h.b, forgery{"", outer, src, dst, "", nil}.packet(outerA))
		}
	}
	natively := func(src, dst string) func() {
		return func() {
			macA, err := h.a.MAC("va")
			must(t, err)
			macB, err := h.b.MAC("vb")
			must(t, err)
			must(t, wire.Inject(rig.Ethernet(macA, macB, 0x86dd, experimental(netip.MustParseAddr(src), netip.MustParseAddr(dst)))))
		}
	}
	answers := map[string]uint64{"native, as from our own 6to4 site, to ISATAP": 1, "from b's 6to4 site to a by ISATAP": 1}
	for _, c := range []struct {
		name string
		d    *daemon
		do   func()
		want string
	}{
		{"6to4 to our own 6rd prefix", a, tunnelled(mallory, mallory6, "2001:db8:cb00:710a::5"), "loop"},
		{"6to4 to ISATAP of ours", a, tunnelled(mallory, mallory6, "3fff:1::5efe:203.0.113.10"), "loop"},
		{"6to4 to our own 6to4 site", a, tunnelled(mallory, mallory6, "2002:cb00:710a::99"), "loop"},
		{"6rd to our own 6to4 site", a, tunnelled(mallory, "2001:db8:cb00:7142::1", "2002:cb00:710a::99"), "loop"},
		{"6rd to ISATAP of ours", a, tunnelled(mallory, "2001:db8:cb00:7142::1", "3fff:1::5efe:203.0.113.10"), "spoof"}, // 6to4's reason, because it is checked first
		{"ISATAP to our own 6to4 site", a, tunnelled(mallory, "3fff:1::200:5efe:203.0.113.66", "2002:cb00:710a::99"), "loop"},
		{"native to our own 6to4 site", a, natively(native, "2002:cb00:710a::99"), "loop"},
		{"native to our own 6rd prefix", a, natively(native, "2001:db8:cb00:710a::99"), "loop"},
		{"native to ISATAP of ours", a, natively("3fff:77::1", "3fff:1::5efe:203.0.113.10"), "loop"},
		{"native, as from our own 6to4 site, to ISATAP", a, natively("2002:cb00:710a::99", "3fff:1::200:5efe:203.0.113.20"), "loop"},
		// RFC 6324 section 3: between b, an ISATAP router, and a, a 6to4 relay.
		{"from b's 6to4 site to a by ISATAP", b, func() {
			must(t, inB.Inject(experimental(netip.MustParseAddr("2002:cb00:7114::1"), netip.MustParseAddr("3fff:2::200:5efe:203.0.113.10"))))
		}, "loop"},
		{"the same, as b would send it", a, tunnelled("203.0.113.20", "2002:cb00:7114::1", "3fff:2::200:5efe:203.0.113.10"), "loop"},
	} {
		before, _ := c.d.status(t)
		_, err := wire.Waiting()
		must(t, err)
		c.do()
		eventually(t, c.name+": "+c.want, func() error {
			if now, _ := c.d.status(t); dropped(now, c.want) <= dropped(before, c.want) {
				return fmt.Errorf("%+v", now)
			}
			return nil
		})
		pings(t, h.a, outer6B, rig.PingOptions{Count: 2}) // everything that it caused has arrived by then
		frames, err := wire.Waiting()
		must(t, err)
		n := 0
		for _, f := range frames {
			if p := f.Packet(); strings.Contains(string(p), "known by its content") && !icmpError(p) {
				n++
			}
		}
		now, _ := c.d.status(t)
		if times := dropped(now, c.want) - dropped(before, c.want); n > 1 || times > 1+answers[c.name] {
			t.Errorf("%s: %d packets on the wire, dropped %d times", c.name, n, times)
		}
	}
}

// icmpError reports whether a packet, perhaps in IPv4, is an ICMPv6 error.
func icmpError(p []byte) bool {
	if header.Version(p) == 4 {
		p = p[header.IPv4Len:]
	}
	return header.Version(p) == 6 && p[6] == header.ICMPv6 && p[header.IPv6Len] < 128
}
