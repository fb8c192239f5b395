// Package names follows the addresses of DNS names.
//
// A Resolver looks a name up again and again. A Remote is the remote end of a path that is
// given by a name: of the addresses of the name it uses one, as long as the name has it and
// it is not found to be dead.
package names

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"sixfour/internal/config"
)

const (
	// interval is how often a name is looked up again. Records of hosts with changing
	// addresses have short TTLs, but package net does not report them.
	interval = 5 * time.Minute
	// retry is the pause after a failed look-up.
	retry = 5 * time.Second
	// concurrent limits concurrent look-ups.
	concurrent = 16
)

// Resolver looks names up, a limited number at a time. Any goroutine may use it.
type Resolver struct {
	net     *net.Resolver
	looking chan struct{} // limits concurrent look-ups
}

// NewResolver returns a Resolver that sends its queries through r.
func NewResolver(r *net.Resolver) *Resolver {
	return &Resolver{net: r, looking: make(chan struct{}, concurrent)}
}

// Follow looks up a name until ctx ends. It calls found with the result of the first look-up,
// which is empty if that failed, and with each change of the addresses; another order of the
// same addresses is none. They are in the order of RFC 6724, in which they are to be tried, and
// found may keep them. The network is "ip4" or "ip6". A value from doubt means that the
// addresses may be wrong: the name is looked up soon.
func (r *Resolver) Follow(ctx context.Context, network, name string, doubt <-chan struct{}, found func(context.Context, []netip.Addr)) {
	var known []netip.Addr
	for first := true; ; first = false {
		wait, looked := retry, time.Now()
		addrs := r.lookUp(ctx, network, name)
		if len(addrs) > 0 {
			wait = interval
		}
		if first || len(addrs) > 0 && !sameSet(addrs, known) {
			known = addrs
			found(ctx, addrs)
		}
		select {
		case <-time.After(wait):
		case <-doubt:
			select {
			case <-time.After(time.Until(looked.Add(retry))):
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// sameSet reports whether two lists have the same addresses, in any order: name servers change
// it from answer to answer.
func sameSet(a, b []netip.Addr) bool {
	sorted := func(list []netip.Addr) []netip.Addr {
		return slices.SortedFunc(slices.Values(list), netip.Addr.Compare)
	}
	return len(a) == len(b) && slices.Equal(sorted(a), sorted(b))
}

// lookUp returns a name's addresses, in the order of RFC 6724; none if the look-up fails.
func (r *Resolver) lookUp(ctx context.Context, network, name string) []netip.Addr {
	select {
	case r.looking <- struct{}{}:
		defer func() { <-r.looking }()
	case <-ctx.Done():
		return nil
	}
	addrs, err := r.net.LookupNetIP(ctx, network, name)
	if err != nil {
		return nil
	}
	return usable(addrs)
}

// usable returns the addresses that an end of a tunnel can have, each once. A name server
// that blocks a name may answer 0.0.0.0, which the kernel would send to this host.
func usable(addrs []netip.Addr) (all []netip.Addr) {
	for _, a := range addrs {
		if a = a.Unmap(); a.Zone() == "" && config.NotUnicast(a) == "" && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}
