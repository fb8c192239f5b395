package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sixfour/encap/header"
	"sixfour/encap/nd"
	"sixfour/internal/rig"
)

// With martians = "strict" addresses for documentation and tests are refused, too;
// 198.51.100.0/24 is one of them.
func TestStrictMartians(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprint(strict), func(t *testing.T) {
			t.Parallel()
			h := newHosts(t, 1500)
			global := netip.MustParseAddr("192.31.7.10") // which is not one of them
			must(t, h.a.AddAddr("va", netip.PrefixFrom(global, 24)))
			must(t, h.b.AddAddr("vb", netip.MustParsePrefix("192.31.7.20/24")))
			must(t, h.a.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.31.7.20"), ""))
			lines := "[[tunnel]]\nname = \"six0\"\nmode = \"6to4\"\nlocal = \"192.31.7.10\"\naddress = [\"2002:c01f:70a::1/16\"]\n"
			if strict {
				lines += "martians = \"strict\"\n"
			}
			a := start(t, h.a, lines)
			out, err := h.a.Capture("six0")
			must(t, err)
			defer out.Close()
			hosts := []string{"192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.77"}
			for _, v4 := range hosts {
				f := forgery{"", v4, in6to4(v4), "2002:c01f:70a::1", "", nil}
				send(t, h.b, f.packet(global))
			}
			eventually(t, "all of them are judged", func() error {
				_, s := a.status(t)
				if refused := s.In.Drops["martian"]; strict && refused == uint64(len(hosts)) || !strict && refused == 0 && s.In.Packets >= uint64(len(hosts)) {
					return nil
				}
				return fmt.Errorf("%+v", s.In)
			})
			frames, err := out.Waiting()
			must(t, err)
			came := 0
			for _, f := range frames {
				if p := header.IPv6(f.Packet()); len(p) > header.IPv6Len && p.NextHeader() == 253 && !f.Outgoing {
					came++
				}
			}
			if strict && came > 0 {
				t.Errorf("%d came out", came)
			}
		})
	}
	// The tunnel's own address must be a global one, too.
	h := newHosts(t, 1500)
	d := launch(t, h.a, tunnelOf(kind6to4.a+"martians = \"strict\"\n", 1))
	if code := d.exit(t); code != 2 || !strings.Contains(d.log.String(), "is not global") {
		t.Errorf("exit status %d\n%s", code, d.log.String())
	}
}

// A router that is not on an ISATAP host's list sends advertisements with its own address,
// and with the address of the listed router: only the listed one is believed.
func TestRogueRouter(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.b, tunnelOf(kindISATAP.b, 2)) // whose only router is 203.0.113.10
	say := func(outer, inner, prefix string) {
		send(t, h.a, ip4(netip.MustParseAddr(outer), outerB, header.ProtoIPv6,
			nd.Append(nil, netip.MustParseAddr(inner), netip.MustParseAddr("fe80::200:5efe:203.0.113.20"), &nd.Message{
				Type: nd.RouterAdvertisement, HopLimit: 64, Lifetime: time.Hour,
				Prefixes: []nd.Prefix{{Prefix: netip.MustParsePrefix(prefix), Auto: true, Valid: time.Hour, Preferred: time.Hour}},
			})))
	}
	say(mallory, "fe80::200:5efe:203.0.113.66", "2001:db8:bad:1::/64")
	say(mallory, "fe80::200:5efe:203.0.113.10", "2001:db8:bad:2::/64")
	say(mallory, "fe80::1", "2001:db8:bad:3::/64")
	say("203.0.113.10", "fe80::200:5efe:203.0.113.66", "2001:db8:bad:4::/64")
	say("203.0.113.10", "fe80::200:5efe:203.0.113.10", "2001:db8:900d::/64")
	eventually(t, "the true router is believed", func() error {
		link, err := h.b.Handle().LinkByName("six0")
		must(t, err)
		found, err := h.b.Handle().AddrList(link, netlink.FAMILY_V6)
		must(t, err)
		for _, a := range found {
			if strings.HasPrefix(a.IP.String(), "2001:db8:bad") {
				t.Fatalf("a false one was believed: %v", found)
			}
			if strings.HasPrefix(a.IP.String(), "2001:db8:900d") {
				return nil
			}
		}
		return fmt.Errorf("addresses: %v", found)
	})
}

// A flood of forged packets has no effect on a neighbour.
func TestForgeryFlood(t *testing.T) {
	packets, perSecond := 100000, 20000
	if rig.Race { // the daemon itself is slow then
		packets, perSecond = 20000, 5000
	}
	h := newHosts(t, 1500)
	a, _ := kind6to4.pair(t, h.a, h.b)
	raw, err := h.b.OpenRaw()
	must(t, err)
	defer raw.Close()
	spoof := forgery{"", mallory, "2002:cb00:7163::1", ours6to4, "spoof", nil}.packet(outerA)
	before := resident(t, a.cmd.Process.Pid)
	done := make(chan struct{})
	go func() {
		defer close(done)
		began := time.Now()
		for i := range packets {
			if err := raw.Send(spoof); err != nil {
				t.Error(err)
				return
			}
			if due := time.Duration(i) * time.Second / time.Duration(perSecond); i%50 == 0 && time.Since(began) < due {
				time.Sleep(due - time.Since(began))
			}
		}
	}()
	pings(t, h.b, kind6to4.toA[0], rig.PingOptions{Count: 200, Interval: 5 * time.Millisecond})
	<-done
	eventually(t, "the flood is counted", func() error {
		if _, s := a.status(t); s.In.Drops["spoof"] != uint64(packets) {
			return fmt.Errorf("%v", s.In.Drops)
		}
		return nil
	})
	if after := resident(t, a.cmd.Process.Pid); after > before+24<<10 && !rig.Race {
		t.Errorf("memory grew from %d kB to %d kB", before, after)
	}
	if lines := strings.Count(a.log.String(), "dropped"); lines > 20 {
		t.Errorf("%d lines in the log", lines)
	}
}
