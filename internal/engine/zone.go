package engine

import (
	"net/netip"
	"strconv"
)

// inZone gives a link-local IPv6 address the interface of the route as its zone, by
// number: an interface that is made anew has another one, and what was opened for the
// old one is opened anew.
func inZone(a netip.Addr, device int) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return a.WithZone(strconv.Itoa(device))
	}
	return a
}

// zoneOf is the number of an address's interface; 0: it has none.
func zoneOf(a netip.Addr) uint32 {
	n, _ := strconv.ParseUint(a.Zone(), 10, 32)
	return uint32(n)
}

// isZoned reports whether one of a path's ends is of one link only.
func isZoned(local, remote netip.Addr) bool { return local.Zone() != "" || remote.Zone() != "" }

// named is an address with its interface's name, for people.
func named(a netip.Addr, device string) string {
	if a.Zone() != "" {
		a = a.WithZone(device)
	}
	return a.String()
}
