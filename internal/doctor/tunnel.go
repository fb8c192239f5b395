package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/netcfg"
	"sixfour/internal/netns"
)

// inside runs f in the namespace of the tunnel's interface, with a netlink handle for it.
func (t *tunnel) inside(f func(*netlink.Handle) error) error {
	return netns.In(t.cfg.Netns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer h.Close()
		return f(h)
	})
}

// ip returns the ip command for the interface's namespace.
func (t *tunnel) ip() string {
	switch {
	case t.cfg.Netns == "":
		return "ip"
	case strings.ContainsRune(t.cfg.Netns, '/'):
		return "nsenter --net=" + t.cfg.Netns + " ip"
	}
	return "ip -n " + t.cfg.Netns
}

func (t *tunnel) checkInterface(context.Context) (f finding) {
	if err := t.inside(func(h *netlink.Handle) error {
		f = t.lookAtInterface(h)
		return nil
	}); err != nil {
		return failOrSkip(err)
	}
	return f
}

// failOrSkip returns the finding for an error that prevented a check.
func failOrSkip(err error) finding {
	var ns *netns.Error
	switch {
	case errors.Is(err, unix.EPERM):
		return skip("%v", err).but(asRoot)
	case errors.As(err, &ns):
		return fail(ns.Hint, "network namespace %s: %v", ns.Namespace, ns.Err)
	}
	return skip("%v", err)
}

func (t *tunnel) lookAtInterface(h *netlink.Handle) finding {
	name := t.cfg.Name
	link, err := h.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing) && t.status == nil:
		return skip("there is none yet: sixfourd makes it when it starts")
	case errors.As(err, &missing):
		return fail("systemctl restart sixfourd", "there is no interface %s, though a daemon runs the tunnel", name)
	case err != nil:
		return skip("look up interface %s: %v", name, err)
	case link.Type() != "tun" && link.Type() != "tuntap":
		return fail(fmt.Sprintf("%s link delete %s", t.ip(), name), "an interface %s exists, of type %s, and is not sixfour's: delete it, or give the tunnel another name", name, link.Type())
	case t.status == nil:
		return skip("there is one, of another program, or of a daemon that was not asked: name its control socket with --socket")
	case link.Attrs().Flags&net.FlagUp == 0:
		return fail(fmt.Sprintf("%s link set %s up", t.ip(), name), "interface %s is down", name)
	}
	if want, is := t.status.State.TunnelMTU, link.Attrs().MTU; want != 0 && want != is {
		return fail(fmt.Sprintf("%s link set %s mtu %d", t.ip(), name, want), "the MTU of %s is %d, but the daemon has set %d: somebody has changed it", name, is, want)
	}
	if f, bad := t.lookAtAddresses(h, link); bad {
		return f
	}
	if f, bad := t.lookAtRoutes(h, link); bad {
		return f
	}
	return pass("%s is up, MTU %d", name, link.Attrs().MTU)
}

// addresses returns the addresses that the interface must have, given the daemon's present
// outer address.
func (t *tunnel) addresses() []netip.Prefix {
	if t.status == nil {
		return t.cfg.Address
	}
	local, _ := netip.ParseAddr(t.status.State.Local) // invalid if there is none
	return t.cfg.AddressAt(local)
}

func (t *tunnel) lookAtAddresses(h *netlink.Handle, link netlink.Link) (f finding, bad bool) {
	list, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return skip("list addresses of %s: %v", t.cfg.Name, err), true
	}
	for _, want := range t.addresses() {
		if !slices.ContainsFunc(list, func(a netlink.Addr) bool {
			ones, _ := a.Mask.Size()
			got, ok := netip.AddrFromSlice(a.IP)
			return ok && got.Unmap() == want.Addr() && ones == want.Bits()
		}) {
			return fail(fmt.Sprintf("%s addr add %v dev %s", t.ip(), want, t.cfg.Name), "the address %v is not on %s any more", want, t.cfg.Name), true
		}
	}
	return f, false
}

func (t *tunnel) lookAtRoutes(h *netlink.Handle, link netlink.Link) (f finding, bad bool) {
	for _, want := range t.cfg.Routes {
		family := netlink.FAMILY_V4
		if want.Addr().Is6() {
			family = netlink.FAMILY_V6
		}
		list, err := h.RouteList(link, family)
		if err != nil {
			return skip("list routes through %s: %v", t.cfg.Name, err), true
		}
		if !slices.ContainsFunc(list, func(r netlink.Route) bool { return routeTo(r) == want }) {
			return fail(fmt.Sprintf("%s route add %v dev %s", t.ip(), want, t.cfg.Name), "the route to %v does not lead into %s any more", want, t.cfg.Name), true
		}
	}
	return f, false
}

// routeTo returns the destination of a route. A default route may have none set.
func routeTo(r netlink.Route) netip.Prefix {
	if r.Dst == nil {
		if r.Family == netlink.FAMILY_V6 {
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	a, _ := netip.AddrFromSlice(r.Dst.IP)
	ones, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}

// forwarding lists the settings that make a host forward packets of an IP version.
var forwarding = []struct {
	version       int
	path, setting string
}{
	{4, "net/ipv4/ip_forward", "net.ipv4.ip_forward"},
	{6, "net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"},
}

func (t *tunnel) checkForwarding(context.Context) (f finding) {
	if len(t.cfg.Routes) == 0 {
		return skip("the tunnel has no routes: it is for this host itself")
	}
	if err := t.inside(func(h *netlink.Handle) error {
		f = t.lookAtForwarding(h)
		return nil
	}); err != nil {
		return failOrSkip(err)
	}
	return f
}

func (t *tunnel) lookAtForwarding(h *netlink.Handle) finding {
	on := 0
	for _, s := range forwarding {
		if !slices.ContainsFunc(t.cfg.Routes, func(p netip.Prefix) bool { return p.Addr().Is4() == (s.version == 4) }) {
			continue
		}
		value, err := t.sysctl(s.path)
		if err != nil {
			return skip("%v", err)
		}
		if value != 0 {
			on++
			continue
		}
		other, known := t.otherNetwork(h, s.version)
		switch {
		case other == "":
			continue
		case !known:
			return skip("%s is 0, and by which interface peers are reached is not known: %s may be that", s.setting, other)
		}
		command := "sysctl -w " + s.setting + "=1"
		if t.cfg.Netns != "" {
			command = strings.TrimSuffix(t.ip(), " ip") + " " + command
			command = strings.Replace(command, "ip -n "+t.cfg.Netns, "ip netns exec "+t.cfg.Netns, 1)
		}
		return fail(command, "%s is 0: what comes from %s is not forwarded into the tunnel, nor back", s.setting, other)
	}
	if on == 0 {
		return skip("is off, and there is no other network to forward for: the tunnel is for this host itself")
	}
	return pass("this host forwards what the tunnel's routes are for")
}

// sysctl reads a setting in the namespace of the current thread. A missing setting is 0.
func (t *tunnel) sysctl(path string) (int, error) {
	b, err := os.ReadFile(filepath.Join(t.h.o.Paths.Proc, "sys", path))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// otherNetwork returns an interface with an address of an IP version that is not the
// loopback device, a tunnel's interface, or the uplink to the first peers; "": there is
// none. Known means that the uplink is known, if the namespace has peers.
func (t *tunnel) otherNetwork(h *netlink.Handle, version int) (name string, known bool) {
	uplinks := make(map[string]bool)
	if t.cfg.Netns == "" && t.h.router != nil {
		for _, p := range t.peers {
			if r, err := t.h.router.To(p.knownRemote(), netip.Addr{}, t.cfg.FwMark); err == nil {
				uplinks[r.Interface] = true
			} else if r, err := t.h.router.Holder(p.configured()); err == nil { // there is no route at the moment
				uplinks[r.Interface] = true
			}
		}
	}
	known = len(uplinks) > 0 || len(t.peers) == 0 || t.cfg.Netns != ""
	links, err := h.LinkList()
	if err != nil {
		return "", known
	}
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagLoopback != 0 || a.Flags&net.FlagUp == 0 || l.Type() == "tun" || l.Type() == "tuntap" || uplinks[a.Name] {
			continue
		}
		family := netlink.FAMILY_V4
		if version == 6 {
			family = netlink.FAMILY_V6
		}
		addrs, err := h.AddrList(l, family)
		if err != nil {
			continue
		}
		if slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.IsGlobalUnicast() }) {
			return a.Name, known
		}
	}
	return "", known
}

// strict is the value of rp_filter that drops packets which fail the reverse path check
// (RFC 3704 section 2.2); 2 is loose.
const strict = 1

// filterOf returns the effective rp_filter of an interface: the larger of its own value and
// that of all.
func (t *tunnel) filterOf(device string) (int, error) {
	all, err := t.sysctl("net/ipv4/conf/all/rp_filter")
	if err != nil {
		return 0, err
	}
	own, err := t.sysctl(filepath.Join("net/ipv4/conf", device, "rp_filter"))
	return max(all, own), err
}

func (t *tunnel) checkInnerFilter(context.Context) (f finding) {
	if !t.cfg.Mode.Carries(4) {
		return skip("the mode does not carry IPv4")
	}
	if err := t.inside(func(h *netlink.Handle) error {
		f = t.lookAtInnerFilter(h)
		return nil
	}); err != nil {
		return failOrSkip(err)
	}
	return f
}

func (t *tunnel) lookAtInnerFilter(h *netlink.Handle) finding {
	name := t.cfg.Name
	if _, err := h.LinkByName(name); err != nil {
		return skip("there is no interface %s yet", name)
	}
	value, err := t.filterOf(name)
	if err != nil {
		return skip("%v", err)
	}
	if value != strict {
		return pass("is not strict on %s", name)
	}
	router, err := netcfg.NewRouter()
	if err != nil {
		return skip("%v", err)
	}
	defer router.Close()
	for _, p := range t.cfg.Peers {
		for _, prefix := range p.Allowed {
			if prefix.Addr().Is6() {
				continue
			}
			if r, err := router.To(prefix.Addr(), netip.Addr{}, 0); err != nil || r.Interface != name {
				command := fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2", name)
				return fail(command+fmt.Sprintf(" (or add %q to routes)", prefix), "is strict on %s, and packets from %v, which are allowed of peer %s, are dropped: no route leads back there through %s", name, prefix, p.Name, name)
			}
		}
	}
	return pass("is strict on %s, where only what is routed into it comes from", name)
}
