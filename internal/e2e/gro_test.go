package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/netcfg"
	"sixfour/internal/rig"
)

// enableGRO makes the device of b put packets together that it receives. veth does so
// if its peer cannot segment, its NAPI is a thread, and there is time to gather packets.
func enableGRO(t *testing.T, h hosts) {
	t.Helper()
	must(t, h.a.Ethtool("va", unix.ETHTOOL_STSO, 0))
	must(t, h.b.Ethtool("vb", unix.ETHTOOL_SGRO, 1))
	must(t, h.b.Do(func() error {
		must(t, unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS))
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		must(t, unix.Mount("sysfs", "/sys", "sysfs", 0, "")) // of this namespace
		must(t, os.WriteFile("/sys/class/net/vb/threaded", []byte("1"), 0o644))
		return os.WriteFile("/sys/class/net/vb/gro_flush_timeout", []byte("2000000"), 0o644)
	}))
}

// What the uplink has put together (GRO) goes on as the packets that it was: TCP into a
// link that is smaller, equal or larger, and UDP with its datagrams' limits. Nothing is
// dropped for it.
//
//	a ──── b (uplink, GRO) ──── c
func TestAggregatesAreTakenApart(t *testing.T) {
	with := func(k kind, lines string) kind { return k.with("", lines) }
	for _, c := range []struct {
		kind
		uplink, link int // MTU of b's devices
		feature      string
	}{
		{kind{a: "mode = \"6in4\"\n" + over4 + inner6, toB: ip6B}, 9000, 1500, ""},
		{kind{a: "mode = \"6in4\"\n" + over4 + inner6, toB: ip6B}, 1500, 1280, netcfg.MergesLists},
		{kind{a: "mode = \"4in6in4\"\n" + over4 + mid6 + inner4, toB: ip4B}, 9000, 1500, netcfg.MergesDatagrams},
		{kind4in4, 9000, 1500, ""},
		{kind4in4, 1500, 9000, netcfg.MergesDatagrams},
		{with(kind4in6, "offload = \"off\"\n"), 9000, 1400, netcfg.MergesDatagrams},
		{kind4in6, 1500, 1280, netcfg.MergesLists},
		{with(kind6in6, "encap_limit = \"none\"\n"), 9000, 1500, netcfg.MergesLists},
		{with(kindGRE, "checksum = true\n"), 1500, 1500, ""},
		{with(kindGRE, "checksum = true\nkey = 7\noffload = \"off\"\n"), 9000, 1300, netcfg.MergesLists},
		{with(kindGRE, "checksum = true\nsequence = true\n"), 1500, 1500, netcfg.MergesDatagrams},
		{with(kindGRE6, "checksum = true\n"), 9000, 1500, netcfg.MergesDatagrams},
		{with(kindGRE6, "key = 7\nio = \"xdp\"\n"), 1500, 1500, netcfg.MergesDatagrams},
	} {
		mode, _, _ := strings.Cut(c.a, "\n")
		t.Run(fmt.Sprintf("%s %d %d %s", mode, c.uplink, c.link, c.feature), func(t *testing.T) {
			h := newHosts6(t)
			must(t, h.b.SetMTU("vb", c.uplink))
			behind := newNamespace(t, "c")
			must(t, rig.Veth(h.b, "bc", behind, "cb", c.link))
			net4, net6 := netip.MustParsePrefix("192.168.9.0/24"), netip.MustParsePrefix("fd09::/64")
			must(t, h.b.AddAddr("bc", netip.PrefixFrom(netip.MustParseAddr("192.168.9.1"), 24)))
			must(t, h.b.AddAddr("bc", netip.PrefixFrom(netip.MustParseAddr("fd09::1"), 64)))
			to, all, through := netip.MustParseAddr("fd09::2"), netip.MustParsePrefix("::/0"), netip.MustParseAddr("fd09::1")
			route, bits := net6, 64
			if c.toB[0].Is4() {
				to, all, through = netip.MustParseAddr("192.168.9.2"), netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.168.9.1")
				route, bits = net4, 24
			}
			must(t, behind.AddAddr("cb", netip.PrefixFrom(to, bits)))
			must(t, behind.AddRoute(all, through, "cb"))
			must(t, h.b.Forward())
			enableGRO(t, h)
			if c.feature != "" {
				must(t, h.b.Feature("vb", c.feature, true))
			}
			start(t, h.a, c.atA()+fmt.Sprintf("routes = [\"%v\"]\n", route))
			b := start(t, h.b, c.atB())
			reachable(t, h.a, to)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // without the sizes it takes minutes
			defer cancel()
			if _, err := rig.TCPTransfer(ctx, h.a, behind, netip.AddrPortFrom(to, 5001), 5<<20); err != nil {
				t.Errorf("TCP: %v", err)
			}
			sizes := make([]int, 150)
			for i := range sizes {
				sizes[i] = 1000
			}
			ds, err := rig.UDPExchange(ctx, h.a, behind, netip.AddrPortFrom(to, 5002), sizes, rig.UDPOptions{Interval: time.Microsecond, Timeout: 5 * time.Second})
			if got := rig.Intact(ds); err != nil || got < len(ds)/2 { // a queue of veth may overflow
				t.Errorf("UDP: %d of %d datagrams came as they were sent, %v", got, len(ds), err)
			}
			for i, d := range ds {
				if d.Arrived && !d.Intact {
					t.Errorf("UDP: datagram %d came, but not as it was sent", i)
				}
			}
			if _, s := b.status(t); s.In.Drops["merged"]+s.In.Drops["bad_checksum"] > 0 {
				t.Errorf("drops: %+v", s.In)
			}
		})
	}
}
