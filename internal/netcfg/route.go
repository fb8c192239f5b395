// Package netcfg asks the kernel about routes, interfaces, addresses, neighbours and
// policies, and reports their changes.
package netcfg

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/rtnl"
)

// Route is the route by which the kernel sends to an address.
type Route struct {
	Source     netip.Addr // source address that the kernel chooses; zero: it has none
	Interface  string
	Index      int        // of the interface
	MTU        int        // of the route, or of its interface if the route has none
	NextHop    netip.Addr // the gateway, or the destination itself; without a zone, because Index is the interface
	Ethernet   bool       // the interface uses Ethernet frames
	Hardware   [6]byte    // its hardware address, if so
	Queues     int        // the most receive queues that it can have
	Bits       int        // prefix length of the entry in the kernel's table
	ToThisHost bool       // packets to the address come back to this host
}

// Router queries routes in the process's own namespace. It may be used concurrently.
type Router struct {
	conn   *rtnl.Conn
	handle *netlink.Handle // for neighbours
}

// NewRouter opens the connection to the kernel.
func NewRouter() (*Router, error) {
	c, err := rtnl.Dial()
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Router{conn: c, handle: h}, nil
}

// Close closes the connection.
func (r *Router) Close() {
	r.conn.Close()
	r.handle.Close()
}

// ErrNotLocal means that no interface has the local address.
var ErrNotLocal = errors.New("no interface of this host has the address")

// Missing returns what a tunnel waits for if the error is ErrNotLocal, for messages.
func Missing(local netip.Addr) string {
	device := cmp.Or(local.Zone(), "DEV")
	return fmt.Sprintf("the address %v, which no interface has: add it (ip addr add %v/PREFIX dev %s), or set local = \"auto\"", local, local.WithZone(""), device)
}

// errBroadcast is the error for a destination that is not a single host.
var errBroadcast = errors.New("it is the broadcast address of a network of this host")

// Query asks for the route of packets to Remote, from Local and with the mark. If Local
// is the zero address, the kernel chooses the source. The zone of a link-local address
// is the interface.
type Query struct {
	Remote netip.Addr
	Local  netip.Addr
	Mark   uint32
}

// Answer is the route for a Query, or an error. The error is ErrNotLocal if Local is not
// an address of this host.
type Answer struct {
	Route
	Err error
}

// To answers a single Query.
func (r *Router) To(remote, local netip.Addr, mark uint32) (Route, error) {
	a := r.ToAll([]Query{{remote, local, mark}})[0]
	return a.Route, a.Err
}

// ToAll answers each of the queries independently. It is fast for very many queries: it
// sends many requests for routes to the kernel at once, and queries each local address
// and each interface only once.
func (r *Router) ToAll(queries []Query) []Answer {
	answers := make([]Answer, len(queries))
	devices := zones(queries)
	owned := r.localAddresses(queries, devices)
	var asked []int // indexes of the queries for which the kernel is asked
	for i, q := range queries {
		switch _, err := devices.of(q); {
		case err != nil:
			answers[i].Err = fmt.Errorf("route to %v: %w", q.Remote, err)
		case !q.Remote.IsValid() || q.Local.IsValid() && q.Local.Is4() != q.Remote.Is4():
			answers[i].Err = fmt.Errorf("route to %v from %v: %w", q.Remote, q.Local, unix.EAFNOSUPPORT)
		case q.Local.IsValid() && owned[q.Local] != nil:
			answers[i].Err = owned[q.Local]
		default:
			asked = append(asked, i)
		}
	}
	// Two requests for each. What the kernel has learnt about the path from ICMP cannot
	// be trusted, so the MTU comes from the entry in the table.
	used, table := make([]rtnl.RouteReply, len(asked)), make([]rtnl.RouteReply, len(asked))
	r.conn.Exchange(2*len(asked), func(b *rtnl.Builder, i int) {
		q := queries[asked[i/2]]
		device, _ := devices.of(q)
		b.GetRoute(rtnl.RouteRequest{Remote: q.Remote, Local: q.Local, Mark: q.Mark, Device: device, Table: i%2 != 0})
	}, func(i int, message []byte, err error) {
		into := used
		if i%2 != 0 {
			into = table
		}
		into[i/2] = rtnl.ParseRoute(message, err)
	})
	interfaces := r.interfaces(used)
	for i, at := range asked {
		answers[at] = answerOf(queries[at], used[i], table[i], interfaces)
	}
	r.preferPublicSources(queries, answers)
	return answers
}

// ToPeers is ToAll for queries of which some have no Remote: their answer is empty. If automatic
// is true for the index of a query, the answer is instead InterfaceWith of its Local, if it has
// one; also if there is no route to Remote. The MTU of the loopback device says nothing about
// the others, and is replaced by assumedMTU.
func (r *Router) ToPeers(queries []Query, automatic func(i int) bool, assumedMTU int) []Answer {
	const loopbackMTU = 65535
	answers := make([]Answer, len(queries))
	holder := func(i int) {
		a := &answers[i]
		if a.Route, a.Err = r.InterfaceWith(queries[i].Local); a.MTU >= loopbackMTU {
			a.MTU = assumedMTU
		}
	}
	var known []Query
	var of []int
	for i, q := range queries {
		switch {
		case q.Remote.IsValid():
			known, of = append(known, q), append(of, i)
		case q.Local.IsValid() && automatic(i):
			holder(i)
		}
	}
	for n, a := range r.ToAll(known) {
		i := of[n]
		if answers[i] = a; a.Err != nil && queries[i].Local.IsValid() && automatic(i) {
			holder(i)
		}
	}
	return answers
}

// InterfaceWith returns the interface that has a local address, as a Route without
// NextHop. It is for tunnels without a fixed remote. The error is ErrNotLocal if no
// interface has the address, or if that interface is down.
func (r *Router) InterfaceWith(local netip.Addr) (Route, error) {
	if !local.IsValid() {
		return Route{}, fmt.Errorf("%v: %w", local, ErrNotLocal)
	}
	own, query := make([]rtnl.RouteReply, 1), Query{Remote: local}
	device, err := zones([]Query{query}).of(query)
	if err != nil {
		return Route{}, fmt.Errorf("%v: %w", local, ErrNotLocal)
	}
	// Only the table entry names the interface: the route in use leads through the
	// loopback device.
	r.conn.Exchange(1, func(b *rtnl.Builder, _ int) {
		b.GetRoute(rtnl.RouteRequest{Remote: local, Device: device, Table: true})
	},
		func(_ int, message []byte, err error) { own[0] = rtnl.ParseRoute(message, err) })
	if own[0].Err != nil || own[0].Kind != unix.RTN_LOCAL {
		return Route{}, fmt.Errorf("%v: %w", local, ErrNotLocal)
	}
	link := r.interfaces(own)[own[0].Index]
	if link.err != nil {
		return Route{}, fmt.Errorf("interface %d, which has %v: %w", own[0].Index, local, link.err)
	}
	return link.route(local, local.Is6()), nil
}

// localAddresses checks each distinct local address. The value is nil if the address is
// ours, and ErrNotLocal otherwise.
func (r *Router) localAddresses(queries []Query, devices devices) map[netip.Addr]error {
	owned := make(map[netip.Addr]error)
	var distinct []netip.Addr
	for _, q := range queries {
		if _, known := owned[q.Local]; q.Local.IsValid() && !known {
			owned[q.Local] = nil
			distinct = append(distinct, q.Local)
		}
	}
	r.conn.Exchange(len(distinct), func(b *rtnl.Builder, i int) {
		q := Query{Remote: distinct[i]}
		device, _ := devices.of(q)
		b.GetRoute(rtnl.RouteRequest{Remote: distinct[i], Device: device})
	},
		func(i int, message []byte, err error) {
			if f := rtnl.ParseRoute(message, err); f.Err != nil || f.Kind != unix.RTN_LOCAL {
				owned[distinct[i]] = fmt.Errorf("%v: %w", distinct[i], ErrNotLocal)
			}
		})
	return owned
}

// answerOf builds the answer to a query from the route in use, the table entry from which
// it comes, and the interfaces.
func answerOf(q Query, f, table rtnl.RouteReply, interfaces map[int]*device) Answer {
	fail := func(err error) Answer { return Answer{Err: fmt.Errorf("route to %v: %w", q.Remote, err)} }
	if f.Err != nil {
		return fail(f.Err)
	}
	if table.Err != nil {
		return fail(table.Err)
	}
	link := interfaces[f.Index]
	if f.Kind == unix.RTN_BROADCAST {
		return fail(errBroadcast)
	}
	if link.err != nil {
		return Answer{Err: fmt.Errorf("interface %d of the route to %v: %w", f.Index, q.Remote, link.err)}
	}
	// The kernel reports the source that it would choose even if the query has one.
	source := q.Local
	if !source.IsValid() {
		source = f.Source
	}
	route := link.route(source, q.Remote.Is6())
	// Packets through the loopback device come back to this host, whatever the route's
	// type.
	route.ToThisHost = link.loopback || f.Kind == unix.RTN_LOCAL || f.Kind == unix.RTN_ANYCAST
	route.Bits = table.Bits
	if table.MTU > 0 {
		route.MTU = min(route.MTU, table.MTU)
	}
	if route.NextHop = q.Remote.WithZone(""); f.Gateway.IsValid() {
		route.NextHop = f.Gateway
	}
	return Answer{Route: route}
}
