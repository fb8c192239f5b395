package host

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// layer is one layer of a tunnel: a link, and the mode that it has here.
type layer struct {
	mode string
	link *Link
}

// tunnel is a [[tunnel]] of the result.
type tunnel struct {
	link   *Link
	layers []layer // innermost first
	keys   settings
	path   settings
}

// Prefixes with a meaning.
var (
	prefix6to4   = netip.MustParsePrefix("2002::/16")
	prefixCompat = netip.MustParsePrefix("::/96")
	default4     = netip.MustParsePrefix("0.0.0.0/0")
	default6     = netip.MustParsePrefix("::/0")
)

// unsupported are kinds of links that become no tunnel, with the reason.
var unsupported = map[string]string{
	"gretap":    "it carries Ethernet frames, and sixfour carries IP packets only",
	"ip6gretap": "it carries Ethernet frames, and sixfour carries IP packets only",
	"erspan":    "it carries Ethernet frames, and sixfour carries IP packets only",
	"ip6erspan": "it carries Ethernet frames, and sixfour carries IP packets only",
	"vxlan":     "it carries Ethernet frames, and sixfour carries IP packets only",
	"geneve":    "it carries Ethernet frames, and sixfour carries IP packets only",
	"vti":       "it is a tunnel of IPsec: keep it, and send a tunnel of sixfour through it if you need one (docs/over-ipsec.md)",
	"vti6":      "it is a tunnel of IPsec: keep it, and send a tunnel of sixfour through it if you need one (docs/over-ipsec.md)",
	"xfrm":      "it is a tunnel of IPsec: keep it, and send a tunnel of sixfour through it if you need one (docs/over-ipsec.md)",
	"wireguard": "keep it as it is, or see docs/encap/wireguard.md for WireGuard as the encapsulation of a tunnel",
}

// modeOf returns the mode for a link; "": none, and the reason is recorded.
func (h *Host) modeOf(l *Link) string {
	if why, ok := unsupported[l.Kind]; ok {
		h.about(l, l.Kind+": "+why)
		return ""
	}
	needsRemote := func(mode string) string {
		if l.remote == "" {
			h.about(l, "it has no remote address: make it a hub with a [[tunnel.peer]] for each of the other ends (docs/modes/hub.md)")
			return ""
		}
		return mode
	}
	switch l.Kind {
	case "tic", "tsp", "teredo", "map_e":
		return l.Kind
	case "sit":
		return h.modeOfSIT(l, needsRemote)
	case "ipip":
		switch l.mode {
		case "", "ipip", "ip4ip4", "ipv4/ipv4":
			return needsRemote("4in4")
		}
		h.about(l, "its mode is "+quote(l.mode)+", for which there is no mode here")
		return ""
	case "ip6tnl":
		return needsRemote(h.modeOfIP6Tunnel(l))
	case "gre":
		return needsRemote("gre")
	case "ip6gre":
		return needsRemote("gre6")
	}
	h.about(l, "there is no mode for tunnels of the kind "+quote(l.Kind))
	return ""
}

func (h *Host) modeOfSIT(l *Link, needsRemote func(string) string) string {
	has := func(in netip.Prefix) bool {
		return slices.ContainsFunc(l.address, func(p netip.Prefix) bool { return in.Contains(p.Addr()) }) ||
			slices.ContainsFunc(l.routes, func(r route) bool { return r.prefix == in })
	}
	switch {
	case l.mode == "isatap":
		return "isatap"
	case l.mode == "ipip" || l.mode == "ip4ip4":
		return needsRemote("4in4")
	case l.mode == "any" && l.carries(4) && !l.carries(6):
		return needsRemote("4in4")
	case l.remote != "":
		if l.carries(4) {
			h.about(l, "it has IPv4 addresses or routes, too, which this mode does not carry: use gre at both ends for both IP versions")
		}
		return "6in4"
	case l.sixrd.prefix.IsValid():
		return "6rd"
	case has(prefix6to4):
		return "6to4"
	case has(prefixCompat):
		return "v4compat"
	case l.Name == "sit0":
		h.about(l, "it is the kernel's own interface, with which the module begins: it is not needed")
		return ""
	}
	return needsRemote("")
}

func (h *Host) modeOfIP6Tunnel(l *Link) string {
	switch l.mode {
	case "ipip6", "ip4ip6", "ipv4/ipv6":
		return "4in6"
	case "ip6ip6", "ipv6/ipv6":
		return "6in6"
	}
	switch {
	case l.carries(4) && l.carries(6):
		h.about(l, "it carries both IP versions, and this mode carries IPv4 only: use gre6 at both ends for both")
		return "4in6"
	case l.carries(4):
		return "4in6"
	}
	return "6in6"
}

// carries reports whether a link has addresses or routes of an IP version.
func (l *Link) carries(version int) bool {
	is := func(p netip.Prefix) bool { return p.Addr().Is4() == (version == 4) }
	return slices.ContainsFunc(l.address, is) || slices.ContainsFunc(l.routes, func(r route) bool { return is(r.prefix) })
}

// carried returns the IP versions that a mode carries.
func carried(mode string) (four, six bool) {
	switch mode {
	case "4in4", "4in6":
		return true, false
	case "gre", "gre6", "4in6in4":
		return true, true
	}
	return false, true
}

// over6 reports whether the delivery header of a mode is IPv6.
func over6(mode string) bool { return mode == "4in6" || mode == "6in6" || mode == "gre6" }

// automatic reports whether a mode finds outer addresses itself.
func automatic(mode string) bool {
	return slices.Contains([]string{"6to4", "6rd", "isatap", "v4compat"}, mode)
}

// tunnels makes tunnels from links. Links that are sent through other links become one
// tunnel with several layers.
func (h *Host) tunnels() (all []tunnel) {
	h.assignRoutes()
	made := map[string]tunnel{}
	under := map[string]bool{} // carries another one
	for _, l := range h.order {
		mode := h.modeOf(l)
		if mode == "" {
			continue
		}
		made[l.Name] = tunnel{link: l, layers: []layer{{mode, l}}}
	}
	var build func(l *Link, depth int) tunnel
	build = func(l *Link, depth int) tunnel {
		t := made[l.Name]
		lower := h.carrier(l, func(name string) bool { _, ok := made[name]; return ok })
		if lower == nil || depth > 8 {
			return t
		}
		under[lower.Name] = true
		below := build(lower, depth+1)
		t.layers = append(slices.Clone(t.layers), below.layers...)
		return t
	}
	for _, l := range h.order {
		if _, ok := made[l.Name]; ok {
			all = append(all, build(l, 0))
		}
	}
	all = slices.DeleteFunc(all, func(t tunnel) bool { return under[t.link.Name] })
	for i := range all {
		h.finish(&all[i])
	}
	return all
}

// carrier returns the link whose subnet has the remote address of another one.
func (h *Host) carrier(l *Link, ok func(name string) bool) *Link {
	remote, err := netip.ParseAddr(l.remote)
	if err != nil {
		return nil
	}
	for _, lower := range h.order {
		if lower == l || !ok(lower.Name) {
			continue
		}
		has := slices.ContainsFunc(lower.address, func(p netip.Prefix) bool { return p.Contains(remote) && !p.IsSingleIP() }) ||
			slices.ContainsFunc(lower.routes, func(r route) bool { return r.prefix.Contains(remote) && r.prefix.IsSingleIP() }) ||
			slices.ContainsFunc(lower.address, func(p netip.Prefix) bool { return p.Addr().String() == l.Local })
		if has {
			return lower
		}
	}
	return nil
}

// assignRoutes gives routes whose next hop is inside a tunnel to that tunnel.
func (h *Host) assignRoutes() {
	for _, r := range h.routes {
		i := slices.IndexFunc(h.order, func(l *Link) bool {
			return slices.ContainsFunc(l.address, func(p netip.Prefix) bool { return r.via.IsValid() && p.Contains(r.via) }) ||
				slices.ContainsFunc(l.routes, func(to route) bool { return r.via.IsValid() && to.prefix == netip.PrefixFrom(r.via, r.via.BitLen()) })
		})
		if i < 0 {
			h.skipRoute(r, reasonOtherRoute)
			continue
		}
		h.order[i].routes = append(h.order[i].routes, r)
	}
}

const reasonOtherRoute = "it is not a route of a tunnel: the host keeps it"

// finish sets the keys of a tunnel that depend on its mode.
func (h *Host) finish(t *tunnel) {
	l := t.link
	outer := t.layers[len(t.layers)-1]
	t.setAddresses(h)
	switch outer.mode {
	case "6to4":
		t.keys.set("relay", quote(cmp.Or(h.relay(l), "none")))
	case "6rd":
		t.keys.set("prefix", quote(l.sixrd.prefix.String()))
		if l.sixrd.common.IsValid() && l.sixrd.common.Bits() > 0 {
			t.keys.set("mask_len", fmt.Sprint(l.sixrd.common.Bits()))
		}
		if relay := h.relay(l); relay != "" {
			t.keys.set("border_relay", "["+quote(relay)+"]")
		} else {
			t.keys.set("role", `"br"`)
		}
	case "isatap":
		t.finishISATAP(h)
	}
	t.setRoutes(h)
	for _, s := range l.keys {
		t.keys.set(s.key, s.value)
	}
	t.setOptions(h)
}

// relay returns the IPv4 address of the relay: that of the next hop, as in ::192.0.2.1.
func (h *Host) relay(l *Link) string {
	if l.sixrd.relay != "" {
		return l.sixrd.relay
	}
	for _, r := range l.routes {
		if r.via.IsValid() && prefixCompat.Contains(r.via) {
			b := r.via.As16()
			return netip.AddrFrom4([4]byte(b[12:])).String()
		}
		if r.via.IsValid() && prefix6to4.Contains(r.via) {
			b := r.via.As16()
			return netip.AddrFrom4([4]byte(b[2:6])).String()
		}
	}
	return ""
}

func (t *tunnel) finishISATAP(h *Host) {
	l := t.link
	if len(l.routers) > 0 {
		t.keys.set("routers", list(l.routers, func(s string) string { return s }))
		if len(l.address)+len(l.routes) > 0 {
			h.about(l, "addresses and routes: a host learns them from its router")
			l.address, l.routes = nil, nil
		}
		return
	}
	t.keys.set("router", "true")
	var prefixes []netip.Prefix
	for _, p := range l.address {
		if p.Bits() == 64 {
			prefixes = append(prefixes, p.Masked())
		}
	}
	t.keys.set("prefix", list(prefixes, netip.Prefix.String))
}
