package config

import "sixfour/encap/resolve"

// readScope reads the second byte of the IPv4 groups (RFC 2529 section 6) in the
// organisation-local scope (RFC 2365 section 6.2).
func readScope(r *report, e entry, m *resolve.SixOverFour) {
	if n, _, ok := numberOf(r, e, 192, 195); ok {
		m.Scope = byte(n)
	}
}
