package iface

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/rtnl"
)

// notRemoved is what RemoveOthers could not remove from an interface. It is not part of
// the Settings, so that Restore does not add it again.
type notRemoved struct{ addresses, routes []netip.Prefix }

// RemoveOthers removes those addresses and routes from the interface that are not in
// these lists. One that is already gone is no error. On an error, RemoveOthers still
// removes the others, and the next RemoveOthers tries again.
func (l *Link) RemoveOthers(addresses, routes []netip.Prefix) error {
	l.reclaim(addresses, routes)
	goneRoutes, keptRoutes := partition(l.set.Routes, routes)
	goneAddresses, keptAddresses := partition(l.set.Addresses, addresses)
	goneRoutes, goneAddresses = append(goneRoutes, l.notRemoved.routes...), append(goneAddresses, l.notRemoved.addresses...)
	l.notRemoved = notRemoved{}
	err := l.each(len(goneRoutes), func(b *rtnl.Builder, i int) { delRoute(b, l.route(goneRoutes[i])) }, func(i int, err error) error {
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		l.notRemoved.routes = append(l.notRemoved.routes, goneRoutes[i])
		return fmt.Errorf("remove route %v through %s: %w", goneRoutes[i], l.set.Name, err)
	})
	notRemoved, lost := l.removeAddresses(goneAddresses)
	l.notRemoved.addresses = notRemoved
	l.set.Routes, l.set.Addresses = keptRoutes, keptAddresses
	if l.missing != nil {
		_, l.missing.addresses = partition(l.missing.addresses, addresses)
		_, l.missing.routes = partition(l.missing.routes, routes)
	}
	return errors.Join(err, lost)
}

// reclaim returns to the Settings what RemoveOthers could not remove and is wanted again:
// the interface still has it.
func (l *Link) reclaim(addresses, routes []netip.Prefix) {
	var again []netip.Prefix
	l.notRemoved.routes, again = partition(l.notRemoved.routes, routes)
	l.set.Routes = slices.Concat(l.set.Routes, again)
	l.notRemoved.addresses, again = partition(l.notRemoved.addresses, addresses)
	l.set.Addresses = slices.Concat(l.set.Addresses, again)
}

// Add adds those of these addresses and routes that the interface does not have. On an
// error some may have been added; RemoveOthers removes them. If the interface is Missing
// something already, Add is AddPossible.
func (l *Link) Add(addresses, routes []netip.Prefix) error {
	if l.missing != nil {
		return l.AddPossible(addresses, routes)
	}
	if slices.Equal(l.set.Addresses, addresses) && slices.Equal(l.set.Routes, routes) {
		return nil
	}
	l.reclaim(addresses, routes)
	before := l.set
	l.set.Addresses = addresses
	var err error
	if !slices.Equal(before.Addresses, addresses) {
		err = errors.Join(l.setLinkLocal(), l.addAddresses())
	}
	lacking, kept := partition(routes, before.Routes)
	if err == nil {
		// With the last address of a family, the kernel removed all routes.
		l.set.Routes = kept
		_, err = l.restoreRoutes()
	}
	if err == nil {
		_, err = l.tryRoutes(lacking, func(error) bool { return false })
	}
	l.set.Routes = routes
	if err != nil { // an existing one may belong to another interface
		l.set.Routes = kept
		l.removeOwn(lacking)
	}
	return err
}

// removeOwn removes routes through the interface, if they exist.
func (l *Link) removeOwn(routes []netip.Prefix) {
	_ = l.each(len(routes), func(b *rtnl.Builder, i int) { delRoute(b, l.route(routes[i])) }, func(_ int, err error) error { return err })
}

// partition returns the elements of a list that are not in another list, and those that
// are.
func partition(list, in []netip.Prefix) (not, both []netip.Prefix) {
	set := make(map[netip.Prefix]bool, len(in))
	for _, p := range in {
		set[p] = true
	}
	for _, p := range list {
		if set[p] {
			both = append(both, p)
		} else {
			not = append(not, p)
		}
	}
	return not, both
}

// setLinkLocal adds a link-local address when the interface gets its first IPv6 address,
// and removes it with the last one, because the kernel adds one only when an interface
// comes up.
func (l *Link) setLinkLocal() error {
	want := l.set.wantsLinkLocal()
	if want == l.linkLocal {
		return nil
	}
	l.linkLocal = want
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index}}
	if want {
		// With a random identifier, as the kernel does for an interface without a
		// hardware address.
		a := [16]byte{0: 0xfe, 1: 0x80}
		for i := 8; i < len(a); i++ {
			a[i] = byte(rand.Uint32())
		}
		p := netip.PrefixFrom(netip.AddrFrom16(a), 64)
		if err := l.handle.AddrReplace(link, &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD, Scope: unix.RT_SCOPE_LINK}); err != nil {
			return explainAddress(l.set.Name, p, err)
		}
		return nil
	}
	_ = l.handle.LinkSetIP6AddrGenMode(link, addrGenModeNone) // as for a new interface
	list, err := l.handle.AddrList(link, unix.AF_INET6)
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", l.set.Name, err)
	}
	for _, a := range list {
		ip, _ := netip.AddrFromSlice(a.IP)
		if !ip.IsLinkLocalUnicast() || l.configured(ip) {
			continue
		}
		if err := l.handle.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove address %v from %s: %w", ip, l.set.Name, err)
		}
	}
	return nil
}
