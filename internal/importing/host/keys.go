package host

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// setAddresses sets the outer addresses. An inner layer over another IP version than the
// outermost one has keys of the tunnel; others have tables in the stack.
func (t *tunnel) setAddresses(h *Host) {
	last := len(t.layers) - 1
	outer := t.layers[last]
	if last == 0 {
		t.keys.set("mode", quote(outer.mode))
	}
	local := outer.link.Local
	if local == "" && outer.mode == "6to4" {
		for _, p := range t.link.address {
			if b := p.Addr().As16(); prefix6to4.Contains(p.Addr()) {
				local = netip.AddrFrom4([4]byte(b[2:6])).String()
				break
			}
		}
	}
	if last == 0 && outer.mode == t.link.Kind && !over6(outer.mode) && outer.mode != "gre" {
		return // a session, whose keys are all set
	}
	ends := func(suffix string, l layer, local string) {
		t.keys.set("local"+suffix, quote(cmp.Or(local, "auto")))
		if !automatic(l.mode) {
			t.keys.set("remote"+suffix, quote(l.link.remote))
		}
	}
	switch {
	case last == 0:
		ends("", outer, local)
		t.keysOfGRE(outer)
		return
	case last == 1 && t.layers[0].mode == "4in6" && outer.mode == "6in4":
		t.keys.set("mode", `"4in6in4"`)
		ends("", outer, local)
		ends("6", t.layers[0], t.layers[0].link.Local)
		return
	}
	short := -1 // the layer whose addresses are local6 and remote6
	if !over6(outer.mode) {
		for i, l := range t.layers[:last] {
			if over6(l.mode) && short < 0 {
				short = i
			} else if over6(l.mode) {
				short = last // two of them: each has a table
			}
		}
	}
	var stack string
	for i, l := range t.layers {
		item := settings{{"mode", quote(l.mode)}}
		if i != last && i != short {
			item = append(item, setting{"local", quote(l.link.Local)}, setting{"remote", quote(l.link.remote)})
		}
		item = append(item, l.link.gre...)
		if i > 0 {
			stack += ", "
		}
		if len(item) == 1 {
			stack += item[0].value
			continue
		}
		stack += "{ "
		for j, s := range item {
			if j > 0 {
				stack += ", "
			}
			stack += s.key + " = " + s.value
		}
		stack += " }"
	}
	t.keys.set("stack", "["+stack+"]")
	ends("", outer, local)
	if short >= 0 && short < last {
		ends("6", t.layers[short], t.layers[short].link.Local)
	}
}

func (t *tunnel) keysOfGRE(l layer) {
	for _, s := range l.link.gre {
		t.keys.set(s.key, s.value)
	}
}

// carries returns the IP versions that a tunnel carries.
func (t *tunnel) carries() (four, six bool) {
	if t.keys.get("mode") == `"4in6in4"` {
		return true, true
	}
	return carried(t.layers[0].mode)
}

// setRoutes sets addresses and routes of the interface.
func (t *tunnel) setRoutes(h *Host) {
	l := t.link
	address := slices.Clone(l.address)
	if t.keys.get("mode") == `"4in6in4"` {
		address = append(address, t.layers[1].link.address...)
	}
	four, six := t.carries()
	fits := func(p netip.Prefix) bool { return p.Addr().Is4() && four || p.Addr().Is6() && six }
	var kept []netip.Prefix
	for _, p := range address {
		switch {
		case !fits(p):
			h.about(l, fmt.Sprintf("address %v: the mode does not carry this IP version", p))
		case p.Addr().IsLinkLocalUnicast() && p.Addr().Is6():
			h.about(l, fmt.Sprintf("address %v: the kernel makes a link-local address itself", p))
		case !slices.Contains(kept, p):
			kept = append(kept, p)
		}
	}
	if len(kept) > 0 {
		t.keys.set("address", list(kept, netip.Prefix.String))
	}
	var routes []netip.Prefix
	for _, r := range l.routes {
		switch p := r.prefix.Masked(); {
		case !fits(p):
			h.skipRoute(r, fmt.Sprintf("route %v: the mode does not carry this IP version", p))
		case p == prefix6to4 && t.layers[0].mode == "6to4" && slices.ContainsFunc(kept, func(a netip.Prefix) bool { return a.Masked() == p }):
			// the address has this route already
		case t.isDefault(p):
			h.setGateway(t, r)
		case !slices.Contains(routes, p):
			routes = append(routes, p)
		}
	}
	if len(routes) > 0 {
		t.keys.set("routes", list(routes, netip.Prefix.String))
	}
}

// isDefault reports whether a route is the default route of the IP version over which the
// outer packets travel: it must not lead them into the tunnel again.
func (t *tunnel) isDefault(p netip.Prefix) bool {
	if over6(t.layers[len(t.layers)-1].mode) {
		return p == default6
	}
	return p == default4
}

func (h *Host) setGateway(t *tunnel, r route) {
	switch {
	case h.gateway == "" || h.gateway == t.link.Name:
		h.gateway = t.link.Name
	default:
		h.skipRoute(r, "only one tunnel can have the default route of the host, and "+h.gateway+" has it")
	}
}

// setOptions sets the keys of the outer headers, with the names that they have for each IP
// version.
func (t *tunnel) setOptions(h *Host) {
	with6 := false
	for _, l := range t.layers {
		with6 = with6 || over6(l.mode)
		hops := l.link.header.get("hops")
		if hops == "" || hops == "64" {
			continue
		}
		if over6(l.mode) {
			t.keys.set("hop_limit", hops)
		} else {
			t.keys.set("ttl", hops)
		}
	}
	for _, s := range t.link.header {
		switch s.key {
		case "hops":
		case "dscp":
			if s.value != `"inherit"` {
				t.keys.set(s.key, s.value)
			}
		case "encap_limit", "flow_label":
			if with6 && s.value != `"none"` {
				t.keys.set(s.key, s.value)
			}
		default:
			t.keys.set(s.key, s.value)
		}
	}
	if last := t.layers[len(t.layers)-1].link; len(last.udp) > 0 {
		t.path = h.pathOf(t.layers[len(t.layers)-1].mode, last)
	}
	for i, l := range t.layers {
		if i < len(t.layers)-1 && len(l.link.udp) > 0 {
			h.about(l.link, "only the outermost layer can travel in UDP")
		}
		if i > 0 {
			t.lowerLayer(h, l.link)
		}
	}
}

// lowerLayer takes from a lower layer what a tunnel has only once.
func (t *tunnel) lowerLayer(h *Host, l *Link) {
	for _, s := range l.keys {
		switch s.key {
		case "fwmark", "pmtu":
			t.keys.set(s.key, s.value)
		default:
			h.about(l, fmt.Sprintf("%s = %s: as a layer of %s it has none of its own", s.key, s.value, t.link.Name))
		}
	}
	for _, r := range l.routes {
		h.skipRoute(r, "as a layer of "+t.link.Name+" the interface "+l.Name+" has no routes of its own")
	}
}

// pathOf returns the keys of a path in UDP.
func (h *Host) pathOf(mode string, l *Link) (path settings) {
	encap, port := strings.Trim(l.udp.get("encap"), `"`), l.udp.get("dport")
	preset := ""
	protocol := map[string]int{"4in4": 4, "4in6": 4, "gre": 47, "gre6": 47}[mode]
	if protocol == 0 {
		protocol = 41
	}
	switch {
	case encap == "gue":
		protocol, preset = 0, "6080"
	case encap == "fou" && protocol == 47 && port == "4754":
		encap, preset = "gre_udp", "4754"
	}
	path.set("encap", quote(encap))
	switch port {
	case "":
		h.about(l, "it has no destination port (encap-dport)")
	case preset:
	default:
		path.set("port", port)
	}
	local, flow := l.udp.get("sport"), false
	if local == "auto" || local == "0" || local == "" {
		local, flow = "", true
	}
	for _, p := range h.ports {
		if p.protocol == protocol && (local == "" || fmt.Sprint(p.port) == port) {
			local = fmt.Sprint(p.port)
		}
	}
	if local != "" && local != port {
		path.set("local_port", local)
	}
	if flow && encap != "gre_udp" {
		path.set("source_port", `"flow"`)
	} else if !flow && encap == "gre_udp" {
		path.set("source_port", `"local"`)
	}
	if l.udp.get("csum") == "false" {
		path.set("checksum", "false")
	}
	return path
}
