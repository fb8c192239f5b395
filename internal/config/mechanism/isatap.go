package mechanism

import (
	"sixfour/encap/resolve"
	"sixfour/internal/config/problem"
)

// isatap holds the keys of mode isatap.
type isatap struct{ resolve.ISATAP }

func (m *isatap) finish(r *problem.Report, t *Tunnel) resolve.Mechanism {
	switch {
	case m.Router:
		if at, given := t.Values["routers"]; given {
			r.Add(at, "routers contradicts router = true: leave one of them out")
		}
		t.need(r, "prefix", `the IPv6 prefixes that the router advertises, such as "2001:db8::/64"`)
		for _, p := range m.Prefixes {
			if p.Bits() != 64 {
				r.Add(t.Values["prefix"], "prefix has %v: hosts make addresses from prefixes of 64 bits only (RFC 4862 section 5.5.3): write %v/64", p, p.Addr())
			}
		}
	case !t.State.Bad["router"]:
		if at, given := t.Values["prefix"]; given {
			r.Add(at, "prefix is what a router advertises: leave it out, or set router to true")
		}
		if len(t.Address) == 0 { // with an address of its own, a host reaches the other nodes on the link
			t.need(r, "routers", `the addresses or DNS names of the routers, such as ["isatap.example.com"], or set router to true`)
		}
	}
	return m.ISATAP
}
