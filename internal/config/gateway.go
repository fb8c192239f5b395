package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/pelletier/go-toml/v2/unstable"

	"sixfour/encap"
)

// Gateway is the [gateway] table: it makes one end of a tunnel the internet gateway of
// the other end.
type Gateway struct {
	// Masquerade are the interfaces on which packets from the tunnels get this host's
	// address as source.
	Masquerade []string
	// DefaultRoute is the name of the tunnel for all traffic without another route; ""
	// means none. IPv4 and IPv6 say for which versions: those of which the tunnel has an
	// address.
	DefaultRoute string
	IPv4, IPv6   bool
	Bypass       []netip.Prefix // masked; destinations that keep their old route
	Probe        []netip.Addr   // hosts on the internet that sixfourctl doctor pings
	DefaultProbe bool           // the file does not name Probe
}

// defaultProbe are anycast addresses that answer pings: those of a public DNS resolver.
var defaultProbe = []netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("2606:4700:4700::1111")}

// GatewayMark is the firewall mark of outer packets of tunnels without fwmark, if there
// is a DefaultRoute. It is a single bit, so that other programs can use the other bits.
const GatewayMark = 1 << 25

// gatewayDraft is a [gateway] that is being read.
type gatewayDraft struct {
	Gateway
	masqueradeAt, bypassAt []pos // of each element
	on                     bool  // default_route
	tunnel                 string
}

var gatewayKeys = []key[*gatewayDraft]{
	{"masquerade", readMasquerade},
	{"default_route", func(r *report, e entry, g *gatewayDraft) {
		if on, ok := boolOf(r, e); ok {
			g.on = on
		}
	}},
	{"tunnel", func(r *report, e entry, g *gatewayDraft) {
		if name, ok := stringOf(r, e, "the name of a tunnel"); ok {
			g.tunnel = name
		}
	}},
	{"bypass", readBypass},
	{"probe", readGatewayProbe},
}

// readGateway reads [gateway], after the tunnels were read.
func readGateway(r *report, e entry, c *Config) {
	if !isTable(r, e) {
		return
	}
	sound := r.found == 0
	g := &gatewayDraft{}
	s := readTable(r, "[gateway]", e.value, gatewayKeys, g)
	if !sound { // the tunnels have errors, so a check against them may be misleading
		return
	}
	if !s.bad["masquerade"] {
		g.checkMasquerade(r, c.Tunnels)
	}
	if g.checkDefaultRoute(r, e, s, c.Tunnels) {
		g.checkBypass(r)
		for i := range c.Tunnels {
			if t := &c.Tunnels[i]; t.FwMark == 0 {
				t.FwMark = GatewayMark
			}
		}
	}
	switch {
	case s.set["probe"] && !s.bad["probe"] && g.DefaultRoute == "" && len(g.Masquerade) == 0 && !s.bad["masquerade"] && !g.on:
		r.add(e.table["probe"].at, "probe has nothing to ask for: set default_route or masquerade, or leave probe out")
	case !s.set["probe"] && (g.DefaultRoute != "" || len(g.Masquerade) > 0):
		g.Probe, g.DefaultProbe = defaultProbe, true
	}
	c.Gateway = g.Gateway
}

// readGatewayProbe reads one address or several.
func readGatewayProbe(r *report, e entry, g *gatewayDraft) {
	const want = "the address of a host on the internet, such as \"192.0.2.1\", or an array of them"
	items := []*value{e.value}
	if e.kind == unstable.Array {
		items = e.items
	}
	for _, item := range items {
		a, err := netip.ParseAddr(item.text)
		switch {
		case item.kind != unstable.String:
			r.add(item.at, "probe is %s: it must be %s", kindNames[item.kind], want)
		case err != nil || a.Zone() != "" || !a.IsGlobalUnicast() || a.Is4In6():
			r.add(item.at, "probe is %s: it must be %s", quote(item.text), want)
		case slices.Contains(g.Probe, a):
			r.add(item.at, "probe has %v twice: leave one out", a)
		default:
			g.Probe = append(g.Probe, a)
		}
	}
}

// readMasquerade reads one interface or several.
func readMasquerade(r *report, e entry, g *gatewayDraft) {
	const want = "an interface's name, or an array of them"
	items := []*value{e.value}
	if e.kind == unstable.Array {
		items = e.items
	}
	for _, item := range items {
		switch name := item.text; {
		case item.kind != unstable.String:
			r.add(item.at, "masquerade is %s: it must be %s", kindNames[item.kind], want)
		case name == "" || name == "." || name == ".." || len(name) > maxName || !validName(name):
			r.add(item.at, "masquerade is %s, which is no name of an interface: name the one towards the internet, such as \"eth0\"", quote(name))
		case name == "lo":
			r.doubt(item.at, "masquerade is \"lo\", by which nothing leaves this host: name the interface towards the internet, such as \"eth0\"")
		case slices.Contains(g.Masquerade, name):
			r.add(item.at, "masquerade has %s twice: leave one out", quote(name))
		default:
			g.Masquerade, g.masqueradeAt = append(g.Masquerade, name), append(g.masqueradeAt, item.at)
		}
	}
}

func readBypass(r *report, e entry, g *gatewayDraft) {
	const want = "an array of strings, such as [\"192.0.2.0/24\", \"2001:db8::/64\"]"
	if e.kind != unstable.Array {
		refuseType(r, e, want)
		return
	}
	for _, item := range e.items {
		if item.kind != unstable.String {
			r.add(item.at, "bypass has %s in it: it must be %s", kindNames[item.kind], want)
			continue
		}
		p, err := parsePrefix(item.text)
		switch {
		case err != nil:
		case p != p.Masked():
			err = fmt.Errorf("it has bits set beyond its prefix length: write %v", p.Masked())
		case p.Bits() == 0:
			err = errors.New("that is everything: leave default_route out instead")
		case slices.Contains(g.Bypass, p):
			err = errors.New("it is there twice: leave one out")
		}
		if err != nil {
			r.add(item.at, "bypass has %s: %v", quote(item.text), err)
			continue
		}
		g.Bypass, g.bypassAt = append(g.Bypass, p), append(g.bypassAt, item.at)
	}
}

// checkMasquerade checks the interfaces against the tunnels.
func (g *gatewayDraft) checkMasquerade(r *report, tunnels []Tunnel) {
	if len(g.Masquerade) == 0 {
		return
	}
	for i, name := range g.Masquerade {
		if slices.ContainsFunc(tunnels, func(t Tunnel) bool { return t.Name == name && t.Netns == "" }) {
			r.add(g.masqueradeAt[i], "masquerade is %s, which is a tunnel: name the interface towards the internet, such as \"eth0\"", quote(name))
		}
	}
	if !slices.ContainsFunc(tunnels, func(t Tunnel) bool { return t.Netns == "" && (t.Mode.Carries(4) || t.private6()) }) {
		r.add(g.masqueradeAt[0], "masquerade has nothing to do: no tunnel in the daemon's own network namespace carries IPv4, or has an address of fc00::/7: "+
			"leave it out, or choose a mode that carries IPv4 (%s)", list(quoteAll(modeNames(func(m encap.Mode) bool { return m.Carries(4) }))))
	}
}

// private6 reports whether the tunnel has a unique local IPv6 address (RFC 4193).
func (t *Tunnel) private6() bool {
	return slices.ContainsFunc(t.Address, func(p netip.Prefix) bool { return p.Addr().Is6() && p.Addr().IsPrivate() })
}

// checkDefaultRoute finds the tunnel for the default route, and reports whether there is
// one.
func (g *gatewayDraft) checkDefaultRoute(r *report, e entry, s tableState, tunnels []Tunnel) bool {
	at := func(key string) pos { return e.table[key].at }
	switch {
	case s.bad["default_route"] || s.bad["tunnel"]:
		return false
	case !g.on && s.set["tunnel"]:
		r.add(at("tunnel"), "tunnel is %s, but default_route is false: set default_route = true, or leave tunnel out", quote(g.tunnel))
		return false
	case !g.on && len(g.Bypass) > 0:
		r.add(g.bypassAt[0], "bypass has %v, but everything goes the old way: set default_route = true, or leave bypass out", g.Bypass[0])
		return false
	case !g.on:
		return false
	case !s.set["tunnel"] && len(tunnels) > 1:
		r.add(at("default_route"), "default_route is true, but there are %d tunnels: say which, by tunnel = NAME, of %s", len(tunnels), list(shown(tunnels)))
		return false
	}
	key, t := "default_route", &tunnels[0]
	if s.set["tunnel"] {
		key = "tunnel"
		i := slices.IndexFunc(tunnels, func(t Tunnel) bool { return t.Name == g.tunnel })
		if i < 0 {
			r.add(at(key), "tunnel is %s, which there is not: it must be %s", quote(g.tunnel), list(shown(tunnels)))
			return false
		}
		t = &tunnels[i]
	}
	g.DefaultRoute, g.IPv4, g.IPv6 = t.Name, t.takesAll(4), t.takesAll(6)
	switch {
	case t.Netns != "":
		r.add(at(key), "tunnel %s (line %d) has a network namespace of its own, where nothing else has a default route: leave default_route out, and give the tunnel routes = [\"0.0.0.0/0\"]", quote(t.Name), t.header.line)
	case !g.IPv4 && !g.IPv6 && t.Hub:
		r.add(at(key), "no peer of tunnel %s (line %d) takes everything: give one allowed = [\"0.0.0.0/0\"], and the tunnel an IPv4 address, or \"::/0\" and an IPv6 address", quote(t.Name), t.header.line)
	case !g.IPv4 && !g.IPv6:
		r.add(at(key), "tunnel %s (line %d) has no address from which anything could be sent into it: give it one by address", quote(t.Name), t.header.line)
	default:
		return true
	}
	return false
}

// takesAll reports whether a tunnel can carry all traffic of an IP version: it needs a
// source address, which automatic tunnels may learn, and a hub needs a peer for that
// traffic.
func (t *Tunnel) takesAll(v int) bool {
	ours := func(p netip.Prefix) bool { return version(p.Addr()) == v }
	addressed := slices.ContainsFunc(t.Address, ours) || t.Mode.Automatic
	reached := !t.Hub || slices.ContainsFunc(t.Peers, func(p Peer) bool {
		return slices.ContainsFunc(p.Allowed, func(p netip.Prefix) bool { return ours(p) && p.Bits() == 0 })
	})
	return t.Mode.Carries(v) && addressed && reached
}

// checkBypass reports prefixes of a version that does not use the default route anyway.
func (g *gatewayDraft) checkBypass(r *report) {
	for i, p := range g.Bypass {
		if v := version(p.Addr()); v == 4 && !g.IPv4 || v == 6 && !g.IPv6 {
			r.add(g.bypassAt[i], "bypass has %v, but tunnel %s takes no IPv%d, which all goes the old way: leave it out, or give the tunnel an IPv%d address", p, quote(g.DefaultRoute), v, v)
		}
	}
}

// shown returns names of tunnels, not more than an error message should have.
func shown(tunnels []Tunnel) []string {
	const most = 10
	var names []string
	for _, t := range tunnels[:min(len(tunnels), most)] {
		names = append(names, quote(t.Name))
	}
	if more := len(tunnels) - most; more > 0 {
		names = append(names, fmt.Sprintf("one of %d others", more))
	}
	return names
}
