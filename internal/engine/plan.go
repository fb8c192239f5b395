package engine

import (
	"net/netip"
)

// route is the destination of a route.
type route = netip.Prefix

type place struct {
	namespace string
	route     route
}
