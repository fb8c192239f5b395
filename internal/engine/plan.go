package engine

import (
	"net/netip"
)

// route is the destination of a route.
type route = netip.Prefix

// place is a route in a network namespace.
type place struct {
	namespace string
	route     route
}
