// Package iface makes the TUN interface of a tunnel, with its addresses and routes, and
// keeps them as they should be.
package iface

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/netns"
	"sixfour/internal/rtnl"
	"sixfour/tun"
)

// alias marks an interface as made by this program; "ip link" shows it. A later run
// recognizes leftovers by it.
const alias = "sixfour tunnel"

// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addrGenModeNone = 1

// Settings are the properties that a new interface gets.
type Settings struct {
	Name      string
	Namespace string // name or path; "": the process's own
	MTU       int
	Addresses []netip.Prefix // with an IPv6 link-local address, the kernel adds none itself
	Routes    []netip.Prefix
	Queues    int // at least 1
	// NoLinkLocal keeps the kernel from adding an IPv6 link-local address. On an
	// automatic tunnel, neighbours could not find such an address; an interface with
	// several peers has no use for one either.
	NoLinkLocal bool
	Offload     tun.Offload
	// QueueLength is how many packets can wait in each queue of a new interface; 0: the
	// kernel's default.
	QueueLength int
	// Descriptors are the descriptors of the queues of an interface that another process
	// has made. If they fit, Open keeps the interface, with the addresses and routes that
	// are correct.
	Descriptors []int
	// Partial makes Open succeed even if the kernel refuses some of the addresses and
	// routes: Missing returns which, and AddMissing tries them again.
	Partial bool
	// NoWait makes Open fail at once if another process has the interface. Otherwise
	// Open waits for a moment.
	NoWait bool
}

// Link is a TUN interface with its addresses and routes, and its open device. The kernel
// removes all of it when the device is closed. It is not safe for concurrent use.
type Link struct {
	Device  *tun.Device
	set     Settings
	index   int
	handle  *netlink.Handle // in the interface's namespace
	conn    *rtnl.Conn      // in the same namespace
	learned learned

	linkLocal bool // the interface has the address of wantsLinkLocal
	adopted   bool // the interface is that of Settings.Descriptors

	program    int  // of SetRouteProgram
	unprepared bool // the kernel may have added routes without it

	namespace  netns.ID
	missing    *missing   // nil: the interface has all addresses and routes
	notRemoved notRemoved // what the kernel did not let RemoveOthers remove
}

// CheckName returns an error if a new interface cannot have the name because an
// interface that is not ours has it. An interface of ours is no error: either a running
// process holds it, and Open will say so, or it is a leftover, which Open replaces.
func CheckName(namespace, name string) error {
	return netns.In(namespace, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer h.Close()
		_, err = find(h, name)
		return err
	})
}

// find looks up an interface of ours. It returns nil if the name is free.
func find(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look up interface %s: %w", name, err)
	case link.Type() != "tun" && link.Type() != "tuntap", !strings.HasPrefix(link.Attrs().Alias, alias):
		return nil, fmt.Errorf("an interface %s exists (type %s) and was not made by sixfour: choose another name, or delete it (ip link delete %s)", name, link.Type(), name)
	}
	return link, nil
}

// busyWait is how long Open waits for an ending process to release its interface: the
// kernel removes a TUN device only after the process has ended.
const busyWait = 2 * time.Second

// Open makes the interface, configures it as s says, and brings it up. It replaces an
// interface of the same name that we made and that no process holds. On an error it
// removes everything again.
func Open(s Settings) (*Link, error) {
	var l *Link
	err := netns.Do(s.Namespace, func(id netns.ID) (err error) {
		l, err = open(s, id)
		return err
	})
	return l, err
}

func open(s Settings, id netns.ID) (*Link, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	c, err := rtnl.Dial()
	if err != nil {
		h.Close()
		return nil, err
	}
	l := &Link{set: s, handle: h, conn: c, namespace: id}
	if l.adopt() {
		err = l.reconcile()
	} else if err = l.make(); err == nil {
		err = l.configure()
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// make creates the device.
func (l *Link) make() error {
	for deadline := time.Now().Add(busyWait); ; time.Sleep(50 * time.Millisecond) {
		stale, err := find(l.handle, l.set.Name)
		if err == nil && stale != nil {
			err = removeStale(stale)
		}
		if err == nil {
			l.Device, err = tun.Open(tun.Settings{Name: l.set.Name, MTU: l.set.MTU, Queues: l.set.Queues, Offload: l.set.Offload})
		}
		switch {
		case errors.Is(err, tun.ErrBusy) && !l.set.NoWait && time.Now().Before(deadline):
		case errors.Is(err, tun.ErrBusy):
			return fmt.Errorf("interface %w: is another sixfourd running with the same tunnel? (fuser -v /dev/net/tun)", err)
		default:
			return err
		}
	}
}

// removeStale removes an interface of ours that no process holds, with its addresses and
// routes, which may be those of another configuration. The error is tun.ErrBusy if a
// process holds it.
func removeStale(stale netlink.Link) error {
	name, queues := stale.Attrs().Name, 1
	// It can be opened only with the flags with which it was made. A single queue can be
	// attached only once, but another queue can be added to several.
	if t, ok := stale.(*netlink.Tuntap); ok && t.Flags&netlink.TUNTAP_MULTI_QUEUE != 0 {
		if t.Queues+t.DisabledQueues > 0 {
			return fmt.Errorf("%s: %w", name, tun.ErrBusy)
		}
		queues = 2
	}
	dev, err := tun.Open(tun.Settings{Name: name, MTU: stale.Attrs().MTU, Queues: queues})
	if err != nil {
		return err
	}
	if err := dev.Close(); err != nil {
		return fmt.Errorf("remove the stale interface %s: %w", name, err)
	}
	return nil
}

// configure sets the new interface's alias, addresses and routes.
func (l *Link) configure() error {
	s := l.set
	link, err := l.handle.LinkByName(s.Name)
	if err != nil {
		return fmt.Errorf("look up interface %s: %w", s.Name, err)
	}
	l.index = link.Attrs().Index
	if err := l.handle.LinkSetAlias(link, alias); err != nil {
		return fmt.Errorf("mark interface %s: %w", s.Name, err)
	}
	if l.linkLocal = s.wantsLinkLocal(); !l.linkLocal {
		// The setting does not exist if IPv6 is off; that is no error.
		_ = l.handle.LinkSetIP6AddrGenMode(link, addrGenModeNone)
	}
	if s.QueueLength != 0 {
		if err := l.handle.LinkSetTxQLen(link, s.QueueLength); err != nil {
			return fmt.Errorf("set the queue length of %s to %d: %w", s.Name, s.QueueLength, err)
		}
	}
	l.missing = &missing{addresses: s.Addresses, routes: s.Routes}
	l.addMissingAddresses()
	if err := l.missing.err; err != nil && !s.Partial {
		return err
	}
	if err := l.bringUp(link); err != nil {
		return err
	}
	if err := l.addMissingRoutes(); !s.Partial {
		return err
	}
	return nil
}

func (l *Link) bringUp(link netlink.Link) error {
	if err := l.handle.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring interface %s up: %w", l.set.Name, err)
	}
	return nil
}

// addAddresses adds the addresses, or corrects the flags of existing ones.
func (l *Link) addAddresses() error {
	for _, p := range l.present().Addresses {
		if err := l.addAddress(p); err != nil {
			return err
		}
	}
	return nil
}

func (l *Link) addAddress(p netip.Prefix) error {
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index}}
	if err := l.handle.AddrReplace(link, &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD}); err != nil {
		return explainAddress(l.set.Name, p, err)
	}
	l.unprepared = true
	return nil
}

// Restored counts the addresses and routes of an interface that were missing.
type Restored struct{ Addresses, Routes int }

// Restore adds the missing addresses and routes of the interface. The kernel removes the
// routes and the IPv6 addresses when an interface goes down, and does not restore them;
// and other processes may remove any.
func (l *Link) Restore() (r Restored, err error) {
	has, err := l.addresses()
	if err != nil {
		return r, err
	}
	connected, err := l.restoreConnected(has)
	if err != nil {
		return r, err
	}
	if err := l.addAddresses(); err != nil {
		return r, err
	}
	for _, p := range l.present().Addresses {
		if !slices.Contains(has, p) {
			r.Addresses++
		}
	}
	r.Routes, err = l.restoreRoutes()
	r.Routes += connected
	if err != nil {
		return r, err
	}
	return r, l.addLearned()
}

// addresses returns the addresses of the interface.
func (l *Link) addresses() ([]netip.Prefix, error) {
	list, err := l.handle.AddrList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index}}, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", l.set.Name, err)
	}
	var has []netip.Prefix
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && a.Flags&unix.IFA_F_NOPREFIXROUTE == 0 {
			ones, _ := a.Mask.Size()
			has = append(has, netip.PrefixFrom(ip.Unmap(), ones))
		}
	}
	return has, nil
}

// wantsLinkLocal reports whether the interface needs a link-local address that is not in
// the Settings.
func (s *Settings) wantsLinkLocal() bool { return !s.NoLinkLocal && automatic(s.Addresses) }

// automatic reports whether the kernel may add a link-local address to the interface. An
// IPv4 tunnel should not send router solicitations and multicast listener reports to its
// peer. If the configuration has a link-local address, that one must be used: a peer
// that expects an embedded IPv4 address (RFC 5214 section 6.1) drops packets from any
// other.
func automatic(given []netip.Prefix) bool {
	return slices.ContainsFunc(given, func(p netip.Prefix) bool { return p.Addr().Is6() }) &&
		!slices.ContainsFunc(given, func(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() && p.Addr().Is6() })
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func explainAddress(name string, p netip.Prefix, err error) error {
	if p.Addr().Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)) {
		return fmt.Errorf("add address %v to %s: %w: IPv6 is disabled here (sysctl net.ipv6.conf.all.disable_ipv6, kernel option ipv6.disable): enable it, or remove the address from the configuration", p, name, err)
	}
	return fmt.Errorf("add address %v to %s: %w", p, name, err)
}

// SetMTU changes the interface's MTU.
func (l *Link) SetMTU(mtu int) error {
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index}}
	if err := l.handle.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set MTU of %s to %d: %w", l.set.Name, mtu, err)
	}
	return nil
}

// ErrGone means that the interface was deleted.
var ErrGone = errors.New("it was deleted")

// IsUp reports whether the interface is administratively up. The error is ErrGone if the
// interface does not exist any more.
func (l *Link) IsUp() (bool, error) {
	link, err := l.handle.LinkByIndex(l.index)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		err = ErrGone
	}
	if err != nil {
		return false, fmt.Errorf("look up interface %s: %w", l.set.Name, err)
	}
	return link.Attrs().Flags&net.FlagUp != 0, nil
}

// Namespace returns the identity of the namespace in which the interface was made.
func (l *Link) Namespace() netns.ID { return l.namespace }

// Index returns the interface's index in its namespace.
func (l *Link) Index() int { return l.index }

// Close closes the device. The kernel removes the interface with its addresses and
// routes, unless another process has copies of the descriptors.
func (l *Link) Close() error {
	l.handle.Close()
	l.conn.Close()
	if l.Device == nil {
		return nil
	}
	return l.Device.Close()
}
