package keys

import "sixfour/encap"

// Modes returns the names of the modes for which holds returns true.
func Modes(holds func(encap.Mode) bool) []string {
	var names []string
	for _, m := range encap.Modes {
		if holds(m) {
			names = append(names, m.Name)
		}
	}
	return names
}

// AnyMode returns true.
func AnyMode(encap.Mode) bool { return true }
