package encap

import (
	"maps"
	"net/netip"
	"sixfour/encap/resolve"
	"sync/atomic"
	"time"
)

// narrow holds the destinations of an automatic tunnel whose path MTU, as routers
// reported it, is smaller than the MTU of the first hop.
type narrow struct {
	paths atomic.Pointer[map[netip.Addr]narrowPath] // replaced as a whole; nil: there are none
}

type narrowPath struct {
	mtu   PathMTU
	until time.Time
}

const (
	// maxNarrow bounds how many destinations routers, or forged messages, can make us
	// remember.
	maxNarrow = 1024
	// narrowLife is how long a smaller MTU is used before a larger one is tried again
	// (RFC 1191 section 6.3, RFC 8201 section 4).
	narrowLife = 10 * time.Minute
)

// Narrow records that the path MTU to an outer destination is mtu bytes. Narrow and
// Widen must not be called concurrently.
func (r *Record) Narrow(dst netip.Addr, mtu PathMTU, now time.Time) {
	paths := make(map[netip.Addr]narrowPath)
	if old := r.narrow.paths.Load(); old != nil {
		maps.Copy(paths, *old)
	}
	if before, ok := paths[dst]; ok && before.mtu < mtu {
		return
	} else if !ok && len(paths) >= maxNarrow {
		delete(paths, oldest(paths))
	}
	paths[dst] = narrowPath{mtu, now.Add(narrowLife)}
	r.narrow.paths.Store(&paths)
}

// oldest returns the destination whose entry is the oldest. The oldest entry is the one
// to replace: otherwise forged messages could fill the table and keep all others out.
func oldest(paths map[netip.Addr]narrowPath) (dst netip.Addr) {
	var until time.Time
	for d, p := range paths {
		if until.IsZero() || p.until.Before(until) {
			dst, until = d, p.until
		}
	}
	return dst
}

// Widen removes the entries that are older than narrowLife.
func (r *Record) Widen(now time.Time) {
	old := r.narrow.paths.Load()
	if old == nil {
		return
	}
	paths := maps.Clone(*old)
	maps.DeleteFunc(paths, func(_ netip.Addr, p narrowPath) bool { return now.After(p.until) })
	if len(paths) == 0 {
		r.narrow.paths.Store(nil)
	} else if len(paths) != len(*old) {
		r.narrow.paths.Store(&paths)
	}
}

// mtuTo returns the path MTU that was recorded for a destination, or 0 if there is none.
func (r *Record) mtuTo(dst resolve.Endpoint) PathMTU {
	if paths := r.narrow.paths.Load(); paths != nil {
		return (*paths)[dst.Addr()].mtu
	}
	return 0
}
