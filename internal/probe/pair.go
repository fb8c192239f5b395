package probe

import "net/netip"

// Pair is two inner addresses that the two ends of a path may have.
type Pair struct {
	Local, Remote netip.Addr
	Near          bool // the two are in one subnet: no router is between them
}
