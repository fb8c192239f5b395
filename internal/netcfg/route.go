package netcfg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	nfnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is the route by which the kernel sends to an address.
type Route struct {
	Source    netip.Addr // source address that the kernel chooses; zero: it has none
	Interface string
	Index     int        // of the interface
	MTU       int        // of the route, or of its interface if the route has none
	Hop       netip.Addr // the gateway, or the destination itself; without a zone, because Index is the interface
	Ethernet  bool       // the interface uses Ethernet frames
	Hardware  [6]byte    // its hardware address, if so
	Queues    int        // the most receive queues that it can have
	Bits      int        // prefix length of the entry in the kernel's table
	Ours      bool       // packets to the address come back to this host
}

// Router queries routes in the process's own namespace. It may be used concurrently.
type Router struct {
	conn   *conn
	handle *netlink.Handle // for neighbours
}

// NewRouter opens the connection to the kernel.
func NewRouter() (*Router, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		c.close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Router{conn: c, handle: h}, nil
}

// Close closes the connection.
func (r *Router) Close() {
	r.conn.close()
	r.handle.Close()
}

// ErrNotLocal means that no interface has the local address.
var ErrNotLocal = errors.New("no interface of this host has the address")

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
	owned := r.owned(queries, devices)
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
	used, table := make([]found, len(asked)), make([]found, len(asked))
	r.conn.exchange(2*len(asked), func(b *builder, i int) {
		q := queries[asked[i/2]]
		device, _ := devices.of(q)
		b.getRoute(q, device, i%2 != 0)
	}, func(i int, message []byte, err error) {
		into := used
		if i%2 != 0 {
			into = table
		}
		into[i/2] = parseRoute(message, err)
	})
	interfaces := r.interfaces(used)
	for i, at := range asked {
		answers[at] = used[i].answer(queries[at], table[i], interfaces)
	}
	r.stable(queries, answers)
	return answers
}

// Holder returns the interface that has a local address, as a Route without Hop. It is
// for tunnels without a fixed remote. The error is ErrNotLocal if no interface has the
// address, or if that interface is down.
func (r *Router) Holder(local netip.Addr) (Route, error) {
	if !local.IsValid() {
		return Route{}, fmt.Errorf("%v: %w", local, ErrNotLocal)
	}
	own, query := make([]found, 1), Query{Remote: local}
	device, err := zones([]Query{query}).of(query)
	if err != nil {
		return Route{}, fmt.Errorf("%v: %w", local, ErrNotLocal)
	}
	// Only the table entry names the interface: the route in use leads through the
	// loopback device.
	r.conn.exchange(1, func(b *builder, _ int) { b.getRoute(query, device, true) },
		func(_ int, message []byte, err error) { own[0] = parseRoute(message, err) })
	if own[0].err != nil || own[0].kind != unix.RTN_LOCAL {
		return Route{}, fmt.Errorf("%v: %w", local, ErrNotLocal)
	}
	link := r.interfaces(own)[own[0].index]
	if link.err != nil {
		return Route{}, fmt.Errorf("interface %d, which has %v: %w", own[0].index, local, link.err)
	}
	return link.route(local, local.Is6()), nil
}

// owned checks each distinct local address. The value is nil if the address is ours, and
// ErrNotLocal otherwise.
func (r *Router) owned(queries []Query, devices devices) map[netip.Addr]error {
	owned := make(map[netip.Addr]error)
	var distinct []netip.Addr
	for _, q := range queries {
		if _, known := owned[q.Local]; q.Local.IsValid() && !known {
			owned[q.Local] = nil
			distinct = append(distinct, q.Local)
		}
	}
	r.conn.exchange(len(distinct), func(b *builder, i int) {
		q := Query{Remote: distinct[i]}
		device, _ := devices.of(q)
		b.getRoute(q, device, false)
	},
		func(i int, message []byte, err error) {
			if f := parseRoute(message, err); f.err != nil || f.kind != unix.RTN_LOCAL {
				owned[distinct[i]] = fmt.Errorf("%v: %w", distinct[i], ErrNotLocal)
			}
		})
	return owned
}

// getRoute requests a route, through a device if that is not 0: the route in use or,
// with table, the table entry from which it comes (ip route get fibmatch).
func (b *builder) getRoute(q Query, device int, table bool) {
	h := [unix.SizeofRtMsg]byte{family(q.Remote), uint8(q.Remote.BitLen())}
	flags := uint32(unix.RTM_F_LOOKUP_TABLE)
	if q.Local.IsValid() {
		h[2] = uint8(q.Local.BitLen())
	}
	if table {
		flags |= unix.RTM_F_FIB_MATCH
	}
	binary.NativeEndian.PutUint32(h[8:], flags)
	b.begin(unix.RTM_GETROUTE, 0, h[:])
	b.address(unix.RTA_DST, q.Remote)
	if q.Local.IsValid() {
		b.address(unix.RTA_SRC, q.Local)
	}
	if device != 0 {
		b.number(unix.RTA_OIF, uint32(device))
	}
	if q.Mark != 0 {
		b.number(unix.RTA_MARK, q.Mark)
	}
}

// found is what the kernel reports about a route.
type found struct {
	kind    uint8 // RTN_UNICAST, RTN_LOCAL…
	index   int   // of the interface
	source  netip.Addr
	gateway netip.Addr
	mtu     int // 0: none of its own
	bits    int // prefix length of the destination
	metric  uint32
	err     error
}

// parseRoute parses the answer to getRoute (linux/rtnetlink.h: struct rtmsg).
func parseRoute(message []byte, err error) (f found) {
	if err != nil {
		return found{err: err}
	}
	f.err = attributes(message, unix.SizeofRtMsg, func(a *nfnetlink.AttributeDecoder) {
		switch a.Type() {
		case unix.RTA_OIF:
			f.index = int(a.Uint32())
		case unix.RTA_PRIORITY:
			f.metric = a.Uint32()
		case unix.RTA_PREFSRC:
			f.source, _ = netip.AddrFromSlice(a.Bytes())
		case unix.RTA_GATEWAY:
			f.gateway, _ = netip.AddrFromSlice(a.Bytes())
		case unix.RTA_VIA: // a gateway of the other family, after two bytes with its family
			if via := a.Bytes(); len(via) > 2 {
				f.gateway, _ = netip.AddrFromSlice(via[2:])
			}
		case unix.RTA_METRICS:
			a.Nested(func(m *nfnetlink.AttributeDecoder) error {
				for m.Next() {
					if m.Type() == unix.RTAX_MTU {
						f.mtu = int(m.Uint32())
					}
				}
				return nil
			})
		}
	})
	if f.err == nil {
		f.kind, f.bits = message[7], int(message[1])
	}
	return f
}

// answer builds the answer to a query from the route in use, the table entry from which
// it comes, and the interfaces.
func (f found) answer(q Query, table found, interfaces map[int]*device) Answer {
	fail := func(err error) Answer { return Answer{Err: fmt.Errorf("route to %v: %w", q.Remote, err)} }
	if f.err != nil {
		return fail(f.err)
	}
	if table.err != nil {
		return fail(table.err)
	}
	link := interfaces[f.index]
	if f.kind == unix.RTN_BROADCAST {
		return fail(errBroadcast)
	}
	if link.err != nil {
		return Answer{Err: fmt.Errorf("interface %d of the route to %v: %w", f.index, q.Remote, link.err)}
	}
	// The kernel reports the source that it would choose even if the query has one.
	source := q.Local
	if !source.IsValid() {
		source = f.source
	}
	route := link.route(source, q.Remote.Is6())
	// Packets through the loopback device come back to this host, whatever the route's
	// type.
	route.Ours = link.loopback || f.kind == unix.RTN_LOCAL || f.kind == unix.RTN_ANYCAST
	route.Bits = table.bits
	if table.mtu > 0 {
		route.MTU = min(route.MTU, table.mtu)
	}
	if route.Hop = q.Remote.WithZone(""); f.gateway.IsValid() {
		route.Hop = f.gateway
	}
	return Answer{Route: route}
}
