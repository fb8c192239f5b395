package config

import (
	"net/netip"
	"runtime"
	"slices"
)

// MaxQueues is the most queues that a tunnel has if the configuration does not set their
// number.
const MaxQueues = 4

// QueuesOf returns the number of queues of the tunnel, which is one of n tunnels. If it is
// not configured, it is one for every two processors: each queue needs two goroutines, and on
// two processors a second queue reduced the throughput by a tenth when measured. With many
// tunnels one queue each keeps all processors busy, and a second queue costs the kernel
// megabytes. It is one if the order of packets must be kept.
func (t *Tunnel) QueuesOf(n int) int {
	switch {
	case t.InOrder():
		return 1
	case t.Queues != 0:
		return t.Queues
	}
	return max(1, min(runtime.NumCPU()/2/n, MaxQueues))
}

// HasIPv6 reports whether the interface carries IPv6, and so needs an MTU of at least 1280
// bytes. An interface that carries only IPv6 need not have an address yet: it may learn
// one.
func (t *Tunnel) HasIPv6() bool {
	return !t.Mode.Carries(4) || t.Has6()
}

// Has6 reports whether the interface has addresses or routes of IPv6.
func (i *Interface) Has6() bool {
	is6 := func(p netip.Prefix) bool { return p.Addr().Is6() }
	return slices.ContainsFunc(i.Address, is6) || slices.ContainsFunc(i.Routes, is6)
}

// Encapsulations returns one path of each encapsulation of the tunnel.
func (t *Tunnel) Encapsulations() (one []Path) {
	for _, p := range t.AllPaths() {
		if !slices.ContainsFunc(one, func(o Path) bool { return o.Encap == p.Encap }) {
			one = append(one, *p)
		}
	}
	return one
}
