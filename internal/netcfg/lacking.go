package netcfg

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lacking is what the kernel has refused of an interface's Settings.
type lacking struct {
	addresses, routes []netip.Prefix
	err               error // about the first of them
}

// Lacks is why the interface does not have all of its addresses and routes; nil: it has
// them.
func (l *Link) Lacks() error {
	if l.lacks == nil {
		return nil
	}
	return l.lacks.err
}

// Complete tries once more to give the interface the addresses and routes that it
// lacks, and returns Lacks. What it has already is not touched.
func (l *Link) Complete() error {
	if l.lacks == nil {
		return nil
	}
	l.completeAddresses()
	return l.completeRoutes()
}

// TakeSome gives the interface those of these addresses and routes that it lacks, as
// far as the kernel takes them, and returns Lacks. What it had before and is not among
// these is for Leave to take away.
func (l *Link) TakeSome(addresses, routes []netip.Prefix) error {
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
	// With its last address of a family the kernel took all routes away.
	if _, err := l.restoreRoutes(); err != nil {
		l.lacks.err = err
		return err
	}
	return l.completeRoutes()
}

// present are the Settings without what the interface lacks.
func (l *Link) present() Settings {
	s := l.set
	if l.lacks != nil {
		s.Addresses, _ = split(s.Addresses, l.lacks.addresses)
		s.Routes, _ = split(s.Routes, l.lacks.routes)
	}
	return s
}

// completeAddresses adds the addresses that are lacking. Its error is that of lacks.
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

// completeRoutes adds the routes that are lacking, many at once. One that is there
// already is another interface's, and an error.
func (l *Link) completeRoutes() error {
	routes := l.lacks.routes
	refused := make([]error, len(routes))
	l.conn.exchange(len(routes), func(b *builder, i int) {
		b.newRoute(l.route(routes[i]), unix.NLM_F_CREATE|unix.NLM_F_EXCL)
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

// Taken is about the first route of the Settings that another interface has now: a route
// that is replaced is taken from the interface that had it, and while this one is down
// anybody may add it. Of many routes only the first ones are looked at.
func (l *Link) Taken() error {
	return l.taken(l.present().Routes, func(index int) bool { return index != l.index })
}

// taken is about the first of some routes that leads through one of certain interfaces. A
// longer prefix, or a rule, may hide that.
func (l *Link) taken(routes []netip.Prefix, others func(index int) bool) (first error) {
	routes = routes[:min(len(routes), manyRoutes)]
	through := make([]int, len(routes))
	l.conn.exchange(len(routes), func(b *builder, i int) {
		b.getRoute(Query{Remote: middle(routes[i])}, 0, true)
	}, func(i int, message []byte, err error) {
		// Routes with another metric may stand beside ours.
		f, metric := parseRoute(message, err), uint32(0)
		if routes[i].Addr().Is6() {
			metric = defaultMetric6
		}
		if f.err == nil && f.kind == unix.RTN_UNICAST && f.bits == routes[i].Bits() && message[4] == unix.RT_TABLE_MAIN && f.metric == metric {
			through[i] = f.index
		}
	})
	for i, index := range through {
		if index != 0 && others(index) {
			return explainRoute(l.set.Name, routes[i], unix.EEXIST)
		}
	}
	return nil
}

// defaultMetric6 is that of an IPv6 route that is added without a metric
// (linux/ipv6_route.h: IP6_RT_PRIO_USER).
const defaultMetric6 = 1024

// middle is an address in a prefix that is probably no host's or broadcast address.
func middle(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	if p.Bits() < 8*len(b) {
		b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
		b[len(b)-1] |= 1
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// CheckRoutes reports which of the routes of a new interface another one has that is
// none of ours: what a daemon that runs has put there is no hindrance.
func CheckRoutes(namespace, name string, routes []netip.Prefix) error {
	return In(namespace, func() error {
		c, err := dial()
		if err != nil {
			return err
		}
		defer c.close()
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
