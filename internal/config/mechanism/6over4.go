package mechanism

import (
	"sixfour/encap/resolve"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// readScope reads the second byte of the IPv4 groups (RFC 2529 section 6) in the
// organisation-local scope (RFC 2365 section 6.2).
func readScope(r *problem.Report, e tree.Entry, m *resolve.SixOverFour) {
	if n, _, ok := value.Number(r, e, 192, 195); ok {
		m.Scope = byte(n)
	}
}
