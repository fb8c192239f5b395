package text

import "net/netip"

// Outer returns an outer address as users see it. The port is 0 where packets have none, as
// those of protocol 41, and is left out then.
func Outer(at netip.AddrPort) string {
	if at.Port() == 0 {
		return at.Addr().String()
	}
	return at.String()
}
