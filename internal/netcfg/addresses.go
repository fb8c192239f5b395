package netcfg

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/netns"
)

// Address is an address of an interface.
type Address struct {
	netip.Prefix              // with the length of its subnet
	Subnet       netip.Prefix // reached through the interface without a router; invalid: none, because the interface is down
	Link         int          // index of the interface
}

// Addresses returns the addresses of all interfaces in a namespace, given as for In.
func Addresses(namespace string) (list []Address, err error) {
	err = netns.In(namespace, func() error {
		r, err := NewRouter()
		if err != nil {
			return err
		}
		defer r.Close()
		list, err = r.Addresses()
		return err
	})
	return list, err
}

// Addresses returns the addresses of all interfaces in the Router's namespace.
func (r *Router) Addresses() ([]Address, error) {
	list, err := r.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	addrs := make([]Address, 0, len(list))
	var links []int
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || a.Flags&unix.IFA_F_DADFAILED != 0 { // another host has the address
			continue
		}
		ones, _ := a.Mask.Size()
		one := Address{Prefix: netip.PrefixFrom(ip.Unmap(), ones), Link: a.LinkIndex}
		one.Subnet = one.Masked()
		if a.Peer != nil { // the remote address of a point-to-point link
			if peer, ok := netip.AddrFromSlice(a.Peer.IP); ok {
				ones, _ := a.Peer.Mask.Size()
				one.Subnet = netip.PrefixFrom(peer.Unmap(), ones).Masked()
			}
		}
		addrs = append(addrs, one)
		links = append(links, a.LinkIndex)
	}
	devices := r.devices(links)
	for i := range addrs {
		if d := devices[addrs[i].Link]; d == nil || d.err != nil || !d.up {
			addrs[i].Subnet = netip.Prefix{}
		}
	}
	return addrs, nil
}
