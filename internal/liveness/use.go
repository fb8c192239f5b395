package liveness

import "time"

// Role says for what a path is used, which determines how it is probed.
type Role uint8

// The roles.
const (
	// Only is a path without an alternative.
	Only Role = iota
	// Standby is a path that carries no packets as long as another one is up. It is probed
	// less often than every second.
	Standby
	// Compared is a path that carries no packets, but that may be chosen at any time by what
	// is measured of it.
	Compared
	// Trial is a path that carries packets again if it stays up for a while. It is probed
	// every second.
	Trial
	// Needed is a path that is to carry the packets of another one, which may have failed. A
	// probe is sent at once.
	Needed
	// InUse is a path that carries packets, in place of which another one could.
	//
	// While packets are sent, it must answer a probe every second: if there are many of them,
	// or if no packet has come back for a while. So a one-way flow does not make it suspect.
	InUse
)

// Probes of a path that is Trial, Needed or InUse follow one another quickly when they are not
// answered, so that it is suspect no later than 3 seconds after the last answer while packets
// are sent: a probe at most activeEvery after the answer, two more after quickPause each, and
// the timeout of the last one, if round trips are no longer than that. After an error that
// reports that the peer cannot be reached, a single lost probe with a shorter timeout is
// enough. An error alone is not, since it may be forged.
const (
	activeEvery  = time.Second
	standbyEvery = 10 * time.Second
	quickPause   = 500 * time.Millisecond
	// lastTimeout is the longest timeout of the last of them while round trips are shorter.
	lastTimeout = 900 * time.Millisecond
	// errorTimeout is the least timeout after an error.
	errorTimeout = 100 * time.Millisecond
	// probePause is the least time between two probes for which there was a reason.
	probePause = 200 * time.Millisecond
	// windowLength is how long packets may be sent without one that comes back.
	windowLength = 500 * time.Millisecond
	// manyPackets in a window are more than our answers to the peer's probes. Two ends that
	// answer each other's probes must not take the answers for a reason to probe.
	manyPackets = 8
)

// use is for what a path is used.
type use struct {
	role    Role
	heard   bool          // packets came in the present window
	packets uint16        // packets sent in it
	window  time.Duration // when it began

	sending     bool // packets were sent in the present window, or in the one before
	active      bool // they are reason to probe it every second
	unreachable bool // an error has reported so since the last answer
	refused     bool // a probe could not be sent since the last answer
}

// SetRole sets for what the path is used.
func (s *Session) SetRole(r Role, now time.Duration) {
	if r == s.role {
		return
	}
	s.role = r
	s.window, s.packets, s.heard, s.sending, s.active = now, 0, false, false, false
	switch {
	case r == Only:
		s.unreachable, s.refused = false, false
	case r == Needed:
		s.probeAt = s.soon(now)
	}
	if s.state == Up && s.lostInRow == 0 {
		s.probeAt = min(s.probeAt, now+s.jitter(s.every()))
	}
	s.schedule(now)
}

// Doubt reports whether the last probe was lost, or an error has reported since the last
// answer that the peer cannot be reached.
func (s *Session) Doubt() bool { return s.lostInRow > 0 || s.unreachable }

// WantsNextSent reports whether the next packet to the peer should be reported at once,
// because none was sent lately. While packets are sent, it is enough to check counters.
func (s *Session) WantsNextSent() bool { return s.role == InUse && !s.sending }

// Sent reports that n packets were sent to the peer since the last report. Traffic from it
// must have been reported before.
func (s *Session) Sent(n int, now time.Duration) {
	if s.role != InUse {
		return
	}
	if !s.sending {
		s.sending, s.window, s.packets, s.heard = true, now, 0, s.trafficAt == now
	}
	s.packets = uint16(min(int(s.packets)+n, manyPackets))
	s.schedule(now)
}

// checkSending ends a window, and determines whether the packets that were sent in it are
// reason for a probe. Packets that were sent must have been reported before.
func (s *Session) checkSending(now time.Duration) {
	if !s.sending || now-s.window < windowLength {
		return
	}
	s.active = s.packets >= manyPackets || s.packets > 0 && !s.heard
	s.sending = s.packets > 0
	s.window, s.packets, s.heard = now, 0, false
	if s.state == Up && s.answerAt >= 0 && !s.inFlight && !s.Doubt() {
		s.probeAt = max(now, s.answerAt+s.jitter(s.every()))
	}
}

// every returns the longest time from an answer to the next probe.
func (s *Session) every() time.Duration {
	switch {
	case s.role == Standby:
		return max(s.settings.Every, standbyEvery)
	case s.role == Trial, s.role == InUse && s.active:
		return min(s.settings.Every, activeEvery)
	}
	return s.settings.Every
}

// longest returns the longest time between two probes of a peer that does not answer.
func (s *Session) longest() time.Duration {
	if s.role != Only {
		return min(s.settings.Every, standbyEvery)
	}
	return max(s.settings.Every, minTimeout)
}

// quick reports whether a lost probe is followed by others quickly.
func (s *Session) quick() bool {
	return s.role >= Trial && s.state == Up && s.answerAt >= 0
}

// quickTimeout is timeout for a path whose probes follow one another quickly.
func (s *Session) quickTimeout(needed time.Duration) time.Duration {
	limit, _ := s.limits()
	switch {
	case s.refused:
		return errorTimeout
	case s.unreachable && s.smoothed > 0:
		return min(max(needed, errorTimeout), quickPause)
	case s.lostInRow+1 < limit:
		return quickPause
	}
	// The first of them has had more time for an answer.
	return max(quickPause, min(needed, max(lastTimeout, s.smoothed+s.smoothed/4), maxTimeout))
}

// limits returns how many probes in a row are lost when a peer becomes suspect, and how many
// in silence when it is down.
func (s *Session) limits() (suspect, down int) {
	switch {
	case s.quick() && s.unreachable:
		return 1, max(suspectAfter, s.settings.After)
	case s.quick():
		return suspectAfter, max(suspectAfter, s.settings.After)
	}
	return min(suspectAfter, s.settings.After), s.settings.After
}

// soon returns when to send a probe for which there is a reason now.
func (s *Session) soon(now time.Duration) time.Duration {
	if s.total == 0 {
		return now
	}
	return max(now, s.lastProbeAt()+probePause)
}
