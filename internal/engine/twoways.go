package engine

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// twoWays notices when a peer's packets arrive in two ways. An XDP filter leaves outer
// fragments to the kernel: what it makes of them arrives at a socket, which another
// goroutine reads than the one of the AF_XDP port, so that the packets of a flow overtake
// each other. All packets of such a peer then come through the socket for a while.
type twoWays struct {
	taken atomic.Int64 // when a filter began to take the peer's packets, since epoch; 0: none does
	seen  atomic.Bool  // a packet came through a socket nevertheless

	// Of the control loop.
	until time.Time     // packets come through the socket; zero: as the filter can
	pause time.Duration // how long that was the last time
}

const (
	// takenGrace is how long packets may wait in the socket that came before the filter
	// took any.
	takenGrace = 200 * time.Millisecond
	// After each pause it is tried whether there are no fragments any more.
	leastPause = time.Minute
	mostPause  = time.Hour
)

// note is called for a packet that came through a socket though a filter takes the
// peer's, and reports whether that is news for the control loop.
func (w *twoWays) note() bool {
	since := time.Since(epoch) - time.Duration(w.taken.Load())
	return since > takenGrace && !w.seen.Load() && !w.seen.Swap(true)
}

// parted brings the peer's way in line with what was noted, and reports whether the
// filter is to take other packets now.
func (p *peer) parted(now time.Time) bool {
	w := &p.ways
	if w.seen.Swap(false) && w.taken.Load() != 0 {
		w.pause = min(max(2*w.pause, leastPause), mostPause)
		w.until = now.Add(w.pause)
		p.log().Info("packets arrive through a socket, not through AF_XDP: some are fragments, and would be overtaken by others", zap.Duration("for", w.pause))
		return true
	}
	if !w.until.IsZero() && now.After(w.until) {
		w.until = time.Time{}
		return true
	}
	return false
}

// mayBeTaken reports whether the peer's packets may arrive past the socket. With a
// static path MTU both ends cut what is too large for the path.
func (p *peer) mayBeTaken() bool {
	r := p.registered
	return r != nil && r.hop.port != nil && !r.options.StaticMTU && p.ways.until.IsZero()
}

// isTaken notes whether a filter takes the peer's packets.
func (p *peer) isTaken(taken bool) {
	if w := &p.ways; !taken {
		w.taken.Store(0)
	} else if w.taken.Load() == 0 {
		w.taken.Store(int64(time.Since(epoch)))
	}
}
