// Package selfroute finds which of the routes configured for a tunnel's interface would lead
// the tunnel's own outer packets into the interface again. These routes are held back.
//
// The kernel chooses the longest prefix: a more specific route to the peer through another
// interface, such as a host route, prevents the loop. Without it the daemon does not add its
// own route, so that this host can still reach everything else.
package selfroute

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"sixfour/internal/netcfg"
)

// Held is the routes that are held back. The zero value holds none. One goroutine owns it.
type Held struct {
	// Routes are held back; they are among those that are configured.
	Routes []netip.Prefix

	sorted *sorted // the configured routes
}

// sorted indexes configured routes by address: a hub may have as many routes as peers, and
// each peer is checked against all of them.
type sorted struct {
	table bart.Lite
	first *netip.Prefix // identifies the list of routes, together with n
	n     int
}

func newSorted(routes []netip.Prefix) *sorted {
	s := &sorted{first: &routes[0], n: len(routes)}
	for _, p := range routes {
		s.table.Insert(p)
	}
	return s
}

// Check holds back those of the configured routes that would lead outer packets to a remote
// address into the interface of the given name, where answer is the kernel's route to the
// address. It returns what the peer waits for, or "". It keeps routes that are held back
// already.
//
// An invalid address is that of a peer whose name is not resolved, and version is that of its
// outer packets: the default routes are held back, because they must not capture look-ups of
// the name.
func (h *Held) Check(name string, configured []netip.Prefix, remote netip.Addr, version int, answer netcfg.Answer) string {
	if len(configured) == 0 {
		return ""
	}
	if h.sorted == nil || len(configured) != h.sorted.n || &configured[0] != h.sorted.first {
		h.sorted = newSorted(configured)
	}
	within := netip.PrefixFrom(remote, remote.BitLen())
	if !remote.IsValid() && version == 4 {
		within = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	} else if !remote.IsValid() {
		within = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	longest, least := netip.Prefix{}, 0
	if answer.Err == nil {
		least = answer.Bits
	}
	for p := range h.sorted.table.Supernets(within) {
		if p.Bits() < least {
			continue
		}
		if !longest.IsValid() || p.Bits() > longest.Bits() {
			longest = p
		}
		if !slices.Contains(h.Routes, p) {
			h.Routes = append(h.Routes, p)
		}
	}
	switch {
	case !longest.IsValid():
		return ""
	case longest.IsSingleIP():
		return fmt.Sprintf("a route to %v through the uplink: the key routes contains this address, so the tunnel's own packets would enter %s again: remove it from routes", remote, name)
	}
	return fmt.Sprintf("a route to %v through the uplink: the key routes contains %v, which would lead the tunnel's own packets into %s again, so it is not set until there is such a route: ip route add %v/%d via GATEWAY dev UPLINK",
		remote, longest, name, remote, remote.BitLen())
}

// Rest returns the configured routes that are not held back.
func (h *Held) Rest(configured []netip.Prefix) []netip.Prefix {
	if len(h.Routes) == 0 {
		return configured
	}
	return slices.DeleteFunc(slices.Clone(configured), func(p netip.Prefix) bool { return slices.Contains(h.Routes, p) })
}
