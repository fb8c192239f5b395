package rigtest

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

// MAC is the hardware address of the devices of Uplinks.
var MAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}

// Uplinks puts the test into a namespace with two uplinks to another:
//
//	eth0  192.0.2.1/24 2001:db8::1/64 fe80::1/64  MTU 1500  -  .2, ::2, fe80::2 of isp
//	eth1  198.51.100.1/24 2001:db8:1::1/64        MTU 1400  -  .2, ::2 of isp
func Uplinks(t testing.TB) (ns, isp *rig.Namespace) {
	t.Helper()
	ns = Enter(t, "host")
	isp, err := rig.New("isp")
	Must(t, err)
	t.Cleanup(isp.Close)
	for _, l := range []struct {
		dev  string
		mtu  int
		ours []string
		isp  []string
	}{
		{"eth0", 1500, []string{"192.0.2.1/24", "2001:db8::1/64", "fe80::1/64"}, []string{"192.0.2.2/24", "2001:db8::2/64", "fe80::2/64"}},
		{"eth1", 1400, []string{"198.51.100.1/24", "2001:db8:1::1/64"}, []string{"198.51.100.2/24", "2001:db8:1::2/64"}},
	} {
		Must(t, rig.Veth(ns, l.dev, isp, l.dev, l.mtu))
		Must(t, ns.SetMAC(l.dev, MAC))
		for i := range l.ours {
			Must(t, ns.AddAddr(l.dev, netip.MustParsePrefix(l.ours[i])))
			Must(t, isp.AddAddr(l.dev, netip.MustParsePrefix(l.isp[i])))
			// An IPv6 address can be used only a little later.
			Settled(t, ns, l.ours[i])
			Settled(t, isp, l.isp[i])
		}
	}
	return ns, isp
}

// Settled waits until the namespace can use an address.
func Settled(t testing.TB, ns *rig.Namespace, p string) {
	t.Helper()
	ip := netip.MustParsePrefix(p).Addr().AsSlice()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if r, err := ns.Handle().RouteGet(ip); err == nil && r[0].Type == unix.RTN_LOCAL {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not there", p)
		}
	}
}

// Route adds a route, via a gateway if that is not "". change may change it first.
func Route(t testing.TB, ns *rig.Namespace, dst, via, dev string, change func(*netlink.Route)) {
	t.Helper()
	link, err := ns.Handle().LinkByName(dev)
	Must(t, err)
	r := &netlink.Route{Dst: IPNet(netip.MustParsePrefix(dst)), LinkIndex: link.Attrs().Index}
	if via != "" {
		r.Gw = netip.MustParseAddr(via).AsSlice()
	}
	if change != nil {
		change(r)
	}
	Must(t, ns.Handle().RouteAdd(r))
}

// IPNet returns a prefix as netlink wants it.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
