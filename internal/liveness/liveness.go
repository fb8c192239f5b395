// Package liveness determines from a peer's answers to probes, and from its traffic,
// whether the peer is up, how long round trips take, and how many packets are lost
// (mechanisms 1.9).
//
// It only decides and remembers. Its caller sends the probes, reports answers and traffic,
// and passes the time, which is the duration since any fixed moment and must not go
// backwards.
//
// A peer is probed at most Every after its last answer, even if packets come from it: its
// packets do not show that ours arrive. A probe without an answer within its timeout is
// lost, and another one follows at once. The timeout is a second while round trips are
// shorter (RFC 6298 section 2), and at most three seconds. After three lost probes in a row
// (or After, if that is less) the peer is suspect: no later than Every + 3 timeouts after
// the last answer. It stays suspect until it answers. Meanwhile it is probed less and less
// often, but at least once in Every.
//
// The peer is down when no packet has come from it for Every, and then After probes in a
// row are lost: no later than Every + After timeouts after its last packet, which is 30
// seconds with the defaults. When a packet comes from a peer that is down, the peer is
// probed at once. An answer makes it up; if the probe is lost, it is suspect.
//
// A peer that has never answered is up as long as it sends packets: some peers answer no
// probes. Its silence proves nothing, because an idle peer is silent as well: it becomes
// suspect, but not down, unless errors in reply to probes report that it cannot be reached
// (Doubt), or probes cannot be sent (Refused).
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
	leastTimeout = time.Second
	mostTimeout  = 3 * time.Second
	// suspectAfter is the number of lost probes after which a peer is suspect, unless
	// After is less.
	suspectAfter = 3
	// glances is how often in Every traffic is checked.
	glances = 4
	// Window is the number of recent probes that Loss covers.
	Window = 20
	// enoughDenials errors show that a silent peer is not idle: anybody can forge one.
	enoughDenials = 2
	// timed is the number of recent probes whose sending times are stored, so that late
	// answers can be used to measure round trips.
	timed = 4
)

// Peer is the state of one peer. It is not safe for concurrent use.
type Peer struct {
	set   Settings
	state State
	until time.Duration // when Next is due
	look  time.Duration // when traffic was last checked
	came  time.Duration // when traffic was last found; negative: never
	ask   time.Duration // when to send the next probe

	first   uint16 // number of the first probe
	seq     uint16 // number of the next probe
	asked   bool   // a probe is in flight
	sent    [timed]time.Duration
	heard   time.Duration // when the last packet came, or somewhat earlier; negative: never
	quiet   time.Duration // when the peer counts as silent
	replied time.Duration // when the peer last answered; negative: never
	missed  int           // probes lost in a row; a packet ends the row only if the peer never answered
	since   time.Duration // when the first of them was sent
	silent  int           // how many of them were lost after quiet
	denials int           // errors while a probe waited for its answer, since the last packet
	pause   time.Duration // between probes of a suspect or down peer
	total   uint64
	lost    uint64
	known   int    // number of probes in the window
	answers uint32 // bit i is set if the (i+1)th last probe was answered

	rtt, deviation time.Duration // RFC 6298; 0: unknown
}

// New returns a peer that is to be probed at once. First is the number of its first probe.
// It should differ between peers, so that they are not all probed at the same time.
func New(set Settings, first uint16, now time.Duration) *Peer {
	p := &Peer{first: first, seq: first}
	p.Restart(set, now)
	return p
}

// Restart forgets everything but the counts: the peer's address has changed, or sending
// was not possible for a while. The peer is to be probed at once.
func (p *Peer) Restart(set Settings, now time.Duration) {
	*p = Peer{set: set, first: p.first, seq: p.seq, total: p.total, lost: p.lost, heard: -1, came: -1, replied: -1, until: now, look: now, ask: now, quiet: now}
}

// Set changes the settings and keeps the state.
func (p *Peer) Set(set Settings, now time.Duration) {
	p.set = set
	if p.heard >= 0 {
		p.quiet = p.heard + set.Every
	}
	p.ask = min(p.ask, now+p.jitter(set.Every))
	p.pause = min(p.pause, set.Every)
	p.next(now)
}

// State returns the present state, and the number of probes lost in a row.
func (p *Peer) State() (State, int) { return p.state, p.missed }

// Deaf reports whether a suspect peer still sends packets: it answered before and no longer
// does, so our packets may not reach it.
func (p *Peer) Deaf() bool { return p.state == Suspect && p.heard >= p.since }

// Attentive reports whether the next packet should be reported at once, because there was
// no traffic before the last Next. While there is traffic, it is enough to check counters
// now and then, which costs nothing per packet.
func (p *Peer) Attentive() bool { return p.came != p.look }

// Due returns when Next must be called.
func (p *Peer) Due() time.Duration { return p.until }

// Heard returns when the last packet came, up to half of Every too early; false: never.
func (p *Peer) Heard() (time.Duration, bool) { return max(0, p.heard), p.heard >= 0 }

// RTT returns the smoothed round-trip time; 0: unknown.
func (p *Peer) RTT() time.Duration { return p.rtt }

// Probes returns how many probes were sent, and how many of them were not answered in time.
func (p *Peer) Probes() (sent, lost uint64) { return p.total, p.lost }

// Loss returns the fraction, 0 to 1, of the last Window probes that were not answered.
func (p *Peer) Loss() float64 {
	replied, known := p.answers, p.known
	if p.asked && replied&1 == 0 { // the last probe may still be answered
		replied, known = replied>>1, known-1
	}
	if known <= 0 {
		return 0
	}
	return 1 - float64(bits.OnesCount32(replied))/float64(known)
}

// Traffic reports that the peer has sent packets since the last check: now if exact, or
// otherwise at any time since the last Next.
func (p *Peer) Traffic(exact bool, now time.Duration) {
	at := p.look
	if exact {
		at = now
	}
	p.look, p.came = now, now
	if p.state != Up && !p.Deaf() { // probe it to learn its state
		p.ask, p.pause = now, 0
		if p.total > 0 {
			p.ask = max(now, p.last()+leastTimeout)
		}
	}
	p.hear(at)
	if p.replied < 0 {
		p.missed, p.state = 0, Up
	}
	p.next(now)
}

// hear records that the peer sent a packet at the given time.
func (p *Peer) hear(at time.Duration) {
	p.heard = max(p.heard, at)
	p.quiet, p.silent, p.denials = p.heard+p.set.Every, 0, 0
}

// last returns when the last probe was sent.
func (p *Peer) last() time.Duration { return p.sent[(p.seq-1)%timed] }

// Refused reports that a probe could not be sent. Until a packet comes from the peer, its
// silence does not mean that it is idle.
func (p *Peer) Refused() { p.denials = enoughDenials }

// Doubt reports that an error said that the peer cannot be reached: it is probed now,
// unless a probe was just sent.
func (p *Peer) Doubt(now time.Duration) {
	if p.asked {
		p.denials = min(p.denials+1, enoughDenials)
	}
	if p.state == Up && !p.asked && (p.total == 0 || now-p.last() >= leastTimeout) {
		p.ask, p.until, p.quiet = now, now, now
	}
}

// Recent reports whether the number is that of one of the recent probes.
func (p *Peer) Recent(seq uint16) bool { return int(p.seq-1-seq) < p.known }

// Answer reports an answer to a probe. It returns whether this is the first answer to one
// of the recent probes.
func (p *Peer) Answer(seq uint16, now time.Duration) bool {
	back := int(p.seq - 1 - seq)
	if back >= p.known || p.answers>>back&1 != 0 {
		return false
	}
	p.answers |= 1 << back
	// After lost probes the answer may have been delayed by the peer's neighbour
	// discovery: that is not a round-trip time.
	if back < timed && (p.missed == 0 || p.rtt == 0) {
		p.measure(now - p.sent[seq%timed])
	}
	if back == 0 {
		p.asked = false
	}
	p.look = now
	p.hear(now)
	p.replied, p.missed, p.pause, p.state = now, 0, 0, Up
	p.ask = now + p.jitter(p.set.Every)
	p.next(now)
	return true
}

// measure adds a round-trip time to the average (RFC 6298 section 2).
func (p *Peer) measure(r time.Duration) {
	r = max(r, 1)
	if p.rtt == 0 {
		p.rtt, p.deviation = r, r/2
		return
	}
	p.deviation += ((p.rtt - r).Abs() - p.deviation) / 4
	p.rtt += (r - p.rtt) / 8
}

// timeout returns how long to wait for an answer.
func (p *Peer) timeout() time.Duration {
	needed := p.rtt + 4*p.deviation
	return min(max(needed, p.jitter(leastTimeout)), mostTimeout)
}

// Next does what is due: it counts the probe in flight as lost after its timeout, and
// returns whether to send another probe, and its sequence number. Traffic must have been
// reported before.
func (p *Peer) Next(now time.Duration) (seq uint16, probe bool) {
	p.look = now
	if p.asked && now-p.last() >= p.timeout() {
		p.miss(now)
	}
	if p.asked || now < p.ask {
		p.next(now)
		return 0, false
	}
	seq = p.seq
	p.seq++
	p.total++
	p.asked = true
	p.sent[seq%timed] = now
	p.answers = p.answers << 1 & (1<<Window - 1)
	p.known = min(p.known+1, Window)
	p.next(now)
	return seq, true
}

// next sets when Next is due. Traffic of a peer that is up or suspect must be checked
// regularly.
func (p *Peer) next(now time.Duration) {
	p.until = p.ask
	if p.asked {
		p.until = p.last() + p.timeout()
	}
	if p.state == Up || p.state == Suspect {
		p.until = min(p.until, now+p.set.Every/glances)
	}
}

// miss records that the last probe was lost.
func (p *Peer) miss(now time.Duration) {
	p.asked = false
	p.lost++
	switch {
	case p.replied >= p.last(): // a late answer to an earlier probe came
		return
	case p.replied < 0 && (now < p.quiet || p.heard >= p.last()): // the peer never answers, and need not
		p.ask = max(now, min(p.last()+p.jitter(p.set.Every), p.quiet))
		return
	}
	if p.missed == 0 {
		p.since = p.last()
	}
	p.missed++
	p.ask = now
	limit := min(suspectAfter, p.set.After)
	if now >= p.quiet {
		p.silent++
	} else if p.missed >= limit {
		p.ask = min(p.later(now), p.quiet)
	}
	switch {
	case p.silent >= p.set.After:
		p.state = Down
		if p.mayBeIdle() {
			p.state = Suspect
		}
		p.ask = p.later(now)
	case p.missed >= limit && p.state == Up, p.state == Down && p.silent == 0 && p.last() >= p.heard:
		p.state = Suspect
	}
}

// mayBeIdle reports whether the peer's silence proves nothing.
func (p *Peer) mayBeIdle() bool { return p.replied < 0 && p.heard >= 0 && p.denials < enoughDenials }

// later returns when to probe a peer again that does not answer: less and less often.
func (p *Peer) later(now time.Duration) time.Duration {
	p.pause = min(max(2*p.pause, 2*leastTimeout), max(p.set.Every, leastTimeout))
	return max(now, p.last()+p.jitter(p.pause))
}

// jitter returns between three quarters of a time and all of it (mechanisms 1.9). The
// result depends on the number of the probe and on that of the peer's first probe, so that
// many peers are not probed at the same moments.
func (p *Peer) jitter(t time.Duration) time.Duration {
	x := uint32(p.first)<<16 | uint32(p.seq)
	x = (x ^ x>>16) * 0x7feb352d
	x = (x ^ x>>15) * 0x846ca68b
	return t - t/4*time.Duration(x>>24)/256
}
