package iface

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"golang.org/x/sys/unix"

	"sixfour/internal/rtnl"
)

// restoreRoutes adds missing routes, and returns how many were missing. The kernel
// removes all of them together: if none of the first ones is missing, the others are not
// tried, because there may be a hundred thousand and the interface may change often. So
// if there are very many routes, the removal of a later one is not noticed.
func (l *Link) restoreRoutes() (missing int, err error) {
	exists := func(err error) bool { return errors.Is(err, fs.ErrExist) }
	routes := l.present().Routes
	first := min(len(routes), manyRoutes)
	there, err := l.tryRoutes(routes[:first], exists)
	if there == first {
		return 0, nil
	}
	more, rest := l.tryRoutes(routes[first:], exists)
	return len(routes) - there - more, cmp.Or(err, rest)
}

// restoreConnected adds the missing ones of the routes that the kernel adds with an
// interface's addresses, and returns how many were missing: flushing the interface's
// routes removes them too.
func (l *Link) restoreConnected(addresses []netip.Prefix) (missing int, first error) {
	var routes []linkRoute
	for _, p := range addresses {
		r := linkRoute{dst: p.Masked(), index: l.index, protocol: unix.RTPROT_KERNEL, program: l.programFor(p)}
		switch {
		case p.Addr().Is6():
			r.metric = connectedMetric6
		case p.IsSingleIP(): // the local table has it
			continue
		default:
			r.source = p.Addr()
		}
		routes = append(routes, r)
	}
	l.conn.Exchange(len(routes), func(b *rtnl.Builder, i int) {
		newRoute(b, routes[i], unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	}, func(i int, _ []byte, err error) {
		switch {
		case err == nil:
			missing++
		case !errors.Is(err, fs.ErrExist) && first == nil:
			first = explainRoute(l.set.Name, routes[i].dst, err)
		}
	})
	return missing, first
}

// connectedMetric6 is the kernel's metric for such routes (linux/ipv6_route.h:
// IP6_RT_PRIO_ADDRCONF).
const connectedMetric6 = 256

// manyRoutes is more than a file written by hand has.
const manyRoutes = 1024

// tryRoutes adds routes, and counts the errors that fine accepts.
func (l *Link) tryRoutes(routes []netip.Prefix, fine func(error) bool) (tolerated int, first error) {
	at := len(routes)
	l.conn.Exchange(len(routes), func(b *rtnl.Builder, i int) {
		newRoute(b, l.route(routes[i]), unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	}, func(i int, _ []byte, err error) {
		switch {
		case err == nil:
		case fine(err):
			tolerated++
		case i < at:
			at, first = i, explainRoute(l.set.Name, routes[i], err)
		}
	})
	return tolerated, first
}

func explainRoute(name string, p netip.Prefix, err error) error {
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("add route %v through %s: %w: another interface has that route: remove it (ip route del %v), or remove it from the configuration", p, name, err, p)
	}
	return fmt.Errorf("add route %v through %s: %w", p, name, err)
}

// route returns a route of the Settings.
func (l *Link) route(p netip.Prefix) linkRoute {
	return linkRoute{dst: p.Masked(), index: l.index, protocol: unix.RTPROT_BOOT, program: l.programFor(p)}
}

// linkRoute is a route through an interface, without a gateway.
type linkRoute struct {
	dst      netip.Prefix // masked
	index    int
	protocol uint8      // what added it: RTPROT_BOOT, RTPROT_RA…
	source   netip.Addr // preferred source; zero: none
	metric   uint32     // 0: the kernel's default
	mtu      int        // 0: the interface's
	program  int        // descriptor of its BPF program; 0: none
}

// newRoute adds a route to the main table.
func newRoute(b *rtnl.Builder, r linkRoute, flags uint16) {
	writeRoute(b, unix.RTM_NEWROUTE, flags, r)
	if r.mtu > 0 {
		b.Nested(unix.RTA_METRICS, unix.RTAX_MTU, uint32(r.mtu))
	}
	if r.program > 0 {
		writeProgram(b, r.program)
	}
}

// delRoute removes a route from the main table.
func delRoute(b *rtnl.Builder, r linkRoute) { writeRoute(b, unix.RTM_DELROUTE, 0, r) }

// writeRoute writes the part that newRoute and delRoute have in common
// (linux/rtnetlink.h: struct rtmsg).
func writeRoute(b *rtnl.Builder, kind, flags uint16, r linkRoute) {
	h := [unix.SizeofRtMsg]byte{rtnl.Family(r.dst.Addr()), uint8(r.dst.Bits()), 4: unix.RT_TABLE_MAIN, 5: r.protocol, 6: unix.RT_SCOPE_UNIVERSE, 7: unix.RTN_UNICAST}
	if r.dst.Addr().Is4() {
		h[6] = unix.RT_SCOPE_LINK
	}
	b.Begin(kind, flags|unix.NLM_F_ACK, h[:])
	b.Address(unix.RTA_DST, r.dst.Addr())
	b.Number(unix.RTA_OIF, uint32(r.index))
	if r.source.IsValid() {
		b.Address(unix.RTA_PREFSRC, r.source)
	}
	if r.metric > 0 {
		b.Number(unix.RTA_PRIORITY, r.metric)
	}
}
