// Package pathmtu finds the largest packet that passes a path unfragmented. It uses ICMP
// errors and, because these are often filtered, probes (RFC 8899): echo requests that the
// far end of the tunnel answers.
//
// It sends nothing itself. Its caller sends the probes, reports answers, and passes
// the time.
package pathmtu

import "time"

// Source is where the path MTU is known from.
type Source string

// The sources: the interface of the route, which is the first hop; a router on the path;
// an answered probe.
const (
	Route Source = "route"
	ICMP  Source = "icmp"
	Probe Source = "probe"
)

// Times and counts. RFC 8899 section 5.1 has names for most of them.
const (
	// A path that carries large packets is confirmed this often, by a probe of their size
	// and a small one. If the small one is answered and the large one is not, missesMax
	// times in a row, the path is a black hole for large packets.
	confirmEvery = time.Second
	maxMisses    = 3 // MAX_PROBES
	missPause    = 200 * time.Millisecond
	// busyCount large packets within busyWindow count as traffic. A single packet does
	// not justify three probes.
	busyCount  = 3
	busyWindow = 3 * time.Second
	// A round ends this long after the answer to its last probe: the other probes were
	// sent before it. Without that answer the round proves nothing.
	lateAnswers  = 100 * time.Millisecond
	roundTimeout = 2 * time.Second
	// A larger size is tried again this long after a decrease (PMTU_RAISE_TIMER). RFC
	// 8899 proposes ten minutes; but a lost probe costs no user a packet.
	raiseEvery = time.Minute
	// If probes are not answered, a decrease is forgotten after this time (RFC 1191
	// section 6.3).
	forgetAfter = 10 * time.Minute
	// A new path is confirmed in up to this many rounds until a probe is answered. This
	// shows, before any router reports, whether probes can decide, and what size the far
	// end's packets may have before it sends any.
	initialRounds = 3
	// After probes have refuted a router's report, further reports are not checked for a
	// pause, which doubles each time: otherwise forged reports would make both ends send
	// more than the attacker does.
	minCheckPause = 200 * time.Millisecond
	maxCheckPause = time.Minute
)

// sentinel is the size of a probe that passes every path. Each round ends with one.
const sentinel = 128

// usual are common path MTUs: Ethernet, PPPoE, tunnels over them, the minimum MTU of
// IPv6, and some of RFC 1191 section 7.1.
var usual = []int{9000, 4352, 1500, 1492, 1480, 1472, 1460, 1440, 1420, 1400, 1380, 1300, 1280, 1006, 576, 296}

// Path is the state of one path. It is not safe for concurrent use.
type Path struct {
	link, mtu   int
	source      Source
	decreasedAt time.Time // when the MTU became less than the link's
	raiseAt     time.Time // earliest time to try a larger MTU
	notBefore   time.Time // no round before this time
	seq         uint16    // of the last probe
	traffic     traffic
	confirmation
	farEnd
	search
	round
	refuted refutations
}

// traffic counts large packets.
type traffic struct {
	count     int       // packets since the window began
	window    time.Time // when it began
	busyUntil time.Time
}

// confirmation is the state of the repeated test whether the present MTU still passes.
type confirmation struct {
	confirmAt time.Time // earliest time to confirm the present MTU
	misses    int       // confirmations in a row that failed
	shows     bool      // a size that was confirmed is found by a probe, not only assumed
}

// farEnd is what is known about the end that answers probes.
type farEnd struct {
	answering    bool // it answers probes
	silentRounds int  // rounds in a row without an answer
	initial      int  // remaining rounds that need no traffic
}

// refutations is the state that refuted reports of routers have led to.
type refutations struct {
	count uint64        // number of refuted reports
	wait  time.Duration // the present pause between two checks
	until time.Time     // no report is checked before this time
}

// add records that a report was refuted.
func (d *refutations) add(now time.Time) {
	if now.Sub(d.until) > forgetAfter {
		d.wait = 0
	}
	d.count++
	d.wait = min(max(2*d.wait, minCheckPause), maxCheckPause)
	d.until = now.Add(d.wait)
}

// search looks for the largest size that passes, between two bounds.
type search struct {
	on            bool
	passes, fails int // the largest size known to pass, the smallest known not to
	reported      int // size reported by a router, to be tried first; 0: none
}

// round is a group of probes in flight.
type round struct {
	sizes      map[uint16]int // probes not yet answered
	last       uint16         // sequence number of the sentinel
	sentAt     time.Time      // zero: there is no round
	answeredAt time.Time      // when the sentinel was answered
	passed     int            // the largest size that was answered
}

// Packet is a probe to send: an echo request with a sequence number, in an unfragmented
// outer packet of Size bytes.
type Packet struct {
	Seq  uint16
	Size int
}

// New returns a path of which only the first hop's MTU is known.
func New(link int) *Path {
	return &Path{link: link, mtu: link, source: Route, farEnd: farEnd{initial: initialRounds}}
}

// ShowConfirmed makes the source of the first hop's MTU Probe once a probe of this size was
// answered.
func (p *Path) ShowConfirmed() { p.shows = true }

// MTU returns the path MTU to use, and its source.
func (p *Path) MTU() (int, Source) { return p.mtu, p.source }

// Answering reports whether the far end is known to answer probes.
func (p *Path) Answering() bool { return p.answering }

// Unknown reports whether no probe has been answered yet, and none is in flight or due.
func (p *Path) Unknown() bool { return !p.answering && p.initial == 0 && p.sentAt.IsZero() }

// Received reports that the far end has sent a packet. If it has not answered so far, it
// is probed once more: at once, or, after many silent rounds, when the pause is over.
func (p *Path) Received(now time.Time) {
	if !p.Unknown() {
		return
	}
	p.initial = 1
	if p.silentRounds <= initialRounds {
		p.notBefore = now
	}
}

// RefutedReports returns how many router reports were refuted by probes.
func (p *Path) RefutedReports() uint64 { return p.refuted.count }

// Checking reports whether the present round checks a router's report.
func (p *Path) Checking() bool { return p.on && p.reported != 0 && p.reported < p.fails-1 }

// Sent reports that n packets larger than IPv6's minimum MTU were sent.
func (p *Path) Sent(n int, now time.Time) {
	if now.Sub(p.traffic.window) > busyWindow {
		p.traffic.window, p.traffic.count = now, 0
	}
	if p.traffic.count += n; p.traffic.count >= busyCount {
		p.traffic.busyUntil = now.Add(busyWindow)
	}
}

// TooBig reports that a router on the path carries packets of up to mtu bytes. With
// proof, which means that the report quotes a probe, it is believed. Otherwise probes
// decide (RFC 8899 section 4.6.2): if the far end answers probes, the MTU does not change
// until then, and believed is false; if that is not known, the router is believed
// meanwhile.
//
// Only one check runs at a time. After a refuted report the next checks are delayed; if
// the path MTU really decreases meanwhile, confirmations detect it.
func (p *Path) TooBig(mtu int, proof bool, now time.Time) (believed bool) {
	switch {
	case proof && mtu <= p.mtu:
		p.decrease(mtu, ICMP, now)
		p.search, p.round = search{}, round{}
		return true
	case mtu >= p.mtu, p.answering && (p.on || now.Before(p.refuted.until)):
		return false
	}
	before, believed := p.mtu, !p.answering
	if believed {
		p.decrease(mtu, ICMP, now)
	}
	reported := max(mtu, sentinel+1)
	switch {
	case p.on: // the previous size is already being probed
		p.reported = min(p.reported, reported)
	case p.silentRounds < maxMisses: // otherwise no probe has been answered for long
		p.search, p.round, p.misses = search{on: true, passes: sentinel, fails: before + 1, reported: reported}, round{}, 0
		p.notBefore = now
	}
	return believed
}

// Answer reports an answer to a probe.
func (p *Path) Answer(seq uint16, now time.Time) {
	size, ok := p.sizes[seq]
	if !ok {
		return
	}
	delete(p.sizes, seq)
	if !p.answering { // reports received before were never checked
		p.raiseAt = now
	}
	p.answering, p.silentRounds, p.initial = true, 0, 0
	p.passed = max(p.passed, size)
	if seq == p.last {
		p.answeredAt = now
	}
}

// Next returns the probes to send now, and when to call it again. A zero time means: when
// there is traffic, or a router's report.
func (p *Path) Next(now time.Time) (probes []Packet, again time.Time) {
	if !p.sentAt.IsZero() {
		if until := p.roundEnd(); len(p.sizes) > 0 && now.Before(until) {
			return nil, until
		}
		p.conclude(now)
	}
	busy := now.Before(p.traffic.busyUntil)
	if p.mtu < p.link && !p.answering && now.Sub(p.decreasedAt) >= forgetAfter {
		p.mtu, p.source = p.link, Route
	}
	if !p.on && busy && p.mtu < p.link && !now.Before(p.raiseAt) && p.answering {
		p.search = search{on: true, passes: p.mtu, fails: p.link + 1, reported: p.link}
	}
	switch {
	case !p.on && !busy && p.initial == 0 && p.misses == 0:
		if p.mtu < p.link && !p.answering {
			return nil, p.decreasedAt.Add(forgetAfter)
		}
		return nil, time.Time{}
	case now.Before(p.notBefore):
		return nil, p.notBefore
	case p.on:
		probes = p.probe(now, p.candidates()...)
	case now.Before(p.confirmAt):
		return nil, p.confirmAt
	default:
		p.initial = max(p.initial-1, 0)
		probes = p.probe(now, p.mtu)
	}
	return probes, p.roundEnd()
}

// probe starts a round.
func (p *Path) probe(now time.Time, sizes ...int) []Packet {
	p.round = round{sizes: make(map[uint16]int), sentAt: now}
	var all []Packet
	for _, size := range append(sizes, sentinel) {
		p.seq++
		all = append(all, Packet{p.seq, size})
		p.sizes[p.seq] = size
	}
	p.last = p.seq
	return all
}

// roundEnd returns when the round ends if no more answers come.
func (r *round) roundEnd() time.Time {
	if r.answeredAt.IsZero() {
		return r.sentAt.Add(roundTimeout)
	}
	return r.answeredAt.Add(lateAnswers)
}

// conclude evaluates a finished round.
func (p *Path) conclude(now time.Time) {
	r := p.round
	p.round = round{}
	if r.answeredAt.IsZero() && r.passed == 0 {
		p.noAnswers(now)
		return
	}
	if r.answeredAt.IsZero() { // the sentinel was lost: repeat the round
		return
	}
	if !p.on {
		p.confirmed(r.passed >= p.mtu, now)
		return
	}
	if p.Checking() {
		p.checkReport(r.passed, now)
		return
	}
	p.passes = max(p.passes, r.passed)
	for _, size := range r.sizes {
		if size > p.passes {
			p.fails = min(p.fails, size)
		}
	}
	if p.mtu >= p.fails && p.passes > sentinel { // decrease at once, before the exact size is known
		p.decrease(p.passes, Probe, now)
	}
	p.reported = 0
	if p.fails-p.passes <= 1 {
		p.finishSearch(now)
	}
}

// checkReport evaluates a round that checks a router's report. It probes the previous
// size and, once that was lost, the reported size. The report is right if the previous
// size is lost repeatedly, not only by chance.
func (p *Path) checkReport(passed int, now time.Time) {
	if passed >= p.fails-1 {
		p.refuted.add(now)
		p.passes = passed
		p.finishSearch(now)
		return
	}
	if p.misses++; p.misses < maxMisses {
		return
	}
	p.misses, p.refuted.wait = 0, 0
	if passed >= p.reported {
		p.decrease(p.reported, ICMP, now)
		p.search = search{}
		return
	}
	p.fails, p.reported = p.reported, 0 // right, but a later link has an even smaller MTU
}

// finishSearch ends a search with the largest size that passes.
func (p *Path) finishSearch(now time.Time) {
	if p.passes == p.link {
		p.mtu, p.source = p.link, Route
	} else if p.passes != p.mtu {
		p.mtu, p.source, p.decreasedAt = p.passes, Probe, now
	}
	p.raiseAt, p.confirmAt, p.misses = now.Add(raiseEvery), now.Add(confirmEvery), 0
	p.search = search{}
}

// decrease sets a smaller MTU.
func (p *Path) decrease(mtu int, by Source, now time.Time) {
	p.mtu, p.source, p.decreasedAt = mtu, by, now
	p.raiseAt, p.confirmAt, p.misses = now.Add(raiseEvery), now.Add(confirmEvery), 0
}

// confirmed evaluates a round that confirms the present size.
func (p *Path) confirmed(yes bool, now time.Time) {
	if yes {
		p.misses, p.confirmAt = 0, now.Add(confirmEvery)
		if p.shows && p.source == Route {
			p.source = Probe
		}
		return
	}
	if p.misses++; p.misses < maxMisses {
		p.notBefore = now.Add(missPause)
		return
	}
	p.misses = 0
	p.search = search{on: true, passes: sentinel, fails: p.mtu + 1} // the search tries the present size once more
}

// noAnswers evaluates a round without any answer, which proves nothing. A peer that never
// answers is probed less and less often.
func (p *Path) noAnswers(now time.Time) {
	p.silentRounds++
	switch {
	case p.silentRounds < maxMisses:
		p.notBefore = now.Add(missPause)
		return
	case p.silentRounds < 2*maxMisses:
		p.notBefore = now.Add(30 * time.Second)
	default:
		p.notBefore = now.Add(5 * time.Minute)
	}
	p.answering = false
	if p.on && p.reported != 0 && p.reported < p.mtu { // only the router's report is left
		p.decrease(p.reported, ICMP, now)
	}
	p.search = search{}
}

// perRound is how many sizes a round tries between two bounds: with 8, one round reduces
// the distance to a ninth.
const perRound = 8

// candidates returns the sizes to try next.
func (p *Path) candidates() []int {
	var sizes []int
	switch {
	case p.Checking() && p.misses == 0:
		return []int{p.fails - 1} // if this passes, the report is refuted with the fewest probes
	case p.Checking():
		return []int{p.fails - 1, p.reported}
	case p.reported != 0 && p.passes < p.reported: // after an increase: also some sizes between
		return append([]int{p.reported}, between(p.passes, p.reported)...)
	case p.passes <= sentinel:
		for _, size := range usual {
			if p.passes < size && size < p.fails-1 {
				sizes = append(sizes, size)
			}
		}
		if p.fails == p.mtu+1 {
			sizes = append(sizes, p.mtu)
		}
		if len(sizes) > 0 {
			return sizes
		}
	}
	return between(p.passes, p.fails)
}

// between returns up to perRound sizes that divide the interval between two bounds into
// equal parts.
func between(ok, bad int) []int {
	var sizes []int
	n := min(perRound, bad-ok-1)
	for i := range n {
		sizes = append(sizes, ok+(bad-ok)*(i+1)/(n+1))
	}
	return sizes
}
