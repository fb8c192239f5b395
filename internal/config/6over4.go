package config

import "sixfour/encap/resolve"

// sixOverFour is the keys of mode 6over4.
type sixOverFour struct{ sixOverFourType }

func readScope(r *report, e entry, m *sixOverFour) {
	if n, _, ok := numberOf(r, e, 1, 255); ok {
		m.Scope = byte(n)
	}
}

func (m *sixOverFour) finish(*report, *draft) resolve.Mechanism { return m.sixOverFourType }
