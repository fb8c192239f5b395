// Package node has the two kinds of 6a44 nodes: client and relay (RFC 6751). Each is a
// resolve.Mechanism, whose resolver is an agent that is passed the time and opens no sockets.
package node

import (
	"net/netip"

	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// direct is the form of packets between two clients of a site: protocol 41.
const direct = 1

// isGlobal reports whether an address is a unicast address of the Internet.
func isGlobal(a header.Word6) bool { return a.Hi>>61 == 1 }

// nativePrefix returns a prefix of the Internet that the host has on another interface; not ok:
// there is none.
func nativePrefix(at resolve.Site) (p netip.Prefix, ok bool) {
	for _, p := range at.Elsewhere {
		if a, is := header.Word6Of(p.Addr()); is && isGlobal(a) {
			return p, true
		}
	}
	return p, false
}

// first4 returns the first IPv4 address of a host.
func first4(h resolve.Host, known [][]netip.Addr) (a netip.Addr, ok bool) {
	if h.Addr.IsValid() {
		return h.Addr.Unmap(), h.Addr.Unmap().Is4()
	}
	if len(known) > 0 {
		for _, a := range known[0] {
			if a.Unmap().Is4() {
				return a.Unmap(), true
			}
		}
	}
	return a, false
}
