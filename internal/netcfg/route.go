package netcfg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Route is how the kernel would send to an address.
type Route struct {
	Source    netip.Addr // the address it would send from
	Interface string
	Index     int        // of the interface
	MTU       int        // of the route, or of its interface if the route has none
	Hop       netip.Addr // the gateway, or the destination itself
	Ethernet  bool       // the interface has Ethernet's frames
	Hardware  [6]byte    // its own address, if so
	Queues    int        // of its receive side, at most
}

// Router asks the kernel of the process's own namespace for routes.
type Router struct{ handle *netlink.Handle }

// NewRouter opens the connection to the kernel.
func NewRouter() (*Router, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Router{h}, nil
}

// Close ends it.
func (r *Router) Close() { r.handle.Close() }

// ErrNotLocal means that no interface has the address that should be ours.
var ErrNotLocal = errors.New("no interface of this host has the address")

// To is the route to remote for packets from local, or, if that is the zero
// address, from whichever address the kernel chooses, with the mark. The error
// is ErrNotLocal if local is not an address of this host.
func (r *Router) To(remote, local netip.Addr, mark uint32) (Route, error) {
	if local.IsValid() {
		own, err := r.handle.RouteGet(local.AsSlice())
		if err != nil || len(own) == 0 || own[0].Type != unix.RTN_LOCAL {
			return Route{}, fmt.Errorf("%v: %w", local, ErrNotLocal)
		}
	}
	found, err := r.handle.RouteGetWithOptions(remote.AsSlice(), &netlink.RouteGetOptions{SrcAddr: local.AsSlice(), Mark: mark})
	if err != nil {
		return Route{}, fmt.Errorf("route to %v: %w", remote, err)
	}
	if len(found) == 0 {
		return Route{}, fmt.Errorf("route to %v: %w", remote, unix.ENETUNREACH)
	}
	route := found[0]
	link, err := r.handle.LinkByIndex(route.LinkIndex)
	if err != nil {
		return Route{}, fmt.Errorf("interface %d of the route to %v: %w", route.LinkIndex, remote, err)
	}
	src, ok := netip.AddrFromSlice(route.Src)
	if !ok {
		src = local
	}
	mtu := link.Attrs().MTU
	// What the kernel has learnt of the path by ICMP it has from anybody: what
	// counts is the route as it stands in the table.
	configured, err := r.handle.RouteGetWithOptions(remote.AsSlice(), &netlink.RouteGetOptions{SrcAddr: local.AsSlice(), Mark: mark, FIBMatch: true})
	if err != nil {
		return Route{}, fmt.Errorf("route to %v: %w", remote, err)
	}
	if len(configured) > 0 && configured[0].MTU > 0 {
		mtu = min(mtu, configured[0].MTU)
	}
	attrs := link.Attrs()
	to := Route{Source: src.Unmap(), Interface: attrs.Name, Index: route.LinkIndex, MTU: mtu, Hop: remote, Queues: max(1, attrs.NumRxQueues)}
	if gw, ok := netip.AddrFromSlice(route.Gw); ok {
		to.Hop = gw.Unmap()
	}
	if attrs.EncapType == "ether" && len(attrs.HardwareAddr) == len(to.Hardware) && attrs.Flags&net.FlagLoopback == 0 {
		to.Ethernet, to.Hardware = true, [6]byte(attrs.HardwareAddr)
	}
	return to, nil
}

// Neighbour is the hardware address of a route's next hop. It makes the kernel
// find that out, or verify it, as the kernel does for its own packets: false
// means that it is not known yet. A change is told to a Watch with neighbours.
func (r *Router) Neighbour(to Route) (hardware [6]byte, ok bool) {
	list, err := r.handle.NeighList(to.Index, netlink.FAMILY_V4)
	if err != nil {
		return hardware, false
	}
	const usable = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT | netlink.NUD_NOARP
	for _, n := range list {
		if a, isAddr := netip.AddrFromSlice(n.IP); isAddr && a.Unmap() == to.Hop && len(n.HardwareAddr) == len(hardware) {
			hardware, ok = [6]byte(n.HardwareAddr), n.State&usable != 0
			if n.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP|netlink.NUD_REACHABLE) != 0 {
				return hardware, true
			}
		}
	}
	// An error here shows as a neighbour that remains unknown.
	_ = r.handle.NeighSet(&netlink.Neigh{LinkIndex: to.Index, Family: netlink.FAMILY_V4, IP: to.Hop.AsSlice(), Flags: netlink.NTF_USE})
	return hardware, ok
}

// Watch calls changed, from one goroutine, for each message by which the kernel
// tells that something has changed in a namespace, until ctx ends: links, IPv4
// addresses, IPv4 routes or, if asked for, neighbours. If it is about a link,
// changed gets its index, else 0. One command of an administrator is a burst of
// messages: changed must only take note.
func Watch(ctx context.Context, namespace string, neighbours bool, changed func(link int)) error {
	groups := []uint{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE}
	if neighbours {
		groups = append(groups, unix.RTNLGRP_NEIGH)
	}
	var sock *nl.NetlinkSocket
	if err := In(namespace, func() (err error) {
		sock, err = nl.Subscribe(unix.NETLINK_ROUTE, groups...)
		return err
	}); err != nil {
		return fmt.Errorf("watch routes: %w", err)
	}
	defer sock.Close()
	stop := context.AfterFunc(ctx, sock.Close)
	defer stop()
	for {
		messages, _, err := sock.Receive()
		if ctx.Err() != nil {
			return nil
		}
		// ENOBUFS says that messages were lost: then something changed, too.
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("watch routes: %w", err)
		}
		if len(messages) == 0 {
			changed(0)
		}
		for _, m := range messages {
			link := 0
			if m.Header.Type == unix.RTM_NEWLINK && len(m.Data) >= unix.SizeofIfInfomsg {
				link = int(nl.DeserializeIfInfomsg(m.Data).Index)
			}
			changed(link)
		}
	}
}
