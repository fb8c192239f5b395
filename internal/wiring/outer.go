package wiring

import (
	"net/netip"
	"strconv"

	"sixfour/encap"
)

// InZone sets the zone of a link-local IPv6 address to the index of the route's interface.
// An interface that is made again has another index, so sockets for the old one are
// replaced.
func InZone(a netip.Addr, device int) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return a.WithZone(strconv.Itoa(device))
	}
	return a
}

// isZoned reports whether an end of a path is a link-local address with a zone.
func isZoned(l *encap.Layer) bool { return l.Local.Zone() != "" || l.Remote.Zone() != "" }

// farEnds returns the remote addresses of a stack. They may be in a subnet of this host,
// which is then the link to the peer, and they belong to the peer inside the tunnel, too.
func farEnds(layers []encap.Layer) (ends []netip.Prefix) {
	for _, l := range layers {
		if l.Remote.IsValid() {
			ends = append(ends, netip.PrefixFrom(l.Remote, l.Remote.BitLen()))
		}
	}
	return ends
}
