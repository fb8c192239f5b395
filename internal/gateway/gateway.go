// Package gateway makes one end of a tunnel the internet gateway of the other end: it
// manages the kernel's routing rules and its address translation.
//
// On one side, everything for which the host has no other route goes into the tunnel
// (way.go). That needs rules, not a default route in the main table, because the outer
// packets must go the old way, and so must answers to hosts that connect to the old
// addresses of this host, for example by SSH. The rules of one IP version have what "ip
// rule" calls protocol 64:
//
//	30000  packets with the mark of outer packets, packets from an address of the host
//	       (except the tunnel's), packets to a prefix of bypass: goto 30003
//	30001  lookup main suppress_prefixlength 0: every route except the default route
//	30002  lookup 25700 (0x6464), which has the default route into the tunnel
//	30003  nop: packets continue from here on the old way
//	32768  lookup main: if all rules were flushed, the rules above still work
//
// The old way is whatever rules follow 30003, not just the main table: a host with
// several uplinks has its own rules.
//
// Answers go the old way by their source address, and not by the mark of a tracked
// connection. That needs no connection tracking, also works while the tunnel's interface
// is gone, passes strict reverse path filtering, and does not affect connections that
// are older than the tunnel. Only if the host forwards packets, incoming connections are
// marked too, so that answers from hosts behind it (such as a container with a published
// port) take the way of their connection (follow.go). All marks are one bit (Mark);
// other programs can use the other bits.
//
// While the tunnel cannot carry packets, packets for it are lost, and do not leak to the
// old way: the route depends on the interface, not on the path to the peer.
//
// On the other side, packets from tunnels leave with the host's own address as source
// (masquerade.go), for which the interfaces must forward (forward.go).
//
// Where several hosts share one IPv4 address, packets into the tunnel get that address and
// the ports that belong to this host (share.go).
//
// All of this is in the process's own network namespace. The kernel removes nftables
// tables when the process ends in any way (see nft.Tables). Rules remain after a
// process was killed: without the interface they have no effect, and Clean, or the next
// gateway, removes them. Our rules are recognized by protocol and priority, and only the
// owner of the nftables table for the same purpose changes them. So there is one gateway
// of each kind in a namespace.
package gateway

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/netcfg"
	"sixfour/internal/nft"
)

// Wanted describes what a Gateway must do.
type Wanted struct {
	Masquerade []string // the interfaces through which masqueraded packets leave
	Tunnels    []Tunnel // whose packets are masqueraded
	Default    *Default // nil: there is no default route into a tunnel
	Shares     []Share  // at most one for each interface
}

// Tunnel is a tunnel's interface whose packets are masqueraded.
type Tunnel struct {
	Interface string
	IPv4      bool
	IPv6      bool // masquerade packets from fc00::/7; other addresses are global
}

// Default is the tunnel that gets the default route.
type Default struct {
	Interface  string
	Index      int  // 0: the interface does not exist now
	IPv4, IPv6 bool // the versions for which it has the default route
	Bypass     []netip.Prefix
	Mark       uint32   // the bit of outer packets, and of incoming connections
	Marks      []uint32 // of outer packets that have another mark
}

// Done is the result of a Sync.
type Done struct {
	Restored []string // what other programs had removed: "rule", "route", "table", "forwarding"
	Advice   []string // what does not work although there was no error, and how to fix it

	Missing                             []string // interfaces of masquerade that do not exist
	DefaultErr, MasqueradeErr, ShareErr error    // why one of them is not as required
}

// Gateway manages the rules and tables. It is not safe for concurrent use.
type Gateway struct {
	handle        *netlink.Handle
	router        *netcfg.Router
	defaultRoutes map[int]*defaultRoute // by IP version
	masquerade    *masquerade           // nil: there is none
	shares        map[string]*share     // by interface
}

// Open returns a gateway that does nothing yet. Close it after use.
func Open() (*Gateway, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	r, err := netcfg.NewRouter()
	if err != nil {
		h.Close()
		return nil, err
	}
	return &Gateway{handle: h, router: r, defaultRoutes: make(map[int]*defaultRoute), shares: make(map[string]*share)}, nil
}

// Sync makes everything as w says, and restores what other programs have removed. It is
// cheap if nothing changed. On an error it still does everything else.
func (g *Gateway) Sync(w Wanted) (Done, error) {
	var done Done
	for _, v := range []int{4, 6} {
		done.DefaultErr = errors.Join(done.DefaultErr, g.syncDefaultRoute(v, w.Default, &done))
	}
	done.MasqueradeErr = g.syncMasquerade(w, &done)
	done.ShareErr = g.syncShares(w.Shares, &done)
	return done, errors.Join(done.DefaultErr, done.MasqueradeErr, done.ShareErr)
}

func (g *Gateway) syncDefaultRoute(v int, d *Default, done *Done) (err error) {
	wanted := d != nil && (v == 4 && d.IPv4 || v == 6 && d.IPv6)
	w := g.defaultRoutes[v]
	switch {
	case !wanted && w == nil:
		return nil
	case !wanted:
		delete(g.defaultRoutes, v)
		return w.close()
	case w == nil:
		if w, err = g.openDefaultRoute(v); err != nil {
			return fmt.Errorf("take the default route of IPv%d: %w", v, err)
		}
		g.defaultRoutes[v] = w
	}
	if err := w.sync(d, done); err != nil {
		return fmt.Errorf("keep the default route of IPv%d: %w", v, err)
	}
	return nil
}

func (g *Gateway) syncMasquerade(w Wanted, done *Done) (err error) {
	switch {
	case len(w.Masquerade) == 0 && g.masquerade == nil:
		return nil
	case len(w.Masquerade) == 0:
		m := g.masquerade
		g.masquerade = nil
		return m.close()
	case g.masquerade == nil:
		if g.masquerade, err = g.openMasquerade(); err != nil {
			return fmt.Errorf("masquerade: %w", err)
		}
	}
	if err := g.masquerade.sync(w, done); err != nil {
		return fmt.Errorf("masquerade: %w", err)
	}
	return nil
}

// Close removes everything that the gateway has made.
func (g *Gateway) Close() error {
	_, err := g.Sync(Wanted{})
	g.router.Close()
	g.handle.Close()
	return err
}

// Clean removes what killed gateways have left. It does not touch the rules and tables
// of running processes.
func Clean() error {
	g, err := Open()
	if err != nil {
		return err
	}
	defer g.Close()
	var all error
	for _, v := range []int{4, 6} {
		rules, err := ownRules(g.handle, v, isDefaultRouteRule)
		if err == nil && len(rules) > 0 {
			err = g.cleanDefaultRoute(v)
		}
		all = errors.Join(all, err)
	}
	marks, err := ownRules(g.handle, 4, isForwardingRule)
	if err == nil && len(marks) > 0 {
		err = g.cleanMasquerade()
	}
	return errors.Join(all, err)
}

func (g *Gateway) cleanDefaultRoute(v int) error {
	w, err := g.openDefaultRoute(v)
	if errors.Is(err, nft.ErrTaken) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove what an earlier process left behind: %w", err)
	}
	return w.close()
}

func (g *Gateway) cleanMasquerade() error {
	m, err := g.openMasquerade()
	if errors.Is(err, nft.ErrTaken) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove what an earlier process left behind: %w", err)
	}
	return m.close()
}
