package config

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"sixfour/encap"
)

// checkNesting reports tunnels whose outer packets go through other tunnels of
// the file, and so on, in a circle, or too deep. It sees the routes of the file
// only: others, which may lead elsewhere, the daemon looks at when it runs.
// Tunnels with a mark are left to the rules that use it.
func checkNesting(r *report, all []*draft) {
	var behind bart.Table[*draft] // who has the longest prefix around an address
	for _, d := range all {
		if d.Netns != "" || d.state.bad["netns"] {
			continue // its routes do not concern outer packets
		}
		for _, prefixes := range [][]netip.Prefix{d.Address, d.Routes} {
			for _, p := range prefixes {
				behind.Insert(p.Masked(), d)
			}
		}
	}
	through := func(d *draft) *draft {
		if !d.Remote.Addr.IsValid() || d.FwMark != 0 || d.state.bad["fwmark"] {
			return nil
		}
		next, _ := behind.Lookup(d.Remote.Addr)
		return next
	}
	for _, d := range all {
		depth := len(d.Mode.Layers)
		for next := through(d); next != nil && next != d; next = through(next) {
			// A circle that d only leads into ends here, too.
			if depth += max(1, len(next.Mode.Layers)); depth > encap.MaxDepth { // none if the mode is wrong
				r.add(d.values["remote"], "remote %v is reached through tunnel %s (line %d), and packets would be encapsulated more than %d times, or in a circle: "+
					"give it another remote, or route that elsewhere", d.Remote.Addr, quote(through(d).Name), through(d).header.line, encap.MaxDepth)
				break
			}
			if through(next) == d {
				r.add(d.values["remote"], "remote %v is reached through tunnel %s (line %d), whose own packets come back into this one: "+
					"give one of them another remote, or route that elsewhere", d.Remote.Addr, quote(next.Name), next.header.line)
				break
			}
		}
	}
}
