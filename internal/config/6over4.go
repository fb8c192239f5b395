package config

import "sixfour/encap/resolve"

// readScope reads the second byte of the IPv4 groups (RFC 2529 section 6).
func readScope(r *report, e entry, m *resolve.SixOverFour) {
	if n, _, ok := numberOf(r, e, 1, 255); ok {
		m.Scope = byte(n)
	}
}
