package engine

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// twoWays detects that a peer's packets arrive both through AF_XDP and through a socket.
// An XDP filter leaves outer fragments to the kernel, and the reassembled packets arrive at
// a socket. Different goroutines read the socket and the AF_XDP port, so packets of one
// flow would overtake each other. All packets of such a peer then use the socket for a
// while.
type twoWays struct {
	taken atomic.Int64 // since when a filter takes the peer's packets, after epoch; 0: none
	seen  atomic.Bool  // a packet came through a socket nevertheless

	// Used by the control loop only.
	until time.Time     // the peer's packets use the socket; zero: AF_XDP if possible
	pause time.Duration // how long they did the last time
}

const (
	// takenGrace is how long packets that arrived before the filter was set may wait in
	// the socket.
	takenGrace = 200 * time.Millisecond
	// Limits of the pause after which AF_XDP is tried again.
	leastPause = time.Minute
	mostPause  = time.Hour
)

// note is called for a packet that came through a socket though a filter takes the peer's
// packets. It reports whether the control loop must be notified.
func (w *twoWays) note() bool {
	since := time.Since(epoch) - time.Duration(w.taken.Load())
	return since > takenGrace && !w.seen.Load() && !w.seen.Swap(true)
}

// parted makes the peer's packets use the socket if note was called, and AF_XDP again after
// the pause. It reports whether the filter must be changed.
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

// mayBeTaken reports whether an XDP filter may take the peer's packets. With a static path
// MTU both ends fragment packets that are too large for the path, so it may not.
func (p *peer) mayBeTaken() bool {
	r := p.registered
	return r != nil && r.hop.port != nil && !r.options.StaticMTU && p.ways.until.IsZero()
}

// isTaken records whether a filter takes the peer's packets.
func (p *peer) isTaken(taken bool) {
	if w := &p.ways; !taken {
		w.taken.Store(0)
	} else if w.taken.Load() == 0 {
		w.taken.Store(int64(time.Since(epoch)))
	}
}
