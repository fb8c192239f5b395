package iface

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/netns"
	"sixfour/internal/rtnl"
)

// lacking holds the addresses and routes of an interface's Settings that the kernel has
// refused.
type lacking struct {
	addresses, routes []netip.Prefix
	err               error // the error for the first of them
}

// Lacks returns why the interface does not have all of its addresses and routes, or nil
// if it has them all.
func (l *Link) Lacks() error {
	if l.lacks == nil {
		return nil
	}
	return l.lacks.err
}

// Complete tries again to add the missing addresses and routes to the interface, and
// returns Lacks. It does not change those that the interface has.
func (l *Link) Complete() error {
	if l.lacks == nil {
		return nil
	}
	l.completeAddresses()
	return l.completeRoutes()
}

// TakeSome adds those of these addresses and routes that the interface does not have, as
// far as the kernel accepts them, and returns Lacks. Leave removes those that the
// interface had before and that are not among these.
func (l *Link) TakeSome(addresses, routes []netip.Prefix) error {
	l.reclaim(addresses, routes)
	before := l.present()
	l.set.Addresses, l.set.Routes = addresses, routes
	l.lacks = new(lacking)
	l.lacks.addresses, _ = split(addresses, before.Addresses)
	l.lacks.routes, _ = split(routes, before.Routes)
	if err := l.setLinkLocal(); err != nil {
		l.lacks.err = err
		return err
	}
	l.completeAddresses()
	// With the last address of a family, the kernel removed all routes.
	if _, err := l.restoreRoutes(); err != nil {
		l.lacks.err = err
		return err
	}
	return l.completeRoutes()
}

// present returns the Settings without the missing addresses and routes.
func (l *Link) present() Settings {
	s := l.set
	if l.lacks != nil {
		s.Addresses, _ = split(s.Addresses, l.lacks.addresses)
		s.Routes, _ = split(s.Routes, l.lacks.routes)
	}
	return s
}

// completeAddresses adds the missing addresses. It stores an error in l.lacks.
func (l *Link) completeAddresses() {
	var refused []netip.Prefix
	l.lacks.err = nil
	for _, p := range l.lacks.addresses {
		if err := l.addAddress(p); err != nil {
			if refused = append(refused, p); l.lacks.err == nil {
				l.lacks.err = err
			}
		}
	}
	l.lacks.addresses = refused
}

// completeRoutes adds the missing routes, many at once. It is an error if one exists
// already, because it then belongs to another interface.
func (l *Link) completeRoutes() error {
	routes := l.lacks.routes
	refused := make([]error, len(routes))
	l.conn.Exchange(len(routes), func(b *rtnl.Builder, i int) {
		newRoute(b, l.route(routes[i]), unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	}, func(i int, _ []byte, err error) { refused[i] = err })
	l.lacks.routes = nil
	for i, err := range refused {
		if err == nil {
			continue
		}
		if l.lacks.routes = append(l.lacks.routes, routes[i]); l.lacks.err == nil {
			l.lacks.err = explainRoute(l.set.Name, routes[i], err)
		}
	}
	err := l.lacks.err
	if err == nil {
		l.lacks = nil
	}
	return err
}

// Taken returns an error for the first route of the Settings that another interface has
// now. A route that is replaced is removed from the interface that had it, and while an
// interface is down any process may add its routes elsewhere. If there are many routes,
// Taken checks only the first ones.
func (l *Link) Taken() error {
	return l.taken(l.present().Routes, func(index int) bool { return index != l.index })
}

// taken returns an error for the first of some routes that leads through an interface
// for which others returns true. It does not find routes that a longer prefix or a
// routing rule hides.
func (l *Link) taken(routes []netip.Prefix, others func(index int) bool) (first error) {
	routes = routes[:min(len(routes), manyRoutes)]
	through := make([]int, len(routes))
	l.conn.Exchange(len(routes), func(b *rtnl.Builder, i int) {
		b.GetRoute(rtnl.RouteRequest{Remote: middle(routes[i]), Table: true})
	}, func(i int, message []byte, err error) {
		// Routes with another metric may exist beside ours.
		f, metric := rtnl.ParseRoute(message, err), uint32(0)
		if routes[i].Addr().Is6() {
			metric = defaultMetric6
		}
		if f.Err == nil && f.Kind == unix.RTN_UNICAST && f.Bits == routes[i].Bits() && f.Table == unix.RT_TABLE_MAIN && f.Metric == metric {
			through[i] = f.Index
		}
	})
	for i, index := range through {
		if index != 0 && others(index) {
			return explainRoute(l.set.Name, routes[i], unix.EEXIST)
		}
	}
	return nil
}

// defaultMetric6 is the metric of an IPv6 route that is added without one
// (linux/ipv6_route.h: IP6_RT_PRIO_USER).
const defaultMetric6 = 1024

// middle returns an address in a prefix that is unlikely to be a host's or a broadcast
// address.
func middle(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	if p.Bits() < 8*len(b) {
		b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
		b[len(b)-1] |= 1
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// CheckRoutes returns an error if another interface, which is not one of ours, has one
// of the routes of a new interface. Routes of a running daemon are not an error.
func CheckRoutes(namespace, name string, routes []netip.Prefix) error {
	return netns.In(namespace, func() error {
		c, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer h.Close()
		l := &Link{set: Settings{Name: name}, conn: c}
		return l.taken(routes, func(index int) bool {
			link, err := h.LinkByIndex(index)
			return err == nil && !strings.HasPrefix(link.Attrs().Alias, alias)
		})
	})
}
