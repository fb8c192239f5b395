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

// missing holds the addresses and routes of an interface's Settings that the kernel has
// refused.
type missing struct {
	addresses, routes []netip.Prefix
	err               error // the error for the first of them
}

// Missing returns why the interface does not have all of its addresses and routes, or nil
// if it has them all.
func (l *Link) Missing() error {
	if l.missing == nil {
		return nil
	}
	return l.missing.err
}

// AddMissing tries again to add the missing addresses and routes to the interface, and
// returns Missing. It does not change those that the interface has.
func (l *Link) AddMissing() error {
	if l.missing == nil {
		return nil
	}
	l.addMissingAddresses()
	return l.addMissingRoutes()
}

// AddPossible adds those of these addresses and routes that the interface does not have,
// as far as the kernel accepts them, and returns Missing. RemoveOthers removes those that
// the interface had before and that are not among these.
func (l *Link) AddPossible(addresses, routes []netip.Prefix) error {
	l.reclaim(addresses, routes)
	before := l.present()
	l.set.Addresses, l.set.Routes = addresses, routes
	l.missing = new(missing)
	l.missing.addresses, _ = partition(addresses, before.Addresses)
	l.missing.routes, _ = partition(routes, before.Routes)
	if err := l.setLinkLocal(); err != nil {
		l.missing.err = err
		return err
	}
	l.addMissingAddresses()
	// With the last address of a family, the kernel removed all routes.
	if _, err := l.restoreRoutes(); err != nil {
		l.missing.err = err
		return err
	}
	return l.addMissingRoutes()
}

// present returns the Settings without the missing addresses and routes.
func (l *Link) present() Settings {
	s := l.set
	if l.missing != nil {
		s.Addresses, _ = partition(s.Addresses, l.missing.addresses)
		s.Routes, _ = partition(s.Routes, l.missing.routes)
	}
	return s
}

// addMissingAddresses adds the missing addresses. It stores an error in l.missing.
func (l *Link) addMissingAddresses() {
	var refused []netip.Prefix
	l.missing.err = nil
	for _, p := range l.missing.addresses {
		if err := l.addAddress(p); err != nil {
			if refused = append(refused, p); l.missing.err == nil {
				l.missing.err = err
			}
		}
	}
	l.missing.addresses = refused
}

// addMissingRoutes adds the missing routes, many at once. It is an error if one exists
// already, because it then belongs to another interface.
func (l *Link) addMissingRoutes() error {
	routes := l.missing.routes
	refused := make([]error, len(routes))
	l.conn.Exchange(len(routes), func(b *rtnl.Builder, i int) {
		newRoute(b, l.route(routes[i]), unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	}, func(i int, _ []byte, err error) { refused[i] = err })
	l.missing.routes = nil
	for i, err := range refused {
		if err == nil {
			continue
		}
		if l.missing.routes = append(l.missing.routes, routes[i]); l.missing.err == nil {
			l.missing.err = explainRoute(l.set.Name, routes[i], err)
		}
	}
	err := l.missing.err
	if err == nil {
		l.missing = nil
	}
	return err
}

// RouteConflict returns an error for the first route of the Settings that another
// interface has now. A route that is replaced is removed from the interface that had it,
// and while an interface is down any process may add its routes elsewhere. If there are
// many routes, RouteConflict checks only the first ones.
func (l *Link) RouteConflict() error {
	return l.conflict(l.present().Routes, func(index int) bool { return index != l.index })
}

// conflict returns an error for the first of some routes that leads through an interface
// for which others returns true. It does not find routes that a longer prefix or a
// routing rule hides.
func (l *Link) conflict(routes []netip.Prefix, others func(index int) bool) (first error) {
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
		return l.conflict(routes, func(index int) bool {
			link, err := h.LinkByIndex(index)
			return err == nil && !strings.HasPrefix(link.Attrs().Alias, alias)
		})
	})
}
