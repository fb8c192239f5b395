package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/netcfg"
	"sixfour/internal/nft"
)

// The routing tables from which ours is chosen: the first that no other program uses.
const (
	firstTable = 0x6464
	tables     = 16
)

// defaultRoute holds the routing rules and the default route into the tunnel, for one IP version.
type defaultRoute struct {
	v       int
	handle  *netlink.Handle
	router  *netcfg.Router
	own     *nft.Tables // its owner owns the rules
	number  int         // of the routing table
	rules   []rule      // the required rules; nil: not made yet
	route   int         // index of the interface of the default route; 0: there is none
	replies replyRules
}

// openDefaultRoute takes over the existing rules of an IP version. The error is nft.ErrTaken
// if they belong to another process.
func (g *Gateway) openDefaultRoute(v int) (*defaultRoute, error) {
	w := &defaultRoute{v: v, handle: g.handle, router: g.router}
	var err error
	if w.own, err = nft.OpenTables(fmt.Sprintf("route%d", v)); err != nil {
		return nil, explain(err)
	}
	if err = w.addTable(); err == nil {
		err = w.freeTable()
	}
	if err != nil {
		w.own.Close()
		return nil, err
	}
	return w, nil
}

func (w *defaultRoute) nftables() nftables.TableFamily {
	if w.v == 4 {
		return nftables.TableFamilyIPv4
	}
	return nftables.TableFamilyIPv6
}

func (w *defaultRoute) addTable() error {
	table, err := w.own.Add(w.nftables())
	if errors.Is(err, nft.ErrTaken) {
		return fmt.Errorf("%w: only one sixfourd of a network namespace can have default_route for IPv%d: remove it from one configuration", err, w.v)
	}
	w.replies = replyRules{table: table}
	return explain(err)
}

// freeTable chooses the routing table, and removes what a killed process has left in it,
// whose interface another process keeps.
func (w *defaultRoute) freeTable() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	_ = h.SetStrictCheck(true) // without it the kernel returns all tables, which is only slower
	for n := firstTable; n < firstTable+tables; n++ {
		list, err := dump(func() ([]netlink.Route, error) {
			return h.RouteListFiltered(family(w.v), &netlink.Route{Table: n}, netlink.RT_FILTER_TABLE)
		})
		if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: the table was never used
			return fmt.Errorf("list routing table %d: %w", n, err)
		}
		if slices.ContainsFunc(list, func(r netlink.Route) bool { return r.Protocol != protocol }) {
			continue
		}
		for _, r := range list {
			if err := w.handle.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("empty routing table %d: %w", n, err)
			}
		}
		w.number = n
		return nil
	}
	return fmt.Errorf("the routing tables %d to %d are all in use: empty one of them (ip route flush table %d)", firstTable, firstTable+tables-1, firstTable)
}

// sync makes the rules and the route as required.
func (w *defaultRoute) sync(d *Default, done *Done) error {
	exists, err := w.own.Exists(w.nftables())
	if err == nil && !exists { // there was no owned table
		if err = w.addTable(); err == nil {
			done.Restored = append(done.Restored, "table")
		}
	}
	if err != nil {
		return err
	}
	wanted, err := w.wanted(d)
	if err != nil {
		return err
	}
	existing, err := ownRules(w.handle, w.v, isDefaultRouteRule)
	if err != nil {
		return err
	}
	gone := func(r rule) bool { return slices.Contains(w.rules, r) && !slices.Contains(existing, r) }
	if slices.ContainsFunc(wanted, gone) {
		done.Restored = append(done.Restored, "rule")
	}
	if !sameRules(existing, wanted) {
		err = setRules(w.handle, w.v, existing, wanted)
	}
	w.rules = wanted
	return errors.Join(err, w.setRoute(d.Index, done), w.syncReplies(d, done))
}

func sameRules(a, b []rule) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(r rule) bool { return !slices.Contains(b, r) })
}

// wanted returns the required rules.
func (w *defaultRoute) wanted(d *Default) ([]rule, error) {
	own, err := w.addresses(d.Index)
	if err != nil {
		return nil, err
	}
	rules := []rule{
		{priority: priorityEnd},
		{priority: priorityLast, table: unix.RT_TABLE_MAIN},
		{priority: priorityBypass, mark: d.Mark, mask: d.Mark, jump: priorityEnd},
	}
	for _, m := range d.Marks {
		rules = append(rules, rule{priority: priorityBypass, mark: m, mask: 1<<32 - 1, jump: priorityEnd})
	}
	for _, a := range own {
		rules = append(rules, rule{priority: priorityBypass, from: netip.PrefixFrom(a, a.BitLen()), jump: priorityEnd})
	}
	for _, p := range d.Bypass {
		if p.Addr().Is4() == (w.v == 4) {
			rules = append(rules, rule{priority: priorityBypass, to: p, jump: priorityEnd})
		}
	}
	return append(rules,
		rule{priority: priorityMain, table: unix.RT_TABLE_MAIN, noDefault: true},
		rule{priority: priorityTunnel, table: w.number}), nil
}

// addresses returns the addresses of the host whose packets go the old way: all that
// other hosts can send to, except those of the tunnel's interface.
func (w *defaultRoute) addresses(tunnel int) (own []netip.Addr, _ error) {
	list, err := dump(func() ([]netlink.Addr, error) { return w.handle.AddrList(nil, family(w.v)) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var inside []netip.Addr
	for _, l := range list {
		a, ok := netip.AddrFromSlice(l.IP)
		switch {
		case !ok, a.IsLoopback(), a.IsLinkLocalUnicast() && a.Is6():
		case l.LinkIndex == tunnel:
			inside = append(inside, a)
		case !slices.Contains(own, a):
			own = append(own, a)
		}
	}
	// A tunnel may have the same address as the uplink.
	return slices.DeleteFunc(own, func(a netip.Addr) bool { return slices.Contains(inside, a) }), nil
}

// setRoute makes the default route lead into the tunnel's interface, if the interface
// exists.
func (w *defaultRoute) setRoute(index int, done *Done) error {
	if index == 0 {
		w.route = 0
		return nil
	}
	r := w.netlinkRoute(index)
	err := w.handle.RouteAdd(r)
	switch {
	case err == nil && w.route == index:
		done.Restored = append(done.Restored, "route")
	case errors.Is(err, unix.EEXIST) && w.route != index:
		err = w.handle.RouteReplace(r)
	case errors.Is(err, unix.EEXIST):
		err = nil
	}
	if errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENODEV) { // another part of the daemon detects and reports that
		w.route = 0
		return nil
	}
	if err != nil {
		return fmt.Errorf("add the default route of routing table %d: %w", w.number, err)
	}
	w.route = index
	return nil
}

func (w *defaultRoute) syncReplies(d *Default, done *Done) error {
	conf, err := w.router.Conf(w.v, netcfg.AllInterfaces)
	if err != nil {
		return err
	}
	// For IPv4 the setting of all interfaces does not decide whether a host forwards, but
	// it is set on hosts that route for others.
	if err := w.replies.sync(w.own, conf.Forwarding, d); err != nil {
		if conf.Forwarding {
			done.Advice = append(done.Advice, err.Error())
		}
	}
	if conf.Forwarding && w.v == 4 {
		w.checkReversePath(d, done)
	}
	return nil
}

// checkReversePath adds advice if strict reverse path filtering drops connections that
// come in to be forwarded, because the route back leads into the tunnel.
func (w *defaultRoute) checkReversePath(d *Default, done *Done) {
	route, err := w.router.To(netip.MustParseAddr("192.0.2.1"), netip.Addr{}, d.Mark)
	if err != nil || route.Index == d.Index {
		return // there is no uplink now
	}
	all, err := w.router.Conf(4, netcfg.AllInterfaces)
	one, err2 := w.router.Conf(4, route.Index)
	if err == nil && err2 == nil && max(all.RPFilter, one.RPFilter) == 1 {
		done.Advice = append(done.Advice, fmt.Sprintf("strict reverse path filtering drops connections that come in through %s and are forwarded, such as to containers: "+
			"if there are any, make it loose (sysctl -w net.ipv4.conf.%s.rp_filter=2)", route.Interface, route.Interface))
	}
}

// netlinkRoute returns the default route through an interface.
func (w *defaultRoute) netlinkRoute(index int) *netlink.Route {
	r := &netlink.Route{
		Family: family(w.v), LinkIndex: index, Table: w.number, Protocol: protocol,
		Scope: netlink.SCOPE_LINK, Dst: ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0)),
	}
	if w.v == 6 { // IPv6 has no scopes
		r.Scope, r.Dst = netlink.SCOPE_UNIVERSE, ipNet(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	}
	return r
}

// close removes the rules, the route and the table.
func (w *defaultRoute) close() error {
	existing, err := ownRules(w.handle, w.v, isDefaultRouteRule)
	if err == nil {
		err = setRules(w.handle, w.v, existing, nil)
	}
	if w.route != 0 {
		e := w.handle.RouteDel(w.netlinkRoute(w.route))
		if e != nil && !errors.Is(e, unix.ESRCH) && !errors.Is(e, unix.ENODEV) {
			err = errors.Join(err, fmt.Errorf("remove the default route of routing table %d: %w", w.number, e))
		}
	}
	return errors.Join(err, w.own.Close())
}
