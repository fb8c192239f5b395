// Package gateway makes one end of a tunnel the other's way into the internet: it
// takes care of the kernel's routing rules and of its address translation.
//
// On the one side everything for which the host has no other route goes into the
// tunnel (way.go). That needs rules, not a default route in the main table: the
// outer packets have to go the old way, and so have the answers to who reaches the
// host by its old addresses, such as by SSH. The rules of one IP version are, with
// what "ip rule" calls protocol 64:
//
//	30000  what has the mark of outer packets, what is from an address of the host
//	       (but for the tunnel's), what is to a prefix of bypass: goto 30003
//	30001  lookup main suppress_prefixlength 0: every route but the default one
//	30002  lookup 25700 (0x6464), where the default route into the tunnel is
//	30003  nop: what came here goes on, the old way
//	32768  lookup main: if somebody has flushed all rules, those above still work
//
// The old way is whatever rules there are behind 30003, not just the main table: a
// host with several uplinks has its own.
//
// Answers go the old way by their source address, and not by the mark of a tracked
// connection: that needs no connection tracking, holds also while the tunnel's
// interface is gone, passes strict reverse path filtering, and leaves connections
// alone that are older than the tunnel. Only where the host forwards packets are
// connections that come in marked as well, so that the answers of who is behind it
// (a container with a published port) find back (follow.go). All marks are one bit
// (Mark); the others are for others.
//
// While the tunnel cannot carry, what would go into it is lost, and does not leak
// out the old way: the route goes with the interface, not with the path to the
// peer.
//
// On the other side what comes from tunnels leaves with the host's own address
// (masquerade.go), for which the interfaces have to forward (forward.go).
//
// All of it is in the namespace that the process is in. Tables of nftables go with
// the process, however it dies (see netcfg.Tables). Rules stay behind a process that
// is killed: without the interface they do nothing, and Clean, or the next gateway,
// removes them. Ours they are by protocol and priority, and only whoever owns the
// nftables table of the same purpose touches them. So there is one gateway of each
// sort in a namespace.
package gateway

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/netcfg"
)

// Wanted is what a Gateway shall do.
type Wanted struct {
	Masquerade []string // the interfaces out of which it does so
	Tunnels    []Tunnel // what comes from these
	Default    *Default // nil: everything goes the old way
}

// Tunnel is a tunnel's interface whose packets are masqueraded.
type Tunnel struct {
	Interface string
	IPv4      bool
	IPv6      bool // what is from fc00::/7: all other addresses are everybody's
}

// Default is the tunnel that takes everything.
type Default struct {
	Interface  string
	Index      int  // 0: there is no such interface now
	IPv4, IPv6 bool // what it takes
	Bypass     []netip.Prefix
	Mark       uint32   // the bit of outer packets, and of connections that come in
	Marks      []uint32 // of outer packets that have others
}

// Done is what a Sync has to tell.
type Done struct {
	Mended []string // what somebody else had taken away: "rule", "route", "table", "forwarding"
	Advice []string // what does not work though nothing went wrong, and the way out

	Missing                   []string // interfaces of masquerade that there are not
	DefaultErr, MasqueradeErr error    // why one of the two is not as it should be
}

// Gateway does what is wanted of it. One goroutine may use it.
type Gateway struct {
	handle     *netlink.Handle
	router     *netcfg.Router
	ways       map[int]*way // by IP version
	masquerade *masquerade  // nil: there is none
}

// Open makes a gateway that does nothing yet. Close it.
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
	return &Gateway{handle: h, router: r, ways: make(map[int]*way)}, nil
}

// Sync makes it so, and puts back what others have taken away. It is cheap if
// nothing is to be done. What can be done is done in spite of an error.
func (g *Gateway) Sync(w Wanted) (Done, error) {
	var done Done
	for _, v := range []int{4, 6} {
		done.DefaultErr = errors.Join(done.DefaultErr, g.syncWay(v, w.Default, &done))
	}
	done.MasqueradeErr = g.syncMasquerade(w, &done)
	return done, errors.Join(done.DefaultErr, done.MasqueradeErr)
}

func (g *Gateway) syncWay(v int, d *Default, done *Done) (err error) {
	wanted := d != nil && (v == 4 && d.IPv4 || v == 6 && d.IPv6)
	w := g.ways[v]
	switch {
	case !wanted && w == nil:
		return nil
	case !wanted:
		delete(g.ways, v)
		return w.close()
	case w == nil:
		if w, err = g.openWay(v); err != nil {
			return fmt.Errorf("take the default route of IPv%d: %w", v, err)
		}
		g.ways[v] = w
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

// Close undoes all of it.
func (g *Gateway) Close() error {
	_, err := g.Sync(Wanted{})
	g.router.Close()
	g.handle.Close()
	return err
}

// Clean undoes what gateways have left that were killed; those of processes that
// live it leaves alone.
func Clean() error {
	g, err := Open()
	if err != nil {
		return err
	}
	defer g.Close()
	var all error
	for _, v := range []int{4, 6} {
		rules, err := ours(g.handle, v, isWay)
		if err == nil && len(rules) > 0 {
			err = g.cleanWay(v)
		}
		all = errors.Join(all, err)
	}
	marks, err := ours(g.handle, 4, isForwarding)
	if err == nil && len(marks) > 0 {
		err = g.cleanMasquerade()
	}
	return errors.Join(all, err)
}

func (g *Gateway) cleanWay(v int) error {
	w, err := g.openWay(v)
	if errors.Is(err, netcfg.ErrTaken) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove what a process has left: %w", err)
	}
	return w.close()
}

func (g *Gateway) cleanMasquerade() error {
	m, err := g.openMasquerade()
	if errors.Is(err, netcfg.ErrTaken) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove what a process has left: %w", err)
	}
	return m.close()
}
