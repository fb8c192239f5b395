package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"sixfour/internal/rig"
)

// What disappears and comes back is waited for, also in the modes over IPv6 and in
// automatic modes: the interface, and the outer address.
func TestHealsModes(t *testing.T) {
	t.Parallel()
	for _, k := range []kind{kindGRE6, kind6in6.xdp(), kind6to4, kindISATAP, kind6over4} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts6(t)
			a, b := k.pair(t, h.a, h.b)
			back := func() {
				t.Helper()
				for i := range k.toA {
					reachable(t, h.a, k.toB[i])
					reachable(t, h.b, k.toA[i])
				}
			}
			for name, d := range map[string]*daemon{"a": a, "b": b} {
				ns := map[string]*rig.Namespace{"a": h.a, "b": h.b}[name]
				must(t, ns.DelLink("six0"))
				d.wait(t, "the interface was made again")
				back()
			}
			address := netip.PrefixFrom(outerA, 24)
			if k.over >= 40 {
				address = netip.PrefixFrom(outer6A, 64)
			}
			must(t, h.a.DelAddr("va", address))
			a.wait(t, fmt.Sprintf("the address %v, which no interface has", address.Addr()))
			must(t, h.a.AddAddr("va", address))
			back()
			must(t, h.a.LinkDown("six0"))
			a.wait(t, "interface is down")
			must(t, h.a.LinkUp("six0"))
			back()
			pings(t, h.a, k.toB[0], rig.PingOptions{Size: 4000})
		})
	}
}

// groups are the IPv4 groups of 6over4 that a namespace has joined.
func groups(t *testing.T, ns *rig.Namespace) int {
	t.Helper()
	var b []byte
	must(t, ns.Do(func() (err error) {
		b, err = os.ReadFile("/proc/thread-self/net/igmp")
		return err
	}))
	return strings.Count(string(b), "C0EF ") // 239.192.0.0/16, in host byte order
}

// xdpPrograms returns how many devices have an XDP program.
func xdpPrograms(t *testing.T, ns *rig.Namespace) (n int) {
	t.Helper()
	links, err := ns.Handle().LinkList()
	must(t, err)
	for _, l := range links {
		if x := l.Attrs().Xdp; x != nil && x.Attached {
			n++
		}
	}
	return n
}

// However they end, a hub and an automatic tunnel leave nothing behind, and the next daemon
// can start.
func TestModesLeaveNothing(t *testing.T) {
	hub := "[[tunnel]]\nname = \"six0\"\nmode = \"gre\"\nlocal = \"203.0.113.10\"\naddress = [\"10.0.0.1/24\"]\nroutes = [\"192.168.2.0/24\"]\n" +
		"[[tunnel.peer]]\nname = \"b\"\nremote = \"203.0.113.20\"\nallowed = [\"10.0.0.2/32\", \"192.168.2.0/24\"]\n" +
		"[[tunnel.peer]]\nname = \"c\"\nremote = \"203.0.113.30\"\nallowed = [\"10.0.0.3/32\"]\n"
	for _, c := range []struct{ name, config string }{
		{"hub", hub},
		{"hub through AF_XDP", strings.Replace(hub, "mode =", "io = \"xdp\"\nmode =", 1)},
		{"automatic", automatics(10)},
		{"6over4", kind6over4.atA()},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts6(t)
			must(t, rig.Veth(h.a, "sit0", h.a, "other", 1500)) // so that there is a shield, too
			must(t, rig.Veth(h.a, "gre0", h.a, "another", 1500))
			for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGTERM} {
				a := start(t, h.a, c.config)
				if len(leftovers(t, h.a)) == 0 {
					t.Error("nothing was made")
				}
				shielded(t, h.a, 1)
				if c.name == "6over4" && groups(t, h.a) == 0 {
					t.Error("no group was joined")
				}
				if strings.Contains(c.config, "xdp") {
					pings(t, h.a, outerB, rig.PingOptions{}) // the neighbour is known
					eventually(t, "packets arrive through AF_XDP", func() error {
						if xdpPrograms(t, h.a) == 0 {
							return errors.New("there is no program")
						}
						return nil
					})
				}
				if code := a.end(t, sig); sig == syscall.SIGTERM && code != 0 {
					t.Errorf("exit status %d", code)
				}
				if got := leftovers(t, h.a); len(got) > 0 {
					t.Errorf("%v leaves %v", sig, got)
				}
				shielded(t, h.a, 0)
				if n := xdpPrograms(t, h.a); n > 0 {
					t.Errorf("%v leaves %d XDP programs", sig, n)
				}
				if n := groups(t, h.a); n > 0 {
					t.Errorf("%v leaves %d groups", sig, n)
				}
				if _, err := os.Stat(a.socket); sig == syscall.SIGTERM && !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%v leaves the control socket: %v", sig, err)
				}
			}
		})
	}
}
