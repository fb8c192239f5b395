package netcfg

import (
	"net/netip"

	"github.com/vishvananda/netlink"

	"sixfour/internal/rtnl"
)

// Neighbour returns the hardware address of a route's next hop. It makes the kernel
// resolve or verify the address, as for the kernel's own packets. Ok is false if the
// address is not known yet. A Watch with neighbours reports changes.
func (r *Router) Neighbour(to Route) (hardware [6]byte, ok bool) {
	kind := int(rtnl.Family(to.NextHop))
	list, err := r.handle.NeighList(to.Index, kind)
	if err != nil {
		return hardware, false
	}
	const usable = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT | netlink.NUD_NOARP
	for _, n := range list {
		if a, isAddr := netip.AddrFromSlice(n.IP); isAddr && a.Unmap() == to.NextHop && len(n.HardwareAddr) == len(hardware) {
			hardware, ok = [6]byte(n.HardwareAddr), n.State&usable != 0
			if n.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP|netlink.NUD_REACHABLE) != 0 {
				return hardware, true
			}
		}
	}
	// After an error the neighbour stays unknown, which the caller sees.
	_ = r.handle.NeighSet(&netlink.Neigh{LinkIndex: to.Index, Family: kind, IP: to.NextHop.AsSlice(), Flags: netlink.NTF_USE})
	return hardware, ok
}
