package encap

import (
	"maps"
	"net/netip"
	"sync/atomic"
	"time"

	"sixfour/encap/resolve"
)

// destMTUs holds the destinations of an automatic tunnel whose path MTU, as routers
// reported it, is smaller than the MTU of the first hop.
type destMTUs struct {
	paths atomic.Pointer[map[netip.Addr]destMTU] // replaced as a whole; nil: there are none
}

type destMTU struct {
	mtu   PathMTU
	until time.Time
}

const (
	// maxDestMTUs bounds how many destinations routers, or forged messages, can make us
	// remember.
	maxDestMTUs = 1024
	// destMTULife is how long a smaller MTU is used before a larger one is tried again
	// (RFC 1191 section 6.3, RFC 8201 section 4).
	destMTULife = 10 * time.Minute
)

// SetMTU records that the path MTU to an outer destination is mtu bytes. SetMTU and
// ExpireMTUs must not be called concurrently.
func (r *Record) SetMTU(dst netip.Addr, mtu PathMTU, now time.Time) {
	paths := make(map[netip.Addr]destMTU)
	if old := r.destMTUs.paths.Load(); old != nil {
		maps.Copy(paths, *old)
	}
	if before, ok := paths[dst]; ok && before.mtu < mtu {
		return
	} else if !ok && len(paths) >= maxDestMTUs {
		delete(paths, oldest(paths))
	}
	paths[dst] = destMTU{mtu, now.Add(destMTULife)}
	r.destMTUs.paths.Store(&paths)
}

// oldest returns the destination whose entry is the oldest. The oldest entry is the one
// to replace: otherwise forged messages could fill the table and keep all others out.
func oldest(paths map[netip.Addr]destMTU) (dst netip.Addr) {
	var until time.Time
	for d, p := range paths {
		if until.IsZero() || p.until.Before(until) {
			dst, until = d, p.until
		}
	}
	return dst
}

// ExpireMTUs removes the entries that are older than destMTULife.
func (r *Record) ExpireMTUs(now time.Time) {
	old := r.destMTUs.paths.Load()
	if old == nil {
		return
	}
	paths := maps.Clone(*old)
	maps.DeleteFunc(paths, func(_ netip.Addr, p destMTU) bool { return now.After(p.until) })
	if len(paths) == 0 {
		r.destMTUs.paths.Store(nil)
	} else if len(paths) != len(*old) {
		r.destMTUs.paths.Store(&paths)
	}
}

// empty reports whether there are no destinations. It is inlined where mtuTo is not.
func (d *destMTUs) empty() bool { return d.paths.Load() == nil }

// mtuTo returns the path MTU that was recorded for a destination, or 0 if there is none.
func (r *Record) mtuTo(dst resolve.Endpoint) PathMTU {
	if paths := r.destMTUs.paths.Load(); paths != nil {
		return (*paths)[dst.Addr()].mtu
	}
	return 0
}
