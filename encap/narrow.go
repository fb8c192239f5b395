package encap

import (
	"maps"
	"sync/atomic"
	"time"
)

// narrow are the destinations of an automatic tunnel to which the path has a
// smaller MTU than the first hop: those that routers have told of.
type narrow struct {
	paths atomic.Pointer[map[uint32]narrowPath] // replaced as a whole; nil: there are none
}

type narrowPath struct {
	mtu   PathMTU
	until time.Time
}

const (
	// maxNarrow bounds what routers, and whoever poses as one, can make us
	// remember.
	maxNarrow = 1024
	// narrowLife is how long a smaller MTU holds before it is tried whether there
	// is more (RFC 1191 section 6.3, RFC 8201 section 4).
	narrowLife = 10 * time.Minute
)

// Narrow notes that packets to an outer IPv4 destination may have mtu bytes. It
// and Widen are called by one goroutine at a time.
func (r *Record) Narrow(dst uint32, mtu PathMTU, now time.Time) {
	paths := make(map[uint32]narrowPath)
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

// oldest is the destination that was told of longest ago: were those that there are
// to stay, whoever fills the table with forgeries could keep all others out.
func oldest(paths map[uint32]narrowPath) (dst uint32) {
	var until time.Time
	for d, p := range paths {
		if until.IsZero() || p.until.Before(until) {
			dst, until = d, p.until
		}
	}
	return dst
}

// Widen forgets what was noted too long ago.
func (r *Record) Widen(now time.Time) {
	old := r.narrow.paths.Load()
	if old == nil {
		return
	}
	paths := maps.Clone(*old)
	maps.DeleteFunc(paths, func(_ uint32, p narrowPath) bool { return now.After(p.until) })
	if len(paths) == 0 {
		r.narrow.paths.Store(nil)
	} else if len(paths) != len(*old) {
		r.narrow.paths.Store(&paths)
	}
}

// mtuTo is the path MTU to a destination, if it is a narrow one; 0 otherwise.
func (r *Record) mtuTo(dst uint32) PathMTU {
	if paths := r.narrow.paths.Load(); paths != nil {
		return (*paths)[dst].mtu
	}
	return 0
}
