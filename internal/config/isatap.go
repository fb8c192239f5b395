package config

import "sixfour/encap/resolve"

// isatap holds the keys of mode isatap.
type isatap struct{ resolve.ISATAP }

func (m *isatap) finish(r *report, d *draft) resolve.Mechanism {
	switch {
	case m.Router:
		if at, given := d.values["routers"]; given {
			r.add(at, "routers contradicts router = true: leave one of them out")
		}
		d.need(r, "prefix", `the IPv6 prefixes that the router advertises, such as "2001:db8::/64"`)
		for _, p := range m.Prefixes {
			if p.Bits() != 64 {
				r.add(d.values["prefix"], "prefix has %v: hosts make addresses from prefixes of 64 bits only (RFC 4862 section 5.5.3): write %v/64", p, p.Addr())
			}
		}
	case !d.state.bad["router"]:
		if at, given := d.values["prefix"]; given {
			r.add(at, "prefix is what a router advertises: leave it out, or set router to true")
		}
		if len(d.Address) == 0 { // with an address of its own, a host reaches the other nodes on the link
			d.need(r, "routers", `the addresses or DNS names of the routers, such as ["isatap.example.com"], or set router to true`)
		}
	}
	return m.ISATAP
}
