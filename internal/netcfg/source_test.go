package netcfg

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// temporaries returns the temporary addresses of a device, once there are some.
func temporaries(t *testing.T, ns *rig.Namespace, dev string) (all []netlink.Addr) {
	t.Helper()
	link, err := ns.Handle().LinkByName(dev)
	rigtest.Must(t, err)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		list, err := ns.Handle().AddrList(link, unix.AF_INET6)
		rigtest.Must(t, err)
		for _, a := range list {
			if a.Flags&unix.IFA_F_TEMPORARY != 0 && a.Flags&unix.IFA_F_TENTATIVE == 0 {
				all = append(all, a)
			}
		}
		if len(all) > 0 {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatal("the kernel makes no temporary address")
		}
	}
}

// TestStableSource: of a host's addresses a permanent one is chosen, where the kernel by
// itself would choose a temporary one (RFC 8981).
func TestStableSource(t *testing.T) {
	ns, _ := rigtest.Uplinks(t)
	rigtest.Must(t, ns.Sysctl("net/ipv6/conf/eth0/use_tempaddr", "2"))
	link, err := ns.Handle().LinkByName("eth0")
	rigtest.Must(t, err)
	rigtest.Must(t, ns.DelAddr("eth0", netip.MustParsePrefix("2001:db8::1/64")))
	stays := &netlink.Addr{IPNet: rigtest.IPNet(netip.MustParsePrefix("2001:db8::5/64")), Flags: unix.IFA_F_NODAD | unix.IFA_F_MANAGETEMPADDR, ValidLft: 86400, PreferedLft: 80000}
	rigtest.Must(t, ns.Handle().AddrAdd(link, stays))
	rigtest.Settled(t, ns, "2001:db8::5/64")
	temp := temporaries(t, ns, "eth0")[0]
	rigtest.Route(t, ns, "2001:db8:7::/64", "2001:db8::2", "eth0", nil)
	for _, mark := range []uint32{0, 7} {
		list, err := ns.Handle().RouteGet(addr("2001:db8:7::1").AsSlice())
		rigtest.Must(t, err)
		if !list[0].Src.Equal(temp.IP) {
			t.Fatalf("the kernel takes %v by itself, not the temporary %v: the test shows nothing", list[0].Src, temp.IP)
		}
		r := router(t)
		got, err := r.To(addr("2001:db8:7::1"), addr(""), mark)
		if err != nil || got.Source != addr("2001:db8::5") {
			t.Errorf("mark %d: %v, %v, want the address that stays", mark, got.Source, err)
		}
		if got, err := r.To(addr("203.0.113.1"), addr("192.0.2.1"), mark); err == nil && got.Source != addr("192.0.2.1") {
			t.Errorf("IPv4: %v", got.Source)
		}
	}
}

// TestOurs: packets to this host are reported as ours, also those to a subnet's anycast
// address if the host forwards (RFC 4291 section 2.6.1), and those routed to the
// loopback device.
func TestOurs(t *testing.T) {
	ns, _ := rigtest.Uplinks(t)
	rigtest.Must(t, ns.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	rigtest.Route(t, ns, "203.0.113.0/24", "", "lo", nil)
	rigtest.Route(t, ns, "2001:db8:9::/48", "", "lo", nil)
	r := router(t)
	for a, want := range map[string]bool{
		"192.0.2.1": true, "192.0.2.2": false, "127.0.64.9": true, "203.0.113.7": true,
		"2001:db8::1": true, "2001:db8::2": false, "::1": true, "2001:db8::": true, "2001:db8:9::1": true,
		"fe80::1%eth0": true, "fe80::2%eth0": false,
	} {
		if got, err := r.To(addr(a), addr(""), 0); err != nil || got.ToThisHost != want {
			t.Errorf("%s: %v, %v, want %v", a, got.ToThisHost, err, want)
		}
	}
}
