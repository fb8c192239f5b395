package rig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Veth connects two namespaces, or one with itself, by a pair of Ethernet devices, which
// it sets up. IPv6 is off on them, so that a capture shows only what a test sends;
// AddAddr of an IPv6 address turns it on.
func Veth(a *Namespace, nameA string, b *Namespace, nameB string, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = nameA, mtu
	v := netlink.NewVeth(attrs)
	v.PeerName, v.PeerMTU, v.PeerNamespace = nameB, uint32(mtu), netlink.NsFd(b.fd)
	op := fmt.Sprintf("add veth pair %s - %s of namespace %s", nameA, nameB, b.name)
	if err := a.handle.LinkAdd(v); err != nil {
		return a.explain(op, err)
	}
	for _, end := range []struct {
		n   *Namespace
		dev string
	}{{a, nameA}, {b, nameB}} {
		// If IPv6 is turned on, an address must be usable at once, without router
		// solicitations.
		for _, s := range [][2]string{{"disable_ipv6", "1"}, {"accept_dad", "0"}, {"accept_ra", "0"}, {"router_solicitations", "0"}} {
			err := end.n.Sysctl(ipv6Setting(end.dev, s[0]), s[1])
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6 sends nothing anyway
				return err
			}
		}
		if err := end.n.LinkUp(end.dev); err != nil {
			return err
		}
	}
	return nil
}

func ipv6Setting(dev, key string) string { return filepath.Join("net/ipv6/conf", dev, key) }

// Sysctl writes one setting of the namespace, given by its path in /proc/sys:
// "net/ipv4/ip_forward". (/proc/sys/net shows a thread the settings of the thread's
// namespace.)
func (n *Namespace) Sysctl(path, value string) error {
	return n.Do(func() error {
		if err := os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0); err != nil {
			return n.explain("set "+path, err)
		}
		return nil
	})
}

// Forward makes the namespace a router of IPv4 and IPv6.
func (n *Namespace) Forward() error {
	if err := n.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	return n.Sysctl("net/ipv6/conf/all/forwarding", "1")
}

// onLink looks up a device and runs f on it.
func (n *Namespace) onLink(dev, op string, f func(netlink.Link) error) error {
	link, err := n.handle.LinkByName(dev)
	if err == nil {
		err = f(link)
	}
	if err != nil {
		return n.explain(fmt.Sprintf("device %s: %s", dev, op), err)
	}
	return nil
}

// LinkUp sets a device up.
func (n *Namespace) LinkUp(dev string) error { return n.onLink(dev, "set up", n.handle.LinkSetUp) }

// LinkDown sets a device down.
func (n *Namespace) LinkDown(dev string) error {
	return n.onLink(dev, "set down", n.handle.LinkSetDown)
}

// DelLink removes a device, and both ends of a veth pair.
func (n *Namespace) DelLink(dev string) error { return n.onLink(dev, "delete", n.handle.LinkDel) }

// SetMTU sets a device's MTU, in bytes of an IP packet.
func (n *Namespace) SetMTU(dev string, mtu int) error {
	return n.onLink(dev, fmt.Sprintf("set MTU %d", mtu), func(l netlink.Link) error { return n.handle.LinkSetMTU(l, mtu) })
}

// SetMAC sets a device's Ethernet address.
func (n *Namespace) SetMAC(dev string, mac net.HardwareAddr) error {
	return n.onLink(dev, "set address "+mac.String(), func(l netlink.Link) error { return n.handle.LinkSetHardwareAddr(l, mac) })
}

// MTU returns a device's MTU, in bytes of an IP packet.
func (n *Namespace) MTU(dev string) (mtu int, err error) {
	err = n.onLink(dev, "read MTU", func(l netlink.Link) error { mtu = l.Attrs().MTU; return nil })
	return mtu, err
}

// MAC returns a device's Ethernet address.
func (n *Namespace) MAC(dev string) (mac net.HardwareAddr, err error) {
	err = n.onLink(dev, "read address", func(l netlink.Link) error { mac = l.Attrs().HardwareAddr; return nil })
	return mac, err
}

// AddAddr adds an address to a device, usable at once (no duplicate address detection).
func (n *Namespace) AddAddr(dev string, p netip.Prefix) error {
	if p.Addr().Is6() {
		err := n.Sysctl(ipv6Setting(dev, "disable_ipv6"), "0")
		if err != nil {
			return err
		}
	}
	return n.onLink(dev, "add address "+p.String(), func(l netlink.Link) error {
		return n.handle.AddrAdd(l, address(p))
	})
}

// DelAddr removes an address from a device.
func (n *Namespace) DelAddr(dev string, p netip.Prefix) error {
	return n.onLink(dev, "delete address "+p.String(), func(l netlink.Link) error {
		return n.handle.AddrDel(l, address(p))
	})
}

// AddNeighbour adds the Ethernet address of an address on a device's link, so that it
// need not be resolved.
func (n *Namespace) AddNeighbour(dev string, addr netip.Addr, mac net.HardwareAddr) error {
	return n.onLink(dev, "add neighbour "+addr.String(), func(l netlink.Link) error {
		return n.handle.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: addr.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT})
	})
}

func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// AddRoute adds a route to the main table: through a device, or via a router, or both.
// An unused parameter has its zero value.
func (n *Namespace) AddRoute(dst netip.Prefix, via netip.Addr, dev string) error {
	return n.route(n.handle.RouteAdd, "add", dst, via, dev)
}

// DelRoute removes a route from the main table.
func (n *Namespace) DelRoute(dst netip.Prefix, via netip.Addr, dev string) error {
	return n.route(n.handle.RouteDel, "delete", dst, via, dev)
}

func (n *Namespace) route(f func(*netlink.Route) error, verb string, dst netip.Prefix, via netip.Addr, dev string) error {
	r := &netlink.Route{Dst: ipNet(dst.Masked())}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	}
	if dev != "" {
		link, err := n.handle.LinkByName(dev)
		if err != nil {
			return n.explain("device "+dev, err)
		}
		r.LinkIndex = link.Attrs().Index
	}
	if err := f(r); err != nil {
		return n.explain(fmt.Sprintf("%s route %v via %v dev %q", verb, dst, via, dev), err)
	}
	return nil
}

// Throttle limits what a device sends to a rate, in bytes per second, after a burst, and
// queues what exceeds it; both burst and queue are in bytes.
func (n *Namespace) Throttle(dev string, rate uint64, burst, queue uint32) error {
	return n.onLink(dev, "throttle", func(l netlink.Link) error {
		return n.handle.QdiscReplace(&netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			Rate:       rate, Buffer: burst, Limit: queue,
		})
	})
}

// Ethtool sets a feature of a device. cmd is one of unix.ETHTOOL_S… with a numeric value
// (ethtool.h: struct ethtool_value).
func (n *Namespace) Ethtool(dev string, cmd, value uint32) error {
	arg := make([]byte, 8)
	binary.NativeEndian.PutUint32(arg, cmd)
	binary.NativeEndian.PutUint32(arg[4:], value)
	return n.Do(func() error {
		if err := ethtool(dev, arg); err != nil {
			return n.explain(fmt.Sprintf("ethtool command %#x on %s", cmd, dev), err)
		}
		return nil
	})
}
