package netcfg

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Neighbour is the hardware address of a route's next hop. It makes the kernel
// find that out, or verify it, as the kernel does for its own packets: false
// means that it is not known yet. A change is told to a Watch with neighbours.
func (r *Router) Neighbour(to Route) (hardware [6]byte, ok bool) {
	kind := int(family(to.Hop))
	list, err := r.handle.NeighList(to.Index, kind)
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
	_ = r.handle.NeighSet(&netlink.Neigh{LinkIndex: to.Index, Family: kind, IP: to.Hop.AsSlice(), Flags: netlink.NTF_USE})
	return hardware, ok
}
