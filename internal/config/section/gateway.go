package section

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"sixfour/internal/config"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// DefaultProbe are anycast addresses that answer pings: those of a public DNS resolver.
var DefaultProbe = []netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("2606:4700:4700::1111")}

// gatewayDraft is a [gateway] that is being read.
type gatewayDraft struct {
	config.Gateway
	masqueradeAt, bypassAt []problem.Pos // of each element
	on                     bool          // default_route
	tunnel                 string
}

var gatewayKeys = []tree.Key[*gatewayDraft]{
	{Name: "masquerade", Read: readMasquerade},
	{Name: "default_route", Read: func(r *problem.Report, e tree.Entry, g *gatewayDraft) {
		if on, ok := value.Bool(r, e); ok {
			g.on = on
		}
	}},
	{Name: "tunnel", Read: func(r *problem.Report, e tree.Entry, g *gatewayDraft) {
		if name, ok := value.String(r, e, "the name of a tunnel"); ok {
			g.tunnel = name
		}
	}},
	{Name: "bypass", Read: readBypass},
	{Name: "probe", Read: readGatewayProbe},
}

// readGateway reads [gateway], after the tunnels were read.
func readGateway(r *problem.Report, e tree.Entry, c *config.Config) {
	if !isTable(r, e) {
		return
	}
	sound := r.Found == 0
	g := &gatewayDraft{}
	s := keys.Read(r, "[gateway]", e.Value, gatewayKeys, g)
	if !sound { // the tunnels have errors, so a check against them may be misleading
		return
	}
	if !s.Bad["masquerade"] {
		g.checkMasquerade(r, c.Tunnels)
	}
	if g.checkDefaultRoute(r, e, s, c.Tunnels) {
		g.checkBypass(r)
		for i := range c.Tunnels {
			if t := &c.Tunnels[i]; t.FwMark == 0 {
				t.FwMark = config.GatewayMark
			}
		}
	}
	switch {
	case s.Set["probe"] && !s.Bad["probe"] && g.DefaultRoute == "" && len(g.Masquerade) == 0 && !s.Bad["masquerade"] && !g.on:
		r.Add(e.Table["probe"].At, "probe tests internet access through a tunnel, which this gateway does not give: set default_route or masquerade, or leave probe out")
	case !s.Set["probe"] && (g.DefaultRoute != "" || len(g.Masquerade) > 0):
		g.Probe, g.DefaultProbe = DefaultProbe, true
	}
	c.Gateway = g.Gateway
}

// readGatewayProbe reads one address or several.
func readGatewayProbe(r *problem.Report, e tree.Entry, g *gatewayDraft) {
	const want = "the address of a host on the internet, such as \"192.0.2.1\", or an array of them"
	items := []*tree.Value{e.Value}
	if e.Kind == tree.Array {
		items = e.Items
	}
	for _, item := range items {
		a, err := netip.ParseAddr(item.Text)
		switch {
		case item.Kind != tree.String:
			r.Add(item.At, "probe is %s: it must be %s", tree.KindNames[item.Kind], want)
		case err != nil || a.Zone() != "" || !a.IsGlobalUnicast() || a.Is4In6():
			r.Add(item.At, "probe is %s: it must be %s", problem.Quote(item.Text), want)
		case slices.Contains(g.Probe, a):
			r.Add(item.At, "probe has %v twice: leave one out", a)
		default:
			g.Probe = append(g.Probe, a)
		}
	}
}

// readMasquerade reads one interface or several.
func readMasquerade(r *problem.Report, e tree.Entry, g *gatewayDraft) {
	const want = "an interface's name, or an array of them"
	items := []*tree.Value{e.Value}
	if e.Kind == tree.Array {
		items = e.Items
	}
	for _, item := range items {
		switch name := item.Text; {
		case item.Kind != tree.String:
			r.Add(item.At, "masquerade is %s: it must be %s", tree.KindNames[item.Kind], want)
		case name == "" || name == "." || name == ".." || len(name) > value.MaxName || !value.ValidName(name):
			r.Add(item.At, "masquerade is %s, which cannot be the name of an interface: name the one towards the internet, such as \"eth0\"", problem.Quote(name))
		case name == "lo":
			r.Doubt(item.At, "masquerade is \"lo\", through which nothing leaves this host: name the interface towards the internet, such as \"eth0\"")
		case slices.Contains(g.Masquerade, name):
			r.Add(item.At, "masquerade has %s twice: leave one out", problem.Quote(name))
		default:
			g.Masquerade, g.masqueradeAt = append(g.Masquerade, name), append(g.masqueradeAt, item.At)
		}
	}
}

func readBypass(r *problem.Report, e tree.Entry, g *gatewayDraft) {
	const want = "an array of strings, such as [\"192.0.2.0/24\", \"2001:db8::/64\"]"
	if e.Kind != tree.Array {
		value.RefuseType(r, e, want)
		return
	}
	for _, item := range e.Items {
		if item.Kind != tree.String {
			r.Add(item.At, "bypass has %s in it: it must be %s", tree.KindNames[item.Kind], want)
			continue
		}
		p, err := value.ParsePrefix(item.Text)
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
			r.Add(item.At, "bypass has %s: %v", problem.Quote(item.Text), err)
			continue
		}
		g.Bypass, g.bypassAt = append(g.Bypass, p), append(g.bypassAt, item.At)
	}
}

// checkMasquerade checks the interfaces against the tunnels.
func (g *gatewayDraft) checkMasquerade(r *problem.Report, tunnels []config.Tunnel) {
	if len(g.Masquerade) == 0 {
		return
	}
	for i, name := range g.Masquerade {
		if slices.ContainsFunc(tunnels, func(t config.Tunnel) bool { return t.Name == name && t.Netns == "" }) {
			r.Add(g.masqueradeAt[i], "masquerade is %s, which is a tunnel: name the interface towards the internet, such as \"eth0\"", problem.Quote(name))
		}
	}
	if !slices.ContainsFunc(tunnels, func(t config.Tunnel) bool { return t.Netns == "" && (t.Mode.Carries(4) || hasPrivate6(&t)) }) {
		r.Add(g.masqueradeAt[0], "masquerade has no effect: no tunnel in the daemon's own network namespace carries IPv4, or has an address of fc00::/7: "+
			"leave it out, or choose a mode that carries IPv4 (%s)", problem.Alternatives(problem.QuoteAll(keys.Modes(keys.Carries(4)))))
	}
}

// hasPrivate6 reports whether the tunnel has a unique local IPv6 address (RFC 4193).
func hasPrivate6(t *config.Tunnel) bool {
	return slices.ContainsFunc(t.Address, func(p netip.Prefix) bool { return p.Addr().Is6() && p.Addr().IsPrivate() })
}

// checkDefaultRoute finds the tunnel for the default route, and reports whether there is
// one.
func (g *gatewayDraft) checkDefaultRoute(r *problem.Report, e tree.Entry, s tree.State, tunnels []config.Tunnel) bool {
	at := func(key string) problem.Pos { return e.Table[key].At }
	switch {
	case s.Bad["default_route"] || s.Bad["tunnel"]:
		return false
	case !g.on && s.Set["tunnel"]:
		r.Add(at("tunnel"), "tunnel is %s, but default_route is false: set default_route = true, or leave tunnel out", problem.Quote(g.tunnel))
		return false
	case !g.on && len(g.Bypass) > 0:
		r.Add(g.bypassAt[0], "bypass has %v, but there is no default route through a tunnel: set default_route = true, or leave bypass out", g.Bypass[0])
		return false
	case !g.on:
		return false
	case !s.Set["tunnel"] && len(tunnels) > 1:
		r.Add(at("default_route"), "default_route is true, but there are %d tunnels: say which, by tunnel = NAME, of %s", len(tunnels), problem.Alternatives(shown(tunnels)))
		return false
	}
	key, t := "default_route", &tunnels[0]
	if s.Set["tunnel"] {
		key = "tunnel"
		i := slices.IndexFunc(tunnels, func(t config.Tunnel) bool { return t.Name == g.tunnel })
		if i < 0 {
			r.Add(at(key), "tunnel is %s, which does not exist: it must be %s", problem.Quote(g.tunnel), problem.Alternatives(shown(tunnels)))
			return false
		}
		t = &tunnels[i]
	}
	g.DefaultRoute, g.IPv4, g.IPv6 = t.Name, takesAll(t, 4), takesAll(t, 6)
	switch {
	case t.Netns != "":
		r.Add(at(key), "tunnel %s (line %d) has a network namespace of its own, where nothing else has a default route: leave default_route out, and give the tunnel routes = [\"0.0.0.0/0\"]", problem.Quote(t.Name), t.Source.Header.Line)
	case !g.IPv4 && !g.IPv6 && t.Hub:
		r.Add(at(key), "no peer of tunnel %s (line %d) takes everything: give one allowed = [\"0.0.0.0/0\"], and the tunnel an IPv4 address, or \"::/0\" and an IPv6 address", problem.Quote(t.Name), t.Source.Header.Line)
	case !g.IPv4 && !g.IPv6:
		r.Add(at(key), "tunnel %s (line %d) has no address from which anything could be sent into it: give it one by address", problem.Quote(t.Name), t.Source.Header.Line)
	default:
		return true
	}
	return false
}

// takesAll reports whether a tunnel can carry all traffic of an IP version: it needs a
// source address, which automatic tunnels may learn, and a hub needs a peer for that
// traffic.
func takesAll(t *config.Tunnel, v int) bool {
	ours := func(p netip.Prefix) bool { return value.Version(p.Addr()) == v }
	addressed := slices.ContainsFunc(t.Address, ours) || t.Mode.Automatic
	reached := !t.Hub || slices.ContainsFunc(t.Peers, func(p config.Peer) bool {
		return slices.ContainsFunc(p.Allowed, func(p netip.Prefix) bool { return ours(p) && p.Bits() == 0 })
	})
	return t.Mode.Carries(v) && addressed && reached
}

// checkBypass reports prefixes of a version that does not use the default route anyway.
func (g *gatewayDraft) checkBypass(r *problem.Report) {
	for i, p := range g.Bypass {
		if v := value.Version(p.Addr()); v == 4 && !g.IPv4 || v == 6 && !g.IPv6 {
			r.Add(g.bypassAt[i], "bypass has %v, but tunnel %s is not the default route of IPv%d: leave it out, or give the tunnel an IPv%d address", p, problem.Quote(g.DefaultRoute), v, v)
		}
	}
}

// shown returns names of tunnels, not more than an error message should have.
func shown(tunnels []config.Tunnel) []string {
	const most = 10
	var names []string
	for _, t := range tunnels[:min(len(tunnels), most)] {
		names = append(names, problem.Quote(t.Name))
	}
	if more := len(tunnels) - most; more > 0 {
		names = append(names, fmt.Sprintf("one of %d others", more))
	}
	return names
}
