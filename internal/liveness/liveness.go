// Package liveness determines from a peer's answers to probes, and from its traffic,
// whether the peer is up, how long round trips take, and how many packets are lost
// (mechanisms 1.9).
//
// It sends nothing itself. Its caller sends the probes, reports answers and traffic,
// and passes the time, which is the duration since any fixed moment and must not go
// backwards.
//
// A peer is probed at most Every after its last answer, even if packets come from it: its
// packets do not show that ours arrive. A probe without an answer within its timeout is
// lost, and another one follows at once. The timeout is a second while round trips are
// shorter (RFC 6298 section 2), and at most three seconds. After three lost probes in a
// row (or After, if that is less) the peer is suspect: no later than Every + 3 timeouts
// after the last answer. It stays suspect until it answers. Meanwhile it is probed less
// and less often, but at least once in Every.
//
// The peer is down when no packet has come from it for Every, and then After probes in a
// row are lost: no later than Every + After timeouts after its last packet, which is 30
// seconds with the defaults. When a packet comes from a peer that is down, the peer is
// probed at once. An answer makes it up; if the probe is lost, it is suspect.
//
// A peer that has never answered is up as long as it sends packets: some peers answer no
// probes. Its silence proves nothing, because an idle peer is silent as well: it becomes
// suspect, but not down, unless errors in reply to probes report that it cannot be
// reached (UnreachableError), or probes cannot be sent (SendFailed).
//
// All this holds for a path that is the only one to its peer. A path of several has a Role,
// which says how often it is probed, and how soon it is suspect: see use.go.
package liveness

import (
	"math/bits"
	"time"
)

// Settings are set by the user.
type Settings struct {
	Every time.Duration // longest time from an answer to the next probe
	After int           // number of probes lost in a row after which the peer is down
}

// State is the state of a peer.
type State uint8

// The states. A peer is Unknown until the first packet or answer.
const (
	Unknown State = iota
	Up
	Suspect
	Down
)

const (
	// Limits of a probe's timeout.
	minTimeout = time.Second
	maxTimeout = 3 * time.Second
	// suspectAfter is the number of lost probes after which a peer is suspect, unless
	// After is less.
	suspectAfter = 3
	// trafficChecks is how often in Every traffic is checked.
	trafficChecks = 4
	// Window is the number of recent probes that Loss covers.
	Window = 20
	// enoughErrors errors show that a silent peer is not idle: a single one may be forged.
	enoughErrors = 2
	// timedProbes is the number of recent probes whose sending times are stored, so that
	// late answers can be used to measure round trips.
	timedProbes = 4
)

// Session watches one peer. It is not safe for concurrent use.
type Session struct {
	settings Settings
	state    State
	first    uint16 // number of the first probe
	seq      uint16 // number of the next probe
	times
	silence
	counts
	roundTrip
	use
}

// times are the moments at which something is due, or at which traffic was found.
type times struct {
	due       time.Duration // when Next must be called
	checked   time.Duration // when traffic was last checked
	trafficAt time.Duration // when traffic was last found; negative: never
	probeAt   time.Duration // when to send the next probe
	interval  time.Duration // between probes of a suspect or down peer
}

// silence is what is known about a peer that does not answer.
type silence struct {
	packetAt      time.Duration // when the last packet came, or somewhat earlier; negative: never
	answerAt      time.Duration // when the peer last answered; negative: never
	silentFrom    time.Duration // when the peer counts as silent
	lostInRow     int           // probes lost in a row; a packet ends the row only if the peer never answered
	firstLostAt   time.Duration // when the first of them was sent
	lostInSilence int           // how many of them were lost after silentFrom
	errors        int           // errors while a probe waited for its answer, since the last packet
}

// counts are the numbers of probes, and the results of the recent ones.
type counts struct {
	total, lost uint64
	inFlight    bool   // a probe is in flight
	probed      int    // number of probes in the window
	answered    uint32 // bit i is set if the (i+1)th last probe was answered
	sent        [timedProbes]time.Duration
}

// roundTrip is the average of round-trip times (RFC 6298); 0: unknown.
type roundTrip struct{ smoothed, deviation time.Duration }

// New returns the session of a peer, whose first probe is due at once. First is the number of
// that probe. It should differ between peers, so that they are not all probed at the
// same time.
func New(set Settings, first uint16, now time.Duration) *Session {
	s := &Session{first: first, seq: first}
	s.Restart(set, now)
	return s
}

// Restart forgets everything but the counts: the peer's address has changed, or sending
// was not possible for a while. A probe is due at once.
func (s *Session) Restart(set Settings, now time.Duration) {
	*s = Session{
		settings: set, first: s.first, seq: s.seq,
		times:   times{due: now, checked: now, probeAt: now, trafficAt: -1},
		silence: silence{packetAt: -1, answerAt: -1, silentFrom: now},
		counts:  counts{total: s.total, lost: s.lost},
		use:     use{role: s.role, window: now},
	}
}

// Set changes the settings and keeps the state.
func (s *Session) Set(set Settings, now time.Duration) {
	s.settings = set
	if s.packetAt >= 0 {
		s.silentFrom = s.packetAt + set.Every
	}
	s.probeAt = min(s.probeAt, now+s.jitter(s.every()))
	s.interval = min(s.interval, set.Every)
	s.schedule(now)
}

// State returns the present state, and the number of probes lost in a row.
func (s *Session) State() (State, int) { return s.state, s.lostInRow }

// OneWay reports whether a suspect peer still sends packets: it answered before and no
// longer does, so our packets may not reach it.
func (s *Session) OneWay() bool { return s.state == Suspect && s.packetAt >= s.firstLostAt }

// WantsNextPacket reports whether the next packet should be reported at once, because
// there was no traffic before the last Next. While there is traffic, it is enough to
// check counters now and then, which costs nothing per packet.
func (s *Session) WantsNextPacket() bool { return s.trafficAt != s.checked }

// Due returns when Next must be called.
func (s *Session) Due() time.Duration { return s.due }

// LastPacket returns when the last packet came, up to half of Every too early; false:
// never.
func (s *Session) LastPacket() (time.Duration, bool) { return max(0, s.packetAt), s.packetAt >= 0 }

// RTT returns the smoothed round-trip time; 0: unknown.
func (s *Session) RTT() time.Duration { return s.smoothed }

// Probes returns how many probes were sent, and how many of them were not answered in
// time.
func (s *Session) Probes() (sent, lost uint64) { return s.total, s.lost }

// Loss returns the fraction, 0 to 1, of the last Window probes that were not answered.
func (s *Session) Loss() float64 {
	replied, known := s.answered, s.probed
	if s.inFlight && replied&1 == 0 { // the last probe may still be answered
		replied, known = replied>>1, known-1
	}
	if known <= 0 {
		return 0
	}
	return 1 - float64(bits.OnesCount32(replied))/float64(known)
}

// Traffic reports that the peer has sent packets since the last check: now if exact, or
// otherwise at any time since the last Next.
func (s *Session) Traffic(exact bool, now time.Duration) {
	at := s.checked
	if exact {
		at = now
	}
	s.checked, s.trafficAt, s.heard = now, now, true
	if s.state != Up && !s.OneWay() { // probe it to learn its state
		s.probeAt, s.interval = now, 0
		if s.total > 0 {
			s.probeAt = max(now, s.lastProbeAt()+minTimeout)
		}
	}
	s.recordPacket(at)
	if s.answerAt < 0 {
		s.lostInRow, s.state = 0, Up
	}
	s.schedule(now)
}

// recordPacket records that the peer sent a packet at the given time.
func (s *Session) recordPacket(at time.Duration) {
	s.packetAt = max(s.packetAt, at)
	s.silentFrom, s.lostInSilence, s.errors = s.packetAt+s.settings.Every, 0, 0
}

// lastProbeAt returns when the last probe was sent.
func (s *Session) lastProbeAt() time.Duration { return s.sent[(s.seq-1)%timedProbes] }

// SendFailed reports that the last probe could not be sent. Until a packet comes from the
// peer, its silence does not mean that it is idle.
func (s *Session) SendFailed(now time.Duration) {
	s.errors = enoughErrors
	if s.role != Only {
		s.unreachable, s.refused = true, true
		s.schedule(now)
	}
}

// UnreachableError reports that an error said that the peer cannot be reached: it is
// probed now, unless a probe was just sent.
func (s *Session) UnreachableError(now time.Duration) {
	if s.inFlight {
		s.errors = min(s.errors+1, enoughErrors)
	}
	switch {
	case s.role != Only:
		s.unreachable = true
		if s.state == Up && !s.inFlight {
			s.probeAt, s.silentFrom = min(s.probeAt, s.soon(now)), now
		}
		s.schedule(now)
	case s.state == Up && !s.inFlight && (s.total == 0 || now-s.lastProbeAt() >= minTimeout):
		s.probeAt, s.due, s.silentFrom = now, now, now
	}
}

// Recent reports whether the number is that of one of the recent probes.
func (s *Session) Recent(seq uint16) bool { return int(s.seq-1-seq) < s.probed }

// Answer reports an answer to a probe. It returns whether this is the first answer to one
// of the recent probes.
func (s *Session) Answer(seq uint16, now time.Duration) bool {
	back := int(s.seq - 1 - seq)
	if back >= s.probed || s.answered>>back&1 != 0 {
		return false
	}
	s.answered |= 1 << back
	// After lost probes the answer may have been delayed by the peer's neighbour
	// discovery: that is not a round-trip time.
	if back < timedProbes && (s.lostInRow == 0 || s.smoothed == 0) {
		s.measure(now - s.sent[seq%timedProbes])
	}
	if back == 0 {
		s.inFlight = false
	}
	if s.answerAt < 0 && s.role != Only { // before, the peer may not have been started: that is no loss
		s.probed = back + 1
	}
	s.checked = now
	s.recordPacket(now)
	s.answerAt, s.lostInRow, s.interval, s.state = now, 0, 0, Up
	s.unreachable, s.refused = false, false
	s.probeAt = now + s.jitter(s.every())
	s.schedule(now)
	return true
}

// measure adds a round-trip time to the average (RFC 6298 section 2).
func (s *Session) measure(r time.Duration) {
	r = max(r, 1)
	if s.smoothed == 0 {
		s.smoothed, s.deviation = r, r/2
		return
	}
	s.deviation += ((s.smoothed - r).Abs() - s.deviation) / 4
	s.smoothed += (r - s.smoothed) / 8
}

// timeout returns how long to wait for an answer.
func (s *Session) timeout() time.Duration {
	needed := s.smoothed + 4*s.deviation
	if s.quick() {
		return s.quickTimeout(needed)
	}
	return min(max(needed, s.jitter(minTimeout)), maxTimeout)
}

// Next does what is due: it counts the probe in flight as lost after its timeout, and
// returns whether to send another probe, and its sequence number. Traffic must have been
// reported before.
func (s *Session) Next(now time.Duration) (seq uint16, probe bool) {
	s.checked = now
	s.checkSending(now)
	if s.inFlight && now-s.lastProbeAt() >= s.timeout() {
		s.probeLost(now)
	}
	if s.inFlight || now < s.probeAt {
		s.schedule(now)
		return 0, false
	}
	seq = s.seq
	s.seq++
	s.total++
	s.inFlight = true
	s.sent[seq%timedProbes] = now
	s.answered = s.answered << 1 & (1<<Window - 1)
	s.probed = min(s.probed+1, Window)
	s.schedule(now)
	return seq, true
}

// schedule sets when Next is due. Traffic of a peer that is up or suspect must be checked
// regularly.
func (s *Session) schedule(now time.Duration) {
	s.due = s.probeAt
	if s.inFlight {
		s.due = s.lastProbeAt() + s.timeout()
	}
	if s.state == Up || s.state == Suspect {
		s.due = min(s.due, now+s.every()/trafficChecks)
	}
	if s.sending {
		s.due = min(s.due, s.window+windowLength)
	}
}

// probeLost records that the last probe was lost.
func (s *Session) probeLost(now time.Duration) {
	s.inFlight = false
	s.lost++
	switch {
	case s.answerAt >= s.lastProbeAt(): // a late answer to an earlier probe came
		return
	case s.answerAt < 0 && (now < s.silentFrom || s.packetAt >= s.lastProbeAt()): // the peer never answers, and need not
		s.probeAt = max(now, min(s.lastProbeAt()+s.jitter(s.settings.Every), s.silentFrom))
		if s.role != Only { // whether it answers has to be known before it is needed
			s.probeAt = s.retryAt(now)
		}
		return
	}
	if s.lostInRow == 0 {
		s.firstLostAt = s.lastProbeAt()
	}
	s.lostInRow++
	s.probeAt = now
	limit, after := s.limits()
	if now >= s.silentFrom {
		s.lostInSilence++
	} else if s.lostInRow >= limit {
		s.probeAt = min(s.retryAt(now), s.silentFrom)
	}
	switch {
	case s.lostInSilence >= after:
		s.state = Down
		if s.mayBeIdle() {
			s.state = Suspect
		}
		s.probeAt = s.retryAt(now)
	case s.lostInRow >= limit && s.state == Up, s.state == Down && s.lostInSilence == 0 && s.lastProbeAt() >= s.packetAt:
		s.state = Suspect
	}
}

// mayBeIdle reports whether the peer's silence proves nothing.
func (s *Session) mayBeIdle() bool {
	return s.answerAt < 0 && s.packetAt >= 0 && s.errors < enoughErrors
}

// retryAt returns when to probe a peer again that does not answer: less and less often.
func (s *Session) retryAt(now time.Duration) time.Duration {
	s.interval = min(max(2*s.interval, 2*minTimeout), s.longest())
	return max(now, s.lastProbeAt()+s.jitter(s.interval))
}

// jitter returns between three quarters of a time and all of it (mechanisms 1.9). The
// result depends on the number of the probe and on that of the peer's first probe, so
// that many peers are not probed at the same moments.
func (s *Session) jitter(t time.Duration) time.Duration {
	x := uint32(s.first)<<16 | uint32(s.seq)
	x = (x ^ x>>16) * 0x7feb352d
	x = (x ^ x>>15) * 0x846ca68b
	return t - t/4*time.Duration(x>>24)/256
}
