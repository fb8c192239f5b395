package broker

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/internal/rtnl"
)

// Routes keeps the routes of attached clients in the kernel: the prefix and the client's end of
// the tunnel lead to the interface, and the broker's end is an address of this host, which
// answers pings. That is a route of the kernel's local table, and not an address of the interface,
// because an interface with thousands of addresses is slow.
//
// The routes go with the interface, also if the daemon is killed.
type Routes struct {
	conn *rtnl.Conn
	name string // of the interface
	log  *zap.Logger
	wake chan struct{}

	mu      sync.Mutex
	left    []netip.Prefix // that the interface has anyway
	want    map[Route]struct{}
	changed map[Route]struct{} // since the kernel's table was last updated
	stale   bool               // all must be added again

	// Only Run uses the following.
	index int // of the interface for which there are routes; 0: none
	has   map[Route]struct{}
	told  limiter
}

// NewRoutes returns the routes through an interface, which need not exist yet. Run must
// follow.
func NewRoutes(name string, log *zap.Logger) (*Routes, error) {
	conn, err := rtnl.Dial()
	if err != nil {
		return nil, err
	}
	return &Routes{conn: conn, name: name, log: log, wake: make(chan struct{}, 1), want: map[Route]struct{}{}, changed: map[Route]struct{}{}, has: map[Route]struct{}{}}, nil
}

// Add implements Router.
func (r *Routes) Add(route Route) { r.set(route, true) }

// Remove implements Router.
func (r *Routes) Remove(route Route) { r.set(route, false) }

func (r *Routes) set(route Route, want bool) {
	r.mu.Lock()
	if want {
		r.want[route] = struct{}{}
	} else {
		delete(r.want, route)
	}
	r.changed[route] = struct{}{}
	r.mu.Unlock()
	r.hurry()
}

// Leave sets networks that are routed into the interface anyway. A client's prefix that is all
// of one of them is left out.
func (r *Routes) Leave(networks []netip.Prefix) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = networks
}

func (r *Routes) hurry() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Attached returns the wanted routes.
func (r *Routes) Attached(each func(Route)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for route := range r.want {
		each(route)
	}
}

// tryAgain is the interval between attempts to add routes that could not be added.
const tryAgain = time.Second

// Run keeps the routes until ctx ends.
func (r *Routes) Run(ctx context.Context) {
	defer r.conn.Close()
	updates := make(chan netlink.LinkUpdate, 64)
	err := netlink.LinkSubscribeWithOptions(updates, ctx.Done(), netlink.LinkSubscribeOptions{ErrorCallback: func(err error) {
		r.log.Debug("broker: changes of interfaces may have been missed", zap.Error(err))
		r.refresh()
	}})
	if err != nil {
		r.log.Warn("broker: routes that get lost are not restored", zap.Error(err))
	}
	for {
		complete := r.update()
		var again <-chan time.Time
		if !complete {
			again = time.After(tryAgain)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-r.wake:
		case u, ok := <-updates:
			switch {
			case !ok:
				updates = nil
			case u.Attrs().Name == r.name: // if it was down, its routes are gone
				r.refresh()
			}
		}
	}
}

// refresh makes all routes be added again.
func (r *Routes) refresh() {
	r.mu.Lock()
	r.stale = true
	r.mu.Unlock()
	r.hurry()
}

// update changes the kernel's table. It reports whether that is as it should be.
func (r *Routes) update() (complete bool) {
	r.mu.Lock()
	idle, stale := len(r.changed) == 0 && !r.stale, r.stale
	r.mu.Unlock()
	if idle {
		return true
	}
	index := 0
	if i, err := net.InterfaceByName(r.name); err == nil {
		index = i.Index
	}
	if index != r.index || stale {
		r.index = index
		clear(r.has)
		stale = true
	}
	r.mu.Lock()
	stale = stale || r.stale
	changed := r.changed
	r.changed, r.stale = map[Route]struct{}{}, false
	var add, remove []Route
	if stale {
		for route := range r.want {
			add = append(add, route)
		}
	}
	for route := range changed {
		_, want := r.want[route]
		_, has := r.has[route]
		switch {
		case want && !has && !stale:
			add = append(add, route)
		case !want && (has || stale):
			remove = append(remove, route)
		}
	}
	r.mu.Unlock()
	if index == 0 {
		r.retry(add)
		return len(add) == 0
	}
	r.exchange(unix.RTM_DELROUTE, 0, remove, nil)
	for _, route := range remove {
		delete(r.has, route)
	}
	failed := map[Route]struct{}{}
	r.exchange(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, add, func(i int, p netip.Prefix, err error) {
		if errors.Is(err, unix.EEXIST) && stale {
			return
		}
		if !errors.Is(err, unix.EEXIST) {
			failed[add[i]] = struct{}{}
		}
		if more, ok := r.told.allow(time.Now()); ok {
			r.log.Error("broker: cannot add a client's route", zap.Stringer("route", p), zap.Error(err), zap.Int("others", more))
		}
	})
	for _, route := range add {
		if _, bad := failed[route]; !bad {
			r.has[route] = struct{}{}
		}
	}
	r.retry(slices.DeleteFunc(add, func(route Route) bool { _, bad := failed[route]; return !bad }))
	return len(failed) == 0
}

// retry makes update look at routes again.
func (r *Routes) retry(routes []Route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, route := range routes {
		r.changed[route] = struct{}{}
	}
}

// entry is an entry of the kernel's tables.
type entry struct {
	of    int // index of the Route
	dst   netip.Prefix
	local bool
}

// exchange sends the requests for routes. Failed may be nil.
func (r *Routes) exchange(kind, flags uint16, routes []Route, failed func(i int, p netip.Prefix, err error)) {
	r.mu.Lock()
	left := r.left
	r.mu.Unlock()
	var all []entry
	for i, route := range routes {
		if !slices.Contains(left, route.Prefix) {
			all = append(all, entry{i, route.Prefix, false})
		}
		if e := route.Endpoint; e.Client.IsValid() && e.Broker.IsValid() {
			all = append(all, entry{i, netip.PrefixFrom(e.Client, 128), false}, entry{i, netip.PrefixFrom(e.Broker, 128), true})
		}
	}
	r.conn.Exchange(len(all), func(b *rtnl.Builder, i int) { all[i].write(b, kind, flags, r.index) }, func(i int, _ []byte, err error) {
		if err != nil && failed != nil {
			failed(all[i].of, all[i].dst, err)
		}
	})
}

// write writes a request about an entry (linux/rtnetlink.h: struct rtmsg).
func (e *entry) write(b *rtnl.Builder, kind, flags uint16, index int) {
	h := [unix.SizeofRtMsg]byte{unix.AF_INET6, uint8(e.dst.Bits()), 4: unix.RT_TABLE_MAIN, 5: unix.RTPROT_BOOT, 6: unix.RT_SCOPE_UNIVERSE, 7: unix.RTN_UNICAST}
	if e.local {
		h[4], h[7] = unix.RT_TABLE_LOCAL, unix.RTN_LOCAL
	}
	b.Begin(kind, flags|unix.NLM_F_ACK, h[:])
	b.Address(unix.RTA_DST, e.dst.Addr())
	b.Number(unix.RTA_OIF, uint32(index))
}
