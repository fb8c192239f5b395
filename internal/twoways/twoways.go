// Package twoways detects that the packets of a path arrive both through AF_XDP and through a
// socket.
package twoways

import (
	"sync/atomic"
	"time"
)

// Ways detects that a path's packets arrive in both ways. An XDP filter leaves outer fragments
// and packets with extension headers or IPv4 options to the kernel, and the (reassembled)
// packets arrive at a socket. Different goroutines read the socket and the AF_XDP port, so
// packets of one flow would overtake each other. All packets of such a path then use the
// socket for a while.
type Ways struct {
	taken atomic.Int64 // since when a filter takes the peer's packets, after epoch; 0: none
	seen  atomic.Bool  // enough packets came through a socket nevertheless
	begun atomic.Int64 // when the present straysWindow began, after epoch
	count atomic.Int32 // of packets through a socket in that window

	// Used by the control loop only.
	until time.Time     // the peer's packets use the socket; zero: AF_XDP if possible
	pause time.Duration // how long they did the last time
	ended time.Time     // when the last pause ended
}

// epoch is the start of the times that are stored as integers.
var epoch = time.Now()

const (
	// takenGrace is how long packets that arrived before the filter was set may wait in
	// the socket.
	takenGrace = 200 * time.Millisecond
	// So many packets through a socket within this time show that the peer sends such
	// packets regularly: one may be forged.
	strays       = 16
	straysWindow = 10 * time.Second
	// Limits of the pause after which AF_XDP is tried again.
	leastPause = time.Minute
	mostPause  = time.Hour
	// quiet is the time without a pause after which the next one is leastPause again.
	quiet = time.Hour
)

// Note is called for a valid packet that came through a socket, and counts it if a filter takes
// the path's packets. It reports whether the control loop must be notified.
func (w *Ways) Note() bool { return w.taken.Load() != 0 && w.note() }

func (w *Ways) note() bool {
	now := time.Since(epoch)
	if now-time.Duration(w.taken.Load()) <= takenGrace || w.seen.Load() {
		return false
	}
	if now-time.Duration(w.begun.Load()) > straysWindow {
		w.begun.Store(int64(now))
		w.count.Store(0)
	}
	return w.count.Add(1) >= strays && !w.seen.Swap(true)
}

// Part makes the path's packets use the socket if Note was called for them, and AF_XDP again
// after a pause. It reports whether the filter must be changed, and the pause if it has
// begun. The control loop calls it.
func (w *Ways) Part(now time.Time) (changed bool, pause time.Duration) {
	if w.seen.Swap(false) && w.taken.Load() != 0 {
		w.count.Store(0)
		if now.Sub(w.ended) >= quiet {
			w.pause = 0
		}
		w.pause = min(max(2*w.pause, leastPause), mostPause)
		w.until = now.Add(w.pause)
		return true, w.pause
	}
	if !w.until.IsZero() && now.After(w.until) {
		w.until, w.ended = time.Time{}, now
		return true, 0
	}
	return false, 0
}

// Parted reports whether the path's packets must use the socket now.
func (w *Ways) Parted() bool { return !w.until.IsZero() }

// SetTaken records whether a filter takes the path's packets.
func (w *Ways) SetTaken(taken bool) {
	if !taken {
		w.taken.Store(0)
	} else if w.taken.Load() == 0 {
		w.taken.Store(int64(time.Since(epoch)))
	}
}
