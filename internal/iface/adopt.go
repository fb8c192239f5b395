package iface

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/tun"
)

// adopt takes over an interface that another process has made, and reports whether one
// of the Settings fits. An interface that does not fit is removed, because its name may
// be needed.
func (l *Link) adopt() bool {
	if len(l.set.Descriptors) == 0 {
		return false
	}
	link, err := find(l.handle, l.set.Name)
	if err != nil || link == nil || !strings.HasPrefix(link.Attrs().Alias, alias) {
		return false
	}
	fds := l.set.Descriptors
	s := tun.Settings{Name: l.set.Name, MTU: l.set.MTU, Queues: l.set.Queues, Offload: l.set.Offload}
	if l.Device, err = tun.Adopt(fds, s); err != nil {
		l.Device = nil
		if l.owns(fds) {
			_ = l.handle.LinkDel(link)
		}
		return false
	}
	l.index, l.adopted = link.Attrs().Index, true
	return true
}

// owns reports whether descriptors belong to an interface of the configured name in the
// configured namespace, whatever its settings.
func (l *Link) owns(fds []int) bool {
	for _, fd := range fds {
		if tun.Is(fd, l.set.Name) {
			return true
		}
	}
	return false
}

// reconcile changes an adopted interface as the Settings require. It does not touch what
// is already right.
func (l *Link) reconcile() error {
	link, err := l.handle.LinkByIndex(l.index)
	if err != nil {
		return fmt.Errorf("look up interface %s: %w", l.set.Name, err)
	}
	if link.Attrs().MTU != l.set.MTU {
		if err := l.SetMTU(l.set.MTU); err != nil {
			return err
		}
	}
	want := l.set
	if err := l.readAddresses(); err != nil {
		return err
	}
	if err := l.readRoutes(); err != nil {
		return err
	}
	if err := l.RemoveOthers(want.Addresses, want.Routes); err != nil {
		return err
	}
	if err := l.bringUp(link); err != nil {
		return err
	}
	if l.set.Partial {
		_ = l.AddPossible(want.Addresses, want.Routes) // Missing returns the error
		return l.setLinkLocal()
	}
	return errors.Join(l.Add(want.Addresses, want.Routes), l.setLinkLocal())
}

// readAddresses sets l.set to the addresses that the interface has, except for those
// that the kernel added by itself and those that were learned, which will be learned
// again.
func (l *Link) readAddresses() error {
	list, err := l.handle.AddrList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index}}, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", l.set.Name, err)
	}
	wanted := l.set
	l.set.Addresses = nil
	l.learned.since = time.Now()
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		ones, _ := a.Mask.Size()
		p := netip.PrefixFrom(ip.Unmap(), ones)
		switch {
		case a.Flags&unix.IFA_F_PERMANENT == 0:
			valid, preferred := time.Duration(a.ValidLft)*time.Second, time.Duration(a.PreferedLft)*time.Second
			l.learned.leases = append(l.learned.leases, Lease{Prefix: p, Valid: valid, Preferred: preferred})
		case ip.IsLinkLocalUnicast() && !wanted.has(p):
			l.linkLocal = true // setLinkLocal removes it if it must not exist
		default:
			l.set.Addresses = append(l.set.Addresses, p)
		}
	}
	return nil
}

func (s *Settings) has(p netip.Prefix) bool {
	for _, a := range s.Addresses {
		if a == p {
			return true
		}
	}
	return false
}

// readRoutes sets l.set to the routes through the interface, except for a default route
// that was learned.
func (l *Link) readRoutes() error {
	filter := &netlink.Route{LinkIndex: l.index, Table: unix.RT_TABLE_MAIN}
	list, err := l.handle.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list the routes through %s: %w", l.set.Name, err)
	}
	l.set.Routes = nil
	for _, r := range list {
		p := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.Family == unix.AF_INET6 {
			p = defaultRoute6
		}
		if r.Dst != nil {
			ip, _ := netip.AddrFromSlice(r.Dst.IP)
			ones, _ := r.Dst.Mask.Size()
			p = netip.PrefixFrom(ip.Unmap(), ones)
		}
		switch {
		case r.Protocol == unix.RTPROT_BOOT:
			l.set.Routes = append(l.set.Routes, p)
		case r.Protocol == unix.RTPROT_RA && p == defaultRoute6 && r.Priority == learnedMetric:
			l.learned.defaultRoute, l.learned.mtu = true, r.MTU
		}
	}
	return nil
}

// Adopted reports whether another process has made the interface.
func (l *Link) Adopted() bool { return l.adopted }

// Delete removes the interface even if other processes have its descriptors. Close must
// still be called.
func (l *Link) Delete() error {
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index}}
	if err := l.handle.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface %s: %w", l.set.Name, err)
	}
	return nil
}
