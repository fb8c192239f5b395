// Package pathmtu finds the largest packet that passes a path unfragmented. It uses ICMP
// errors and, because these are often filtered, probes (RFC 8899): echo requests that the
// far end of the tunnel answers.
//
// It only decides and remembers. Its caller sends the probes, reports answers, and passes
// the time.
package pathmtu

import "time"

// Source is where the path MTU is known from.
type Source string

// The sources: the interface of the route, which is the first hop; a router on the path; an
// answered probe.
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
	missesMax    = 3 // MAX_PROBES
	missPause    = 200 * time.Millisecond
	// busyCount large packets within busyWindow count as traffic. A single packet does not
	// justify three probes.
	busyCount  = 3
	busyWindow = 3 * time.Second
	// A round ends this long after the answer to its last probe: the other probes were
	// sent before it. Without that answer the round proves nothing.
	slack        = 100 * time.Millisecond
	roundTimeout = 2 * time.Second
	// A larger size is tried again this long after a decrease (PMTU_RAISE_TIMER). RFC 8899
	// proposes ten minutes; but a lost probe costs no user a packet.
	raiseEvery = time.Minute
	// If probes are not answered, a decrease is forgotten after this time (RFC 1191
	// section 6.3).
	forget = 10 * time.Minute
	// A new path is confirmed in up to this many rounds until a probe is answered. This
	// shows, before any router reports, whether probes can decide, and what size the far
	// end's packets may have before it sends any.
	greetings = 3
	// After probes have refuted a router's report, further reports are not checked for a
	// pause, which doubles each time: otherwise forged reports would make both ends send
	// more than the attacker does.
	doubtFirst = 200 * time.Millisecond
	doubtMost  = time.Minute
)

// sentinel is the size of a probe that passes every path. Each round ends with one.
const sentinel = 128

// usual are common path MTUs: Ethernet, PPPoE, tunnels over them, the minimum MTU of IPv6,
// and some of RFC 1191 section 7.1.
var usual = []int{9000, 4352, 1500, 1492, 1480, 1472, 1460, 1440, 1420, 1400, 1380, 1300, 1280, 1006, 576, 296}

// Path is the state of one path. It is not safe for concurrent use.
type Path struct {
	link, mtu int
	by        Source
	learnt    time.Time // when the MTU became less than the link's
	raise     time.Time // earliest time to try a larger MTU
	confirm   time.Time // earliest time to confirm the present MTU
	misses    int       // confirmations in a row that failed

	answers bool      // probes are answered
	silent  int       // rounds in a row without an answer
	pause   time.Time // no round before this time
	greet   int       // remaining rounds that need no traffic

	large     int // packets since window
	window    time.Time
	busyUntil time.Time

	search
	round
	seq   uint16
	doubt doubt
}

// doubt is the state that refuted reports of routers have led to.
type doubt struct {
	refuted uint64        // number of refuted reports
	wait    time.Duration // the present pause between two checks
	until   time.Time     // no report is checked before this time
}

// add records that a report was refuted.
func (d *doubt) add(now time.Time) {
	if now.Sub(d.until) > forget {
		d.wait = 0
	}
	d.refuted++
	d.wait = min(max(2*d.wait, doubtFirst), doubtMost)
	d.until = now.Add(d.wait)
}

// search looks for the largest size that passes, between two bounds.
type search struct {
	on      bool
	ok, bad int // the largest size known to pass, the smallest known not to
	hint    int // size reported by a router, to be tried first; 0: none
}

// round is a group of probes in flight.
type round struct {
	sizes  map[uint16]int // probes not yet answered
	last   uint16         // sequence number of the sentinel
	sent   time.Time      // zero: there is no round
	heard  time.Time      // when the sentinel was answered
	passed int            // the largest size that was answered
}

// Packet is a probe to send: an echo request with a sequence number, in an unfragmented
// outer packet of Size bytes.
type Packet struct {
	Seq  uint16
	Size int
}

// New returns a path of which only the first hop's MTU is known.
func New(link int) *Path { return &Path{link: link, mtu: link, by: Route, greet: greetings} }

// MTU returns the path MTU to use, and its source.
func (p *Path) MTU() (int, Source) { return p.mtu, p.by }

// Answering reports whether the far end is known to answer probes.
func (p *Path) Answering() bool { return p.answers }

// Unknown reports whether no probe has been answered yet, and none is in flight or due.
func (p *Path) Unknown() bool { return !p.answers && p.greet == 0 && p.sent.IsZero() }

// Heard reports that the far end has sent a packet. If it has not answered so far, it is
// probed once more: at once, or, after many silent rounds, when the pause is over.
func (p *Path) Heard(now time.Time) {
	if !p.Unknown() {
		return
	}
	p.greet = 1
	if p.silent <= greetings {
		p.pause = now
	}
}

// Forged returns how many router reports were refuted by probes.
func (p *Path) Forged() uint64 { return p.doubt.refuted }

// Checking reports whether the present round checks a router's report.
func (p *Path) Checking() bool { return p.on && p.hint != 0 && p.hint < p.bad-1 }

// Sent reports that n packets larger than IPv6's minimum MTU were sent.
func (p *Path) Sent(n int, now time.Time) {
	if now.Sub(p.window) > busyWindow {
		p.window, p.large = now, 0
	}
	if p.large += n; p.large >= busyCount {
		p.busyUntil = now.Add(busyWindow)
	}
}

// TooBig reports that a router on the path carries packets of up to mtu bytes. With proof,
// which means that the report quotes a probe, it is believed. Otherwise probes decide (RFC
// 8899 section 4.6.2): if the far end answers probes, the MTU does not change until then,
// and believed is false; if that is not known, the router is believed meanwhile.
//
// Only one check runs at a time. After a refuted report the next checks are delayed; if the
// path MTU really decreases meanwhile, confirmations detect it.
func (p *Path) TooBig(mtu int, proof bool, now time.Time) (believed bool) {
	switch {
	case proof && mtu <= p.mtu:
		p.decrease(mtu, ICMP, now)
		p.search, p.round = search{}, round{}
		return true
	case mtu >= p.mtu, p.answers && (p.on || now.Before(p.doubt.until)):
		return false
	}
	before, believed := p.mtu, !p.answers
	if believed {
		p.decrease(mtu, ICMP, now)
	}
	hint := max(mtu, sentinel+1)
	switch {
	case p.on: // the previous size is already being probed
		p.hint = min(p.hint, hint)
	case p.silent < missesMax: // otherwise no probe has been answered for long
		p.search, p.round, p.misses = search{on: true, ok: sentinel, bad: before + 1, hint: hint}, round{}, 0
		p.pause = now
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
	if !p.answers { // reports received before were never checked
		p.raise = now
	}
	p.answers, p.silent, p.greet = true, 0, 0
	p.passed = max(p.passed, size)
	if seq == p.last {
		p.heard = now
	}
}

// Next returns the probes to send now, and when to call it again. A zero time means: when
// there is traffic, or a router's report.
func (p *Path) Next(now time.Time) (probes []Packet, again time.Time) {
	if !p.sent.IsZero() {
		if until := p.roundEnd(); len(p.sizes) > 0 && now.Before(until) {
			return nil, until
		}
		p.conclude(now)
	}
	busy := now.Before(p.busyUntil)
	if p.mtu < p.link && !p.answers && now.Sub(p.learnt) >= forget {
		p.mtu, p.by = p.link, Route
	}
	if !p.on && busy && p.mtu < p.link && !now.Before(p.raise) && p.answers {
		p.search = search{on: true, ok: p.mtu, bad: p.link + 1, hint: p.link}
	}
	switch {
	case !p.on && !busy && p.greet == 0 && p.misses == 0:
		if p.mtu < p.link && !p.answers {
			return nil, p.learnt.Add(forget)
		}
		return nil, time.Time{}
	case now.Before(p.pause):
		return nil, p.pause
	case p.on:
		probes = p.probe(now, p.candidates()...)
	case now.Before(p.confirm):
		return nil, p.confirm
	default:
		p.greet = max(p.greet-1, 0)
		probes = p.probe(now, p.mtu)
	}
	return probes, p.roundEnd()
}

// probe starts a round.
func (p *Path) probe(now time.Time, sizes ...int) []Packet {
	p.round = round{sizes: make(map[uint16]int), sent: now}
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
	if r.heard.IsZero() {
		return r.sent.Add(roundTimeout)
	}
	return r.heard.Add(slack)
}

// conclude evaluates a finished round.
func (p *Path) conclude(now time.Time) {
	r := p.round
	p.round = round{}
	if r.heard.IsZero() && r.passed == 0 {
		p.unheard(now)
		return
	}
	if r.heard.IsZero() { // the sentinel was lost: repeat the round
		return
	}
	if !p.on {
		p.confirmed(r.passed >= p.mtu, now)
		return
	}
	if p.Checking() {
		p.verified(r.passed, now)
		return
	}
	p.ok = max(p.ok, r.passed)
	for _, size := range r.sizes {
		if size > p.ok {
			p.bad = min(p.bad, size)
		}
	}
	if p.mtu >= p.bad && p.ok > sentinel { // decrease at once, before the exact size is known
		p.decrease(p.ok, Probe, now)
	}
	p.hint = 0
	if p.bad-p.ok <= 1 {
		p.settle(now)
	}
}

// verified evaluates a round that checks a router's report. It probes the previous size
// and, once that was lost, the reported size. The report is right if the previous size is
// lost repeatedly, not only by chance.
func (p *Path) verified(passed int, now time.Time) {
	if passed >= p.bad-1 {
		p.doubt.add(now)
		p.ok = passed
		p.settle(now)
		return
	}
	if p.misses++; p.misses < missesMax {
		return
	}
	p.misses, p.doubt.wait = 0, 0
	if passed >= p.hint {
		p.decrease(p.hint, ICMP, now)
		p.search = search{}
		return
	}
	p.bad, p.hint = p.hint, 0 // right, but a later link has an even smaller MTU
}

// settle ends a search with the largest size that passes.
func (p *Path) settle(now time.Time) {
	if p.ok == p.link {
		p.mtu, p.by = p.link, Route
	} else if p.ok != p.mtu {
		p.mtu, p.by, p.learnt = p.ok, Probe, now
	}
	p.raise, p.confirm, p.misses = now.Add(raiseEvery), now.Add(confirmEvery), 0
	p.search = search{}
}

// decrease sets a smaller MTU.
func (p *Path) decrease(mtu int, by Source, now time.Time) {
	p.mtu, p.by, p.learnt = mtu, by, now
	p.raise, p.confirm, p.misses = now.Add(raiseEvery), now.Add(confirmEvery), 0
}

// confirmed evaluates a round that confirms the present size.
func (p *Path) confirmed(yes bool, now time.Time) {
	if yes {
		p.misses, p.confirm = 0, now.Add(confirmEvery)
		return
	}
	if p.misses++; p.misses < missesMax {
		p.pause = now.Add(missPause)
		return
	}
	p.misses = 0
	p.search = search{on: true, ok: sentinel, bad: p.mtu + 1} // the search tries the present size once more
}

// unheard evaluates a round without any answer, which proves nothing. A peer that never
// answers is probed less and less often.
func (p *Path) unheard(now time.Time) {
	p.silent++
	switch {
	case p.silent < missesMax:
		p.pause = now.Add(missPause)
		return
	case p.silent < 2*missesMax:
		p.pause = now.Add(30 * time.Second)
	default:
		p.pause = now.Add(5 * time.Minute)
	}
	p.answers = false
	if p.on && p.hint != 0 && p.hint < p.mtu { // only the router's report is left
		p.decrease(p.hint, ICMP, now)
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
		return []int{p.bad - 1} // if this passes, the report is refuted with the fewest probes
	case p.Checking():
		return []int{p.bad - 1, p.hint}
	case p.hint != 0 && p.ok < p.hint: // after an increase: also some sizes between
		return append([]int{p.hint}, between(p.ok, p.hint)...)
	case p.ok <= sentinel:
		for _, size := range usual {
			if p.ok < size && size < p.bad-1 {
				sizes = append(sizes, size)
			}
		}
		if p.bad == p.mtu+1 {
			sizes = append(sizes, p.mtu)
		}
		if len(sizes) > 0 {
			return sizes
		}
	}
	return between(p.ok, p.bad)
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
