package engine

import (
	"net/netip"
	"strconv"
)

// inZone sets the zone of a link-local IPv6 address to the index of the route's interface.
// An interface that is made again has another index, so sockets for the old one are
// replaced.
func inZone(a netip.Addr, device int) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return a.WithZone(strconv.Itoa(device))
	}
	return a
}

// isZoned reports whether an end of a path is a link-local address with a zone.
func isZoned(local, remote netip.Addr) bool { return local.Zone() != "" || remote.Zone() != "" }
