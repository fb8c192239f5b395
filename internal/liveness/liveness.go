// Package liveness tells from a peer's traffic, and from probes where there is
// none, whether the peer lives, how far away it is, and how many packets are lost on
// the way (mechanisms 1.9).
//
// It decides and remembers, and does nothing else: its user sends the probes, tells
// of answers and traffic, and brings the time, which is that since any moment and
// must not go backwards.
//
// A peer is asked at most Every after its last answer, whether packets come from it or
// not: what it sends does not show that anything arrives there. A probe that is not
// answered within its timeout, which is a second as long as round trips take less (RFC
// 6298 section 2), and three seconds at most, is lost, and followed by another one at
// once. After three of them in a row (or After, if that is less) the peer is suspect:
// no later than Every + 3 timeouts after the last answer. It stays so until it answers,
// and is asked less and less often meanwhile, but at least each Every.
//
// It is down when nothing has come from it for Every, and After probes in a row were
// lost after that: no later than Every + After timeouts after its last packet, 30
// seconds as the defaults are. When a packet comes from a peer that is down, it is asked
// at once. Its answer makes it up. If that probe is lost, too, the peer is suspect.
//
// A peer that has never answered is up by its packets alone: some peers answer nothing.
// Its silence proves nothing, because an idle one sends nothing either: it becomes
// suspect and not down, unless somebody said that nobody is there (Doubt).
package liveness

import (
	"math/bits"
	"time"
)

// Settings are what the user may choose.
type Settings struct {
	Every time.Duration // a peer that was silent so long is probed
	After int           // probes lost in a row after which the peer is down
}

// State is what is known of a peer.
type State uint8

// A peer is unknown until something is heard of it, and up as long as all is well.
const (
	Unknown State = iota
	Up
	Suspect
	Down
)

const (
	// Timeouts of probes.
	leastTimeout = time.Second
	mostTimeout  = 3 * time.Second
	// suspectAfter probes are lost before a peer is suspect, if After is not less.
	suspectAfter = 3
	// glances is how often in Every it is looked whether there was traffic.
	glances = 4
	// Window is how many of the last probes Loss is about.
	Window = 20
	// timed is of how many probes it is known when they were sent, so that answers
	// that come late show how long round trips take.
	timed = 4
)

// Peer is what is known of one peer. It is not safe for concurrent use.
type Peer struct {
	set   Settings
	state State
	until time.Duration // when something is due
	look  time.Duration // when traffic was looked for last
	came  time.Duration // when there was some; negative: never
	ask   time.Duration // when to probe

	first   uint16 // number of the first probe
	seq     uint16 // of the next one
	asked   bool   // a probe is on its way
	sent    [timed]time.Duration
	heard   time.Duration // when the last packet came, or earlier; negative: never
	quiet   time.Duration // from when on the peer is silent
	replied time.Duration // when it answered last; negative: never
	missed  int           // probes in a row; a packet ends the row only if it never replied
	since   time.Duration // when the first of them was sent
	silent  int           // of them, those lost since quiet
	denied  bool          // somebody said that nobody is there, and nothing has come since
	pause   time.Duration // between probes of a peer that is suspect or down
	total   uint64
	lost    uint64
	known   int    // probes of the window
	answers uint32 // which of them were answered; the last is bit 0

	rtt, deviation time.Duration // RFC 6298; 0: not known
}

// New is a peer that is to be probed at once. First is the number of its first probe,
// which is another for each peer, so that they are not all probed at the same time.
func New(set Settings, first uint16, now time.Duration) *Peer {
	p := &Peer{first: first, seq: first}
	p.Restart(set, now)
	return p
}

// Restart forgets all but what was counted: the peer is elsewhere, or it was not
// possible to send for a while. It is probed at once.
func (p *Peer) Restart(set Settings, now time.Duration) {
	*p = Peer{set: set, first: p.first, seq: p.seq, total: p.total, lost: p.lost, heard: -1, came: -1, replied: -1, until: now, look: now, ask: now, quiet: now}
}

// Set changes the settings, and forgets nothing.
func (p *Peer) Set(set Settings, now time.Duration) {
	p.set = set
	if p.heard >= 0 {
		p.quiet = p.heard + set.Every
	}
	p.ask = min(p.ask, now+p.jitter(set.Every))
	p.pause = min(p.pause, set.Every)
	p.next(now)
}

// State is what is known now, and how many probes in a row were lost.
func (p *Peer) State() (State, int) { return p.state, p.missed }

// Deaf reports whether packets come from a peer that is suspect: it answered once, and
// does not any more, so what is sent to it may not arrive.
func (p *Peer) Deaf() bool { return p.state == Suspect && p.heard >= p.since }

// Attentive reports whether the next packet is to be told of at once: there was none
// before the last Next. While packets come all the time, looking for them now and then
// is enough, and costs nothing for each.
func (p *Peer) Attentive() bool { return p.came != p.look }

// Due is when Next is to be called.
func (p *Peer) Due() time.Duration { return p.until }

// Heard is when the last packet came, or up to half of Every before it; false: none did.
func (p *Peer) Heard() (time.Duration, bool) { return max(0, p.heard), p.heard >= 0 }

// RTT is the smoothed round-trip time; 0: none is known.
func (p *Peer) RTT() time.Duration { return p.rtt }

// Probes are how many were sent, and how many of them were not answered in time.
func (p *Peer) Probes() (sent, lost uint64) { return p.total, p.lost }

// Loss is the share, 0 to 1, of the last probes that was never answered.
func (p *Peer) Loss() float64 {
	replied, known := p.answers, p.known
	if p.asked && replied&1 == 0 { // nobody knows yet
		replied, known = replied>>1, known-1
	}
	if known <= 0 {
		return 0
	}
	return 1 - float64(bits.OnesCount32(replied))/float64(known)
}

// Traffic tells that the peer has sent packets, some time since it was looked for
// them last: at the last Next, if exact is false, or now.
func (p *Peer) Traffic(exact bool, now time.Duration) {
	at := p.look
	if exact {
		at = now
	}
	p.look, p.came = now, now
	if p.state != Up && !p.Deaf() { // what does it say now?
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

// hear notes that the peer sent a packet at a time.
func (p *Peer) hear(at time.Duration) {
	p.heard = max(p.heard, at)
	p.quiet, p.silent, p.denied = p.heard+p.set.Every, 0, false
}

// last is when the last probe was sent.
func (p *Peer) last() time.Duration { return p.sent[(p.seq-1)%timed] }

// Doubt tells that somebody said that nobody is there: it is asked now, if that was
// not just done.
func (p *Peer) Doubt(now time.Duration) {
	p.denied = true
	if p.state == Up && !p.asked && (p.total == 0 || now-p.last() >= leastTimeout) {
		p.ask, p.until, p.quiet = now, now, now
	}
}

// Answer tells of an answer to a probe, and reports whether it is one to a probe of
// the last ones, and the first.
func (p *Peer) Answer(seq uint16, now time.Duration) bool {
	back := int(p.seq - 1 - seq)
	if back >= p.known || p.answers>>back&1 != 0 {
		return false
	}
	p.answers |= 1 << back
	// After lost ones it may have waited until the peer's neighbours knew it again:
	// that is no time that a packet takes.
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

// measure takes in a round-trip time (RFC 6298 section 2).
func (p *Peer) measure(r time.Duration) {
	r = max(r, 1)
	if p.rtt == 0 {
		p.rtt, p.deviation = r, r/2
		return
	}
	p.deviation += ((p.rtt - r).Abs() - p.deviation) / 4
	p.rtt += (r - p.rtt) / 8
}

// timeout is how long an answer is waited for.
func (p *Peer) timeout() time.Duration {
	needed := p.rtt + 4*p.deviation
	return min(max(needed, p.jitter(leastTimeout)), mostTimeout)
}

// Next does what is due: it takes a probe for lost whose answer did not come, and
// says whether to send another, and its sequence number. Whether there was traffic
// must have been told.
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

// next sets when something is due: of a peer of which packets may come that are not
// told of, also a look at them.
func (p *Peer) next(now time.Duration) {
	p.until = p.ask
	if p.asked {
		p.until = p.last() + p.timeout()
	}
	if p.state == Up || p.state == Suspect {
		p.until = min(p.until, now+p.set.Every/glances)
	}
}

// miss notes that the last probe was lost.
func (p *Peer) miss(now time.Duration) {
	p.asked = false
	p.lost++
	switch {
	case p.replied >= p.last(): // to an earlier one, late
		return
	case p.replied < 0 && (now < p.quiet || p.heard >= p.last()): // it never does, and need not
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

// mayBeIdle reports whether the silence of a peer proves nothing.
func (p *Peer) mayBeIdle() bool { return p.replied < 0 && p.heard >= 0 && !p.denied }

// later is when to ask a peer again that does not answer: less and less often.
func (p *Peer) later(now time.Duration) time.Duration {
	p.pause = min(max(2*p.pause, 2*leastTimeout), max(p.set.Every, leastTimeout))
	return max(now, p.last()+p.jitter(p.pause))
}

// jitter is three quarters of a time, or more, up to all of it (mechanisms 1.9), by
// the number of the probe and that of the peer's first one: so many peers are not
// probed at the same moment again and again.
func (p *Peer) jitter(t time.Duration) time.Duration {
	x := uint32(p.first)<<16 | uint32(p.seq)
	x = (x ^ x>>16) * 0x7feb352d
	x = (x ^ x>>15) * 0x846ca68b
	return t - t/4*time.Duration(x>>24)/256
}
