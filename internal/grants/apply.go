package grants

import (
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"sixfour/encap"
	"sixfour/internal/config"
)

// granted returns the configuration of a tunnel with what its server has granted; nil: nothing.
func granted(file *config.Tunnel, s *session, g *grant, defaultRoute bool) config.Tunnel {
	t := *file
	t.Peers = slices.Clone(file.Peers)
	peer := &t.Peers[0]
	peer.Paths = slices.Clone(peer.Paths)
	path := &peer.Paths[0]
	*path = s.withReports(*path)
	if g == nil {
		return t
	}
	if g.Path != nil {
		local, at := path.Local, path.At
		*path = s.withReports(*g.Path)
		path.Local, path.At = local, at
	}
	if g.Address.IsValid() && !slices.ContainsFunc(t.Address, func(p netip.Prefix) bool { return p.Addr() == g.Address.Addr() }) {
		t.Address = append([]netip.Prefix{g.Address}, t.Address...)
	}
	if defaultRoute && g.Address.IsValid() {
		t.Routes = append(slices.Clone(t.Routes), allIPv6)
	}
	if !peer.Probe.IsValid() && g.Remote.IsValid() {
		peer.Probe = g.Remote
	}
	if g.Path != nil && g.Every > 0 && t.Keepalive > g.Every { // otherwise the port sends signs of life
		t.Keepalive = max(g.Every, time.Second)
	}
	if t.MTU == 0 && g.MTU != 0 && g.MTU < int(encap.MaxMTU(stackOf(&t, path), t.Options))-(1<<16-1-ethernet) {
		t.MTU = encap.TunnelMTU(g.MTU)
	}
	// The plan of a reload names the keys whose texts have changed.
	h := fnv.New64a()
	fmt.Fprintf(h, "%v %v %v %v %v", g.Address, g.Routed, g.MTU, g.Remote, g.at)
	t.Source.Sums = maps.Clone(file.Source.Sums)
	if t.Source.Sums == nil {
		t.Source.Sums = map[string]uint64{}
	}
	t.Source.Sums["granted"] = h.Sum64()
	return t
}

// mayRoute reports whether the tunnel may have the default route, because no other interface has
// it.
func (s *session) mayRoute(t *config.Tunnel) bool {
	if s.set.Taken == nil {
		return true
	}
	err := s.set.Taken(t, allIPv6)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && !s.bare {
		s.tell("the tunnel does not get the default route: "+err.Error()+": set routes to what shall go into the tunnel", false)
	}
	s.bare = err != nil
	return err == nil
}

// ethernet is the MTU of a path over which the MTU that a server grants is a limit of its own
// only if it is smaller than what fits.
const ethernet = 1500

func stackOf(t *config.Tunnel, p *config.Path) []encap.Layer {
	return t.Stack(&t.Peers[0], p, netip.Addr{}, netip.Addr{})
}

// withReports returns a path whose connections report to the session.
func (s *session) withReports(p config.Path) config.Path {
	s.mu.Lock()
	by := s.attempt
	s.mu.Unlock()
	switch of := p.Session.(type) {
	case config.AYIYA:
		of.Reports = by
		p.Session = of
	case config.TSP:
		of.Reports = by
		p.Session = of
	case config.JSON:
		of.Reports = by
		p.Session = of
	}
	return p
}

// networks returns the networks of this host's interfaces.
func networks() map[string][]netip.Prefix {
	all := map[string][]netip.Prefix{}
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		addresses, _ := i.Addrs()
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				all[i.Name] = append(all[i.Name], p)
			}
		}
	}
	return all
}

// The bounds of the MTU that a server may grant.
const leastMTU, mostMTU = 1280, 65535

// notGranted are networks whose addresses no server may grant.
var notGranted = []struct {
	network netip.Prefix
	what    string
}{
	{netip.MustParsePrefix("::/8"), "a reserved network"},
	{netip.MustParsePrefix("64:ff9b::/96"), "the network of NAT64"},
	{netip.MustParsePrefix("100::/64"), "a network whose packets are discarded"},
	{netip.MustParsePrefix("2001::/32"), "the network of Teredo"},
	{netip.MustParsePrefix("2002::/16"), "the network of 6to4"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local network"},
	{netip.MustParsePrefix("fec0::/10"), "the network of former site-local addresses"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast network"},
}

// unsafe returns why a grant must not be used on this host; "": it may be used.
func (s *session) unsafe(g *config.Grant) string {
	if g.MTU != 0 && (g.MTU < leastMTU || g.MTU > mostMTU) {
		return fmt.Sprintf("an MTU of %d, which is not between %d, the least of IPv6, and %d", g.MTU, leastMTU, mostMTU)
	}
	if g.Address.IsValid() {
		if why := s.unsafePrefix(g.Address, true); why != "" {
			return why
		}
	}
	for _, p := range g.Routed {
		if why := s.unsafePrefix(p, false); why != "" {
			return why
		}
	}
	if g.Path != nil && g.Path.Remote.Addr.IsValid() {
		if why := s.unsafeServer(g.Path.Remote.Addr); why != "" {
			return why
		}
	}
	return ""
}

// unsafeServer returns why packets of the tunnel must not be sent to an outer address.
func (s *session) unsafeServer(a netip.Addr) string {
	if config.NotUnicast(a) != "" || a.IsLoopback() && !s.id.client.Server.Addr.IsLoopback() {
		return fmt.Sprintf("the outer address %v, to which no packets can be sent", a)
	}
	for name, all := range s.set.Networks() {
		for _, p := range all {
			if p.Addr() == a {
				return fmt.Sprintf("the outer address %v, which is this host's own, of interface %s", a, name)
			}
		}
	}
	return ""
}

// unsafePrefix returns why a prefix must not be used. Ours says that it is the network of the
// interface, with our address in it; otherwise it may have networks of this host in it, which
// is what it is for.
func (s *session) unsafePrefix(p netip.Prefix, ours bool) string {
	a, what := p.Addr(), "the prefix"
	if ours {
		what = "the address"
	}
	if !a.Is6() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() {
		return fmt.Sprintf("%s %v, which is not of IPv6 or not a host's", what, p)
	}
	if p.Bits() < 16 {
		return fmt.Sprintf("%s %v, which is most of the Internet", what, p)
	}
	for _, n := range notGranted {
		if n.network.Overlaps(p) {
			return fmt.Sprintf("%s %v, of %s (%v)", what, p, n.what, n.network)
		}
	}
	for name, all := range s.set.Networks() {
		if name == s.id.tunnel {
			continue
		}
		for _, network := range all {
			if network = network.Masked(); network.Addr().Is4() || network.Addr().IsLinkLocalUnicast() || !network.Overlaps(p) {
				continue
			}
			if ours || network.Bits() < p.Bits() {
				return fmt.Sprintf("%s %v, which is in the network %v of interface %s of this host", what, p, network, name)
			}
		}
	}
	return s.set.claimed(s.id.tunnel, p, what)
}

// claimed returns why a prefix cannot be granted to a tunnel because another tunnel has a route
// to it, or to a part of it.
func (s *Set) claimed(tunnel string, p netip.Prefix, what string) string {
	s.mu.Lock()
	file := s.file
	s.mu.Unlock()
	if file == nil {
		return ""
	}
	for i := range file.Tunnels {
		t := &file.Tunnels[i]
		if t.Name == tunnel {
			continue
		}
		for _, list := range [][]netip.Prefix{t.Routes, t.Address} {
			for _, r := range list {
				if r.Addr().Is6() && p.Masked().Contains(r.Addr()) && r.Bits() >= p.Bits() {
					return fmt.Sprintf("%s %v, which covers %v of the tunnel %s", what, p, r, t.Name)
				}
			}
		}
	}
	return ""
}
