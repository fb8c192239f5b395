// Package liveness tells from a peer's traffic, and from probes where there is
// none, whether the peer lives, how far away it is, and how many packets are lost on
// the way (mechanisms 1.9).
//
// It decides and remembers, and does nothing else: its user sends the probes, tells
// of answers and traffic, and brings the time, which is that since any moment and
// must not go backwards.
//
// A peer that falls silent is probed at most Every after its last packet. A probe
// that is not answered within its timeout, which is a second as long as round trips
// take less (RFC 6298 section 2), and three seconds at most, is lost, and followed by
// another one at once. After three (or After, if that is less) the peer is suspect,
// after After of them it is down: no later than Every + After timeouts after its last
// packet, 30 seconds as the defaults are.
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

// A peer is unknown until something is heard of it, and up as long as that goes on.
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
	// suspectAfter probes are lost before a peer is suspect.
	suspectAfter = 3
	// glances is how often in Every it is looked whether there was traffic.
	glances = 4
	// window is of how many probes the loss is told.
	window = 20
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
	ask   time.Duration // when to probe

	first   uint16 // number of the first probe
	seq     uint16 // of the next one
	asked   bool   // a probe is on its way
	sent    [timed]time.Duration
	heard   time.Duration // when the last packet came, or earlier; negative: never
	missed  int           // probes in a row
	pause   time.Duration // between probes of a peer that is down
	total   uint64
	lost    uint64
	known   int    // probes of the window
	replied uint32 // which of them were answered; the last is bit 0

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
	*p = Peer{set: set, first: p.first, seq: p.seq, total: p.total, lost: p.lost, heard: -1, until: now, look: now, ask: now}
}

// State is what is known now, and how many probes in a row were lost.
func (p *Peer) State() (State, int) { return p.state, p.missed }

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
	replied, known := p.replied, p.known
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
	p.look = now
	p.alive(at, now)
}

// alive notes that the peer was heard at a time.
func (p *Peer) alive(at, now time.Duration) {
	p.heard, p.missed, p.pause, p.state = max(p.heard, at), 0, 0, Up
	p.ask = p.heard + p.jitter(p.set.Every)
	p.wait(now)
}

// wait sets when something is due, of a peer that is up.
func (p *Peer) wait(now time.Duration) {
	next := p.ask
	if p.asked {
		next = p.last() + p.timeout()
	}
	p.until = min(next, now+p.set.Every/glances)
}

// last is when the last probe was sent.
func (p *Peer) last() time.Duration { return p.sent[(p.seq-1)%timed] }

// Doubt tells that somebody said that nobody is there: it is asked now, if that was
// not just done.
func (p *Peer) Doubt(now time.Duration) {
	if p.state == Up && !p.asked && (p.total == 0 || now-p.last() >= leastTimeout) {
		p.ask, p.until = now, now
	}
}

// Answer tells of an answer to a probe, and reports whether it is one to a probe of
// the last ones, and the first.
func (p *Peer) Answer(seq uint16, now time.Duration) bool {
	back := int(p.seq - 1 - seq)
	if back >= p.known || p.replied>>back&1 != 0 {
		return false
	}
	p.replied |= 1 << back
	if back < timed {
		p.measure(now - p.sent[seq%timed])
	}
	if back == 0 {
		p.asked = false
	}
	p.look = now
	p.alive(now, now)
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
	p.replied = p.replied << 1 & (1<<window - 1)
	p.known = min(p.known+1, window)
	p.next(now)
	return seq, true
}

// next sets when something is due.
func (p *Peer) next(now time.Duration) {
	switch {
	case p.state == Up:
		p.wait(now)
	case p.asked:
		p.until = p.last() + p.timeout()
	default:
		p.until = p.ask
	}
}

// miss notes that the last probe was lost. If something else was heard since it was
// sent, the peer lives all the same: there are some that answer nothing.
func (p *Peer) miss(now time.Duration) {
	p.asked = false
	p.lost++
	if p.heard >= p.last() {
		return
	}
	p.missed++
	p.ask = now
	switch {
	case p.missed >= p.set.After:
		p.state = Down
		p.pause = min(max(2*p.pause, 2*leastTimeout), max(p.set.Every, leastTimeout))
		p.ask = max(now, p.last()+p.jitter(p.pause))
	case p.missed >= suspectAfter && p.state == Up:
		p.state = Suspect
	}
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
