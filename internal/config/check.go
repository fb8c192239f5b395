package config

import (
	"fmt"
	"net/netip"
	"strings"

	"sixfour/encap"
)

// checkMissing reports the keys that the tunnel needs and does not have.
func (d *draft) checkMissing(r *report) {
	needs := []struct{ name, set string }{
		{"name", "the interface's name"},
		{"mode", list(quoteAll(modeNames(anyMode)))},
		{"local", "this end's outer address, or to \"auto\" for the one that the kernel's routing would choose"},
		{"remote", "the other end's outer address or its DNS name"},
	}
	if d.Mode.Needs6() {
		needs = append(needs, []struct{ name, set string }{
			{"local6", fmt.Sprintf("this end's address in the IPv6 layer that mode %q has", d.Mode.Name)},
			{"remote6", fmt.Sprintf("the other end's address in the IPv6 layer that mode %q has", d.Mode.Name)},
		}...)
	}
	for _, n := range needs {
		if !d.state.set[n.name] {
			r.add(d.header, "%s is missing: set it to %s", n.name, n.set)
		}
	}
}

// checkEnds reports a tunnel to itself.
func (d *draft) checkEnds(r *report) {
	if d.Local.IsValid() && d.Local == d.Remote.Addr {
		r.add(d.values["remote"], "remote is the same as local: it must be the other end's outer address")
	}
	if d.Local6.IsValid() && d.Local6 == d.Remote6 {
		r.add(d.values["remote6"], "remote6 is the same as local6: it must be the other end's address in the IPv6 layer")
	}
}

// checkLoop reports routes that would take the outer packets into the tunnel
// again. In a namespace of its own the interface's routes do not concern them,
// and by a mark a rule can keep them away from these routes.
func (d *draft) checkLoop(r *report) {
	if d.Netns != "" || d.FwMark != 0 || d.state.bad["netns"] || d.state.bad["fwmark"] {
		return
	}
	const wayOut = "choose a prefix without it, set netns to move the interface into a namespace of its own, " +
		"or set fwmark and add a rule that routes marked packets elsewhere"
	loop := func(key string, prefixes []netip.Prefix, at []pos) {
		for i, p := range prefixes {
			if p.Contains(d.Remote.Addr) {
				r.add(at[i], "%s has %v, which holds remote %v, so that outer packets would go into the tunnel again: %s",
					key, p, d.Remote.Addr, wayOut)
			}
		}
	}
	loop("address", d.Address, d.addressAt)
	loop("routes", d.Routes, d.routesAt)
}

// neighbours are the tunnels of a file that were read so far.
type neighbours struct {
	names map[string]int // the line of the tunnel that has it
	ends  map[ends]int   // the line of the tunnel that has them
}

// ends are what tells the outer packets of one tunnel from those of another.
type ends struct {
	outermost encap.Kind
	local     netip.Addr
	remote    Host
}

// check reports what two tunnels cannot both have.
func (n *neighbours) check(r *report, d *draft) {
	if n.names == nil {
		n.names, n.ends = map[string]int{}, map[ends]int{}
	}
	if d.state.good("name") {
		if line, taken := n.names[d.Name]; taken {
			r.add(d.values["name"], "name is %s, which the tunnel of line %d has: give each tunnel its own", quote(d.Name), line)
		} else {
			n.names[d.Name] = d.header.line
		}
	}
	if d.state.good("mode", "local", "remote") {
		e := ends{d.Mode.Layers[len(d.Mode.Layers)-1], d.Local, d.Remote}
		e.remote.Name = strings.ToLower(strings.TrimSuffix(e.remote.Name, "."))
		if line, taken := n.ends[e]; taken {
			r.add(d.values["remote"], "local and remote are those of the tunnel of line %d, so that nobody could tell their packets apart: give one of them another address", line)
		} else {
			n.ends[e] = d.header.line
		}
	}
}
