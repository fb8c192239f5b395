package iface

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/rtnl"
)

// Lease is an IPv6 address in a prefix that a router advertised, with the length of the
// prefix, which is on the link. From the time at which it is learned it may be used for
// new connections for Preferred, and for all connections for Valid (RFC 4862 section
// 5.5.4). A time of 1<<32-1 seconds or more never ends.
type Lease struct {
	Prefix    netip.Prefix
	Preferred time.Duration
	Valid     time.Duration
}

// learned is what Learn has added to an interface.
type learned struct {
	leases            []Lease
	since             time.Time
	defaultRoute      bool
	mtu               int
	defaultNotRemoved bool // the kernel did not let Learn remove a default route
}

// learnedMetric is the metric of a learned default route. A default route that does not
// use a tunnel is preferred: its metric is at most 2048.
const learnedMetric = 4096

// minLinkMTU is the smallest MTU that a router may advertise (RFC 4861 section 6.3.4).
const minLinkMTU = 1280

// defaultRoute6 is ::/0.
var defaultRoute6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)

// Learn adds the advertised addresses and, if defaultRoute is set, a default route ::/0
// to the interface. The route has the advertised MTU, if that is at least 1280. Learn
// removes addresses that it added before and that are not in the list any more. An
// address that is also in the Settings is not changed. The kernel removes an address
// when it is no longer valid, and everything with the interface. On an error, Learn
// still makes the other changes, and the next Learn removes a default route that stayed.
func (l *Link) Learn(addresses []Lease, defaultRoute bool, mtu int) error {
	var leases []Lease
	wanted := make(map[netip.Prefix]bool)
	for _, a := range addresses {
		if !a.Prefix.Addr().Is6() {
			return fmt.Errorf("interface %s: learn address %v: not IPv6", l.set.Name, a.Prefix)
		}
		if a.Valid > 0 && !wanted[a.Prefix] && !l.configured(a.Prefix.Addr()) {
			wanted[a.Prefix] = true
			leases = append(leases, a)
		}
	}
	var gone []netip.Prefix
	for _, a := range l.learned.leases {
		if !wanted[a.Prefix] {
			gone = append(gone, a.Prefix)
		}
	}
	if mtu < minLinkMTU {
		mtu = 0
	}
	_, err := l.removeAddresses(gone) // they expire
	err = errors.Join(err, l.removePrefixes(gone, leases))
	stuck := false
	if l.learned.defaultNotRemoved || l.learned.defaultRoute && (!defaultRoute || mtu != l.learned.mtu) {
		lost := l.removeDefault()
		stuck, err = lost != nil, errors.Join(err, lost)
	}
	l.learned = learned{leases: leases, since: time.Now(), defaultRoute: defaultRoute, mtu: mtu, defaultNotRemoved: stuck}
	return errors.Join(err, l.addLearned())
}

// configured reports whether an address is one of the Settings.
func (l *Link) configured(a netip.Addr) bool {
	for _, p := range l.set.Addresses {
		if p.Addr() == a {
			return true
		}
	}
	return false
}

// addLearned adds what is learned to the interface, if it is not there yet.
func (l *Link) addLearned() error {
	if len(l.learned.leases) == 0 && !l.learned.defaultRoute {
		return nil
	}
	var leases []Lease
	age := time.Since(l.learned.since)
	for _, a := range l.learned.leases {
		if a.Valid > age {
			leases = append(leases, a)
		}
	}
	err := l.each(len(leases), func(b *rtnl.Builder, i int) { newAddress(b, l.index, leases[i], age) },
		func(i int, err error) error { return explainAddress(l.set.Name, leases[i].Prefix, err) })
	if !l.learned.defaultRoute {
		return err
	}
	// An existing route with that metric, which may belong to another tunnel, is neither
	// replaced nor a reason to fail.
	return errors.Join(err, l.each(1, func(b *rtnl.Builder, _ int) { newRoute(b, l.defaultRoute(), unix.NLM_F_CREATE|unix.NLM_F_APPEND) },
		func(_ int, err error) error {
			if errors.Is(err, unix.EEXIST) {
				return nil
			}
			return explainRoute(l.set.Name, defaultRoute6, err)
		}))
}

// removeAddresses also returns the addresses that the kernel did not let it remove.
func (l *Link) removeAddresses(gone []netip.Prefix) (left []netip.Prefix, err error) {
	err = l.each(len(gone), func(b *rtnl.Builder, i int) { delAddress(b, l.index, gone[i]) }, func(i int, err error) error {
		if errors.Is(err, unix.EADDRNOTAVAIL) { // no longer valid, or the interface was down
			return nil
		}
		left = append(left, gone[i])
		return fmt.Errorf("remove address %v from %s: %w", gone[i], l.set.Name, err)
	})
	return left, err
}

// removePrefixes removes the routes that the kernel has added with addresses that are gone, but
// does not remove with one that would have expired. Those of the leases and Settings stay.
func (l *Link) removePrefixes(gone []netip.Prefix, leases []Lease) error {
	const addrconf = 256 // IP6_RT_PRIO_ADDRCONF, the metric of these routes
	needed := make(map[netip.Prefix]bool)
	for _, a := range leases {
		needed[a.Prefix.Masked()] = true
	}
	for _, p := range l.set.Addresses {
		needed[p.Masked()] = true
	}
	gone = slices.DeleteFunc(slices.Clone(gone), func(p netip.Prefix) bool { return needed[p.Masked()] })
	return l.each(len(gone), func(b *rtnl.Builder, i int) {
		delRoute(b, linkRoute{dst: gone[i].Masked(), index: l.index, protocol: unix.RTPROT_KERNEL, metric: addrconf})
	}, func(i int, err error) error {
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return fmt.Errorf("remove route %v through %s: %w", gone[i].Masked(), l.set.Name, err)
	})
}

func (l *Link) removeDefault() error {
	return l.each(1, func(b *rtnl.Builder, _ int) { delRoute(b, l.defaultRoute()) }, func(_ int, err error) error {
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return fmt.Errorf("remove route %v through %s: %w", defaultRoute6, l.set.Name, err)
	})
}

func (l *Link) defaultRoute() linkRoute {
	return linkRoute{dst: defaultRoute6, index: l.index, protocol: unix.RTPROT_RA, metric: learnedMetric, mtu: l.learned.mtu}
}

// each makes n changes. It joins the errors that explain returns for their errors.
func (l *Link) each(n int, build func(b *rtnl.Builder, i int), explain func(i int, err error) error) (all error) {
	l.conn.Exchange(n, build, func(i int, _ []byte, err error) {
		if err != nil {
			all = errors.Join(all, explain(i, err))
		}
	})
	return all
}

// newAddress adds an address to an interface, or changes its lifetimes, which began to
// run at the given age. There is no duplicate address detection, because the link has no
// multicast.
func newAddress(b *rtnl.Builder, index int, a Lease, age time.Duration) {
	addressOf(b, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, a.Prefix)
	valid := seconds(a.Valid, age)
	var times []byte // linux/if_addr.h: struct ifa_cacheinfo
	times = binary.NativeEndian.AppendUint32(times, min(seconds(a.Preferred, age), valid))
	times = binary.NativeEndian.AppendUint32(times, valid)
	b.Attribute(unix.IFA_CACHEINFO, append(times, make([]byte, 8)...))
}

func delAddress(b *rtnl.Builder, index int, p netip.Prefix) {
	addressOf(b, unix.RTM_DELADDR, 0, index, p)
}

// addressOf writes the part that requests for addresses have in common (linux/if_addr.h:
// struct ifaddrmsg).
func addressOf(b *rtnl.Builder, kind, flags uint16, index int, p netip.Prefix) {
	h := [unix.SizeofIfAddrmsg]byte{rtnl.Family(p.Addr()), uint8(p.Bits()), unix.IFA_F_NODAD}
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	b.Begin(kind, flags|unix.NLM_F_ACK, h[:])
	b.Address(unix.IFA_LOCAL, p.Addr())
}

// seconds returns what is left of a time, rounded up, so that a time that has not ended
// yet has at least one second.
func seconds(d, age time.Duration) uint32 {
	if d >= math.MaxUint32*time.Second {
		return math.MaxUint32
	}
	return uint32((max(0, d-age) + time.Second - 1) / time.Second)
}
