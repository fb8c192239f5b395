// Package tunnelcheck has doctor's checks of a tunnel's interface.
package tunnelcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/netcfg"
)

// Interface checks whether the interface is up and has its addresses and routes.
func Interface(_ context.Context, t *subject.Tunnel) (f finding.Finding) {
	if err := t.InNamespace(func(h *netlink.Handle) error {
		f = inspectInterface(t, h)
		return nil
	}); err != nil {
		return finding.OfError(err)
	}
	return f
}

func inspectInterface(t *subject.Tunnel, h *netlink.Handle) finding.Finding {
	name := t.Config.Name
	link, err := h.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing) && t.Status == nil:
		return finding.Skipped("it does not exist yet: sixfourd creates it when it starts")
	case errors.As(err, &missing):
		return finding.Failed("systemctl restart sixfourd", "there is no interface %s, although a daemon runs the tunnel", name)
	case err != nil:
		return finding.Skipped("look up interface %s: %v", name, err)
	case link.Type() != "tun" && link.Type() != "tuntap":
		return finding.Failed(fmt.Sprintf("%s link delete %s", t.IPCommand(), name), "an interface %s of type %s exists that sixfour did not create: delete it, or give the tunnel another name", name, link.Type())
	case t.Status == nil:
		return finding.Skipped("it exists, but it belongs to another program, or to a daemon with another control socket (--socket)")
	case link.Attrs().Flags&net.FlagUp == 0:
		return finding.Failed(fmt.Sprintf("%s link set %s up", t.IPCommand(), name), "interface %s is down", name)
	}
	if want, is := t.Status.State.TunnelMTU, link.Attrs().MTU; want != 0 && want != is {
		return finding.Failed(fmt.Sprintf("%s link set %s mtu %d", t.IPCommand(), name, want), "the MTU of %s is %d, but the daemon set %d: another program has changed it", name, is, want)
	}
	if f, bad := inspectAddresses(t, h, link); bad {
		return f
	}
	if f, bad := inspectRoutes(t, h, link); bad {
		return f
	}
	return finding.Passed("%s is up, MTU %d", name, link.Attrs().MTU)
}

func inspectAddresses(t *subject.Tunnel, h *netlink.Handle, link netlink.Link) (f finding.Finding, bad bool) {
	list, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return finding.Skipped("list addresses of %s: %v", t.Config.Name, err), true
	}
	for _, want := range t.Addresses() {
		if !slices.ContainsFunc(list, func(a netlink.Addr) bool {
			ones, _ := a.Mask.Size()
			got, ok := netip.AddrFromSlice(a.IP)
			return ok && got.Unmap() == want.Addr() && ones == want.Bits()
		}) {
			return finding.Failed(fmt.Sprintf("%s addr add %v dev %s", t.IPCommand(), want, t.Config.Name), "the address %v is not on %s any more", want, t.Config.Name), true
		}
	}
	return f, false
}

func inspectRoutes(t *subject.Tunnel, h *netlink.Handle, link netlink.Link) (f finding.Finding, bad bool) {
	for _, want := range t.Config.Routes {
		family := netlink.FAMILY_V4
		if want.Addr().Is6() {
			family = netlink.FAMILY_V6
		}
		list, err := h.RouteList(link, family)
		if err != nil {
			return finding.Skipped("list routes through %s: %v", t.Config.Name, err), true
		}
		if !slices.ContainsFunc(list, func(r netlink.Route) bool { return routeTo(r) == want }) {
			return finding.Failed(fmt.Sprintf("%s route add %v dev %s", t.IPCommand(), want, t.Config.Name), "the route to %v does not lead into %s any more", want, t.Config.Name), true
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

// Forwarding checks whether this host forwards packets for the tunnel's routes.
func Forwarding(_ context.Context, t *subject.Tunnel) (f finding.Finding) {
	if len(t.Config.Routes) == 0 {
		return finding.Skipped("the tunnel has no routes: only this host uses it")
	}
	if err := t.InNamespace(func(h *netlink.Handle) error {
		f = inspectForwarding(t, h)
		return nil
	}); err != nil {
		return finding.OfError(err)
	}
	return f
}

func inspectForwarding(t *subject.Tunnel, h *netlink.Handle) finding.Finding {
	on := 0
	for _, s := range forwarding {
		if !slices.ContainsFunc(t.Config.Routes, func(p netip.Prefix) bool { return p.Addr().Is4() == (s.version == 4) }) {
			continue
		}
		value, err := t.Sysctl(s.path)
		if err != nil {
			return finding.Skipped("%v", err)
		}
		if value != 0 {
			on++
			continue
		}
		other, known := otherNetwork(t, h, s.version)
		switch {
		case other == "":
			continue
		case !known:
			return finding.Skipped("%s is 0, and it is not known through which interface the peers are reached: it may be %s", s.setting, other)
		}
		command := "sysctl -w " + s.setting + "=1"
		if t.Config.Netns != "" {
			command = strings.TrimSuffix(t.IPCommand(), " ip") + " " + command
			command = strings.Replace(command, "ip -n "+t.Config.Netns, "ip netns exec "+t.Config.Netns, 1)
		}
		return finding.Failed(command, "%s is 0: packets from %s are not forwarded into the tunnel, nor back", s.setting, other)
	}
	if on == 0 {
		return finding.Skipped("forwarding is off, and there is no other network: only this host uses the tunnel")
	}
	return finding.Passed("this host forwards packets for the tunnel's routes")
}

// otherNetwork returns an interface with an address of an IP version that is not the
// loopback device, a tunnel's interface, or the uplink to the first peers; "": there is
// none. Known means that the uplink is known, if the namespace has peers.
func otherNetwork(t *subject.Tunnel, h *netlink.Handle, version int) (name string, known bool) {
	uplinks := make(map[string]bool)
	if t.Config.Netns == "" && t.Host.Router != nil {
		for _, p := range t.Peers {
			if r, err := t.Host.Router.To(p.KnownRemote(), netip.Addr{}, t.Config.FwMark); err == nil {
				uplinks[r.Interface] = true
			} else if r, err := t.Host.Router.InterfaceWith(p.Configured()); err == nil { // there is no route at the moment
				uplinks[r.Interface] = true
			}
		}
	}
	known = len(uplinks) > 0 || len(t.Peers) == 0 || t.Config.Netns != ""
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

// ReversePath checks whether strict filtering on the interface drops packets of its peers.
func ReversePath(_ context.Context, t *subject.Tunnel) (f finding.Finding) {
	if !t.Config.Mode.Carries(4) {
		return finding.Skipped("the mode does not carry IPv4")
	}
	if err := t.InNamespace(func(h *netlink.Handle) error {
		f = inspectReversePath(t, h)
		return nil
	}); err != nil {
		return finding.OfError(err)
	}
	return f
}

func inspectReversePath(t *subject.Tunnel, h *netlink.Handle) finding.Finding {
	name := t.Config.Name
	if _, err := h.LinkByName(name); err != nil {
		return finding.Skipped("there is no interface %s yet", name)
	}
	value, err := t.ReversePathFilter(name)
	if err != nil {
		return finding.Skipped("%v", err)
	}
	if value != subject.Strict {
		return finding.Passed("rp_filter is not strict on %s", name)
	}
	router, err := netcfg.NewRouter()
	if err != nil {
		return finding.Skipped("%v", err)
	}
	defer router.Close()
	for _, p := range t.Config.Peers {
		for _, prefix := range p.Allowed {
			if prefix.Addr().Is6() {
				continue
			}
			if r, err := router.To(prefix.Addr(), netip.Addr{}, 0); err != nil || r.Interface != name {
				command := fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2", name)
				return finding.Failed(command+fmt.Sprintf(" (or add %q to routes)", prefix), "rp_filter is strict on %s and drops packets from %v, which peer %s may send: no route to them leads through %s", name, prefix, p.Name, name)
			}
		}
	}
	return finding.Passed("rp_filter is strict on %s, through which all prefixes of its peers are routed", name)
}
