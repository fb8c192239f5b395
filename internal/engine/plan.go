package engine

import (
	"net/netip"
)

// route and place are a destination, and in which namespace its route is.
type route = netip.Prefix

type place struct {
	namespace string
	route     route
}
