// Package pathmtu finds out how large a packet may be to pass a path whole: from
// ICMP, and, because ICMP is often filtered, from probes (RFC 8899), which are
// echo requests that the far end of the tunnel answers.
//
// It decides and remembers, and does nothing else: its user sends the probes,
// tells of answers, and brings the time.
package pathmtu

import "time"

// Source is from where the path MTU is known.
type Source string

// The sources: the route's interface, which is the first hop; a router on the
// way; an answered probe.
const (
	Route Source = "route"
	ICMP  Source = "icmp"
	Probe Source = "probe"
)

// Times and counts. RFC 8899 section 5.1 has names for most of them.
const (
	// A path with large packets on it is confirmed this often, by one probe of
	// their size and a small one. If the small one is answered and the large one
	// is not, three times in a row, the path is a black hole for large packets.
	confirmEvery = time.Second
	missesMax    = 3 // MAX_PROBES
	missPause    = 200 * time.Millisecond
	// Traffic is so many large packets within so long. One packet alone is no
	// reason to send three.
	busyCount  = 3
	busyWindow = 3 * time.Second
	// A round is over so long after its last probe was answered: the others were
	// sent before. Without an answer to that one it says nothing.
	slack        = 100 * time.Millisecond
	roundTimeout = 2 * time.Second
	// After a decrease a larger size is tried again (PMTU_RAISE_TIMER). RFC 8899
	// proposes ten minutes; a probe that is lost costs nobody a packet.
	raiseEvery = time.Minute
	// A decrease is forgotten after so long where probes cannot tell (RFC 1191
	// section 6.3).
	forget = 10 * time.Minute
	// A new path is confirmed, too, in so many rounds until something is answered:
	// then it is known who has the last word before a router speaks, and how large
	// the far end's packets may be before it sends any.
	greetings = 3
	// After a router's word that probes have refuted, further ones are not checked
	// for so long, twice as long each time: whoever forges them makes us send, and
	// the far end answer, more than it sends itself.
	doubtFirst = 200 * time.Millisecond
	doubtMost  = time.Minute
)

// sentinel is the size of a probe that passes every path, and with which each
// round ends.
const sentinel = 128

// usual are path MTUs that paths have for a reason: Ethernet, PPPoE, tunnels over
// them, IPv6's least, and some of RFC 1191 section 7.1.
var usual = []int{9000, 4352, 1500, 1492, 1480, 1472, 1460, 1440, 1420, 1400, 1380, 1300, 1280, 1006, 576, 296}

// Path is what is known of one path. It is not safe for concurrent use.
type Path struct {
	link, mtu int
	by        Source
	learnt    time.Time // when the MTU became less than the link's
	raise     time.Time // not before: try a larger one
	confirm   time.Time // not before: see whether the present one still passes
	misses    int       // confirmations in a row that failed

	answers bool      // probes are answered
	silent  int       // rounds in a row without an answer
	pause   time.Time // no round before
	greet   int       // rounds left that need no traffic

	large     int // packets since window
	window    time.Time
	busyUntil time.Time

	search
	round
	seq   uint16
	doubt doubt
}

// doubt is what refuted reports of routers have led to.
type doubt struct {
	refuted uint64        // how many
	wait    time.Duration // the present pause between two checks
	until   time.Time     // no report is checked before
}

// add notes that a report was refuted.
func (d *doubt) add(now time.Time) {
	if now.Sub(d.until) > forget {
		d.wait = 0
	}
	d.refuted++
	d.wait = min(max(2*d.wait, doubtFirst), doubtMost)
	d.until = now.Add(d.wait)
}

// search is for the largest size that passes, between two bounds.
type search struct {
	on      bool
	ok, bad int // the largest size known to pass, the smallest known not to
	hint    int // what a router said, to be tried first; 0: nothing
}

// round is a handful of probes that are on their way.
type round struct {
	sizes  map[uint16]int // not yet answered
	last   uint16         // the sentinel's
	sent   time.Time      // zero: there is no round
	heard  time.Time      // the sentinel's answer
	passed int            // the largest size that was answered
}

// Packet is a probe to be sent: an echo request with a sequence number, in an
// outer packet of Size bytes, whole.
type Packet struct {
	Seq  uint16
	Size int
}

// New is a path of which only the MTU of its first hop is known.
func New(link int) *Path { return &Path{link: link, mtu: link, by: Route, greet: greetings} }

// MTU is the path MTU to be used, and from where it is known.
func (p *Path) MTU() (int, Source) { return p.mtu, p.by }

// Answering reports whether the far end answers probes, as far as is known.
func (p *Path) Answering() bool { return p.answers }

// Unknown reports whether nobody has answered yet, and nobody is being asked.
func (p *Path) Unknown() bool { return !p.answers && p.greet == 0 && p.sent.IsZero() }

// Heard tells that the far end has sent something: if it was silent so far, it is
// asked once more: at once if it came late, otherwise when it is time.
func (p *Path) Heard(now time.Time) {
	if !p.Unknown() {
		return
	}
	p.greet = 1
	if p.silent <= greetings {
		p.pause = now
	}
}

// Forged is how many times probes have shown a router's word to be false.
func (p *Path) Forged() uint64 { return p.doubt.refuted }

// Checking reports whether the probes of the present round are there because of
// what a router said.
func (p *Path) Checking() bool { return p.on && p.hint != 0 && p.hint < p.bad-1 }

// Sent tells that n packets larger than IPv6's least MTU have been sent.
func (p *Path) Sent(n int, now time.Time) {
	if now.Sub(p.window) > busyWindow {
		p.window, p.large = now, 0
	}
	if p.large += n; p.large >= busyCount {
		p.busyUntil = now.Add(busyWindow)
	}
}

// TooBig tells that a router on the way said that it carries packets of mtu
// bytes. With proof, because it was about a probe, it is believed. Otherwise
// probes have the last word (RFC 8899 section 4.6.2): where they are answered the
// MTU remains until then, and believed is false; where that is not known, the
// router is believed meanwhile.
//
// One check runs at a time. After one that refuted a router the next ones wait:
// meanwhile a path that has become narrow is found by confirmations.
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
	case p.on: // the size of before is being probed already
		p.hint = min(p.hint, hint)
	case p.silent < missesMax: // otherwise nobody answers, as far as is known
		p.search, p.round, p.misses = search{on: true, ok: sentinel, bad: before + 1, hint: hint}, round{}, 0
		p.pause = now
	}
	return believed
}

// Answer tells that the answer to a probe came.
func (p *Path) Answer(seq uint16, now time.Time) {
	size, ok := p.sizes[seq]
	if !ok {
		return
	}
	delete(p.sizes, seq)
	if !p.answers { // what a router said meanwhile was never checked
		p.raise = now
	}
	p.answers, p.silent, p.greet = true, 0, 0
	p.passed = max(p.passed, size)
	if seq == p.last {
		p.heard = now
	}
}

// Next is what is to be sent now, and when to ask again; a zero time means: not
// before there is traffic, or a router's word.
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

// probe begins a round.
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

// roundEnd is when the round is over if no more answers come.
func (r *round) roundEnd() time.Time {
	if r.heard.IsZero() {
		return r.sent.Add(roundTimeout)
	}
	return r.heard.Add(slack)
}

// conclude ends a round.
func (p *Path) conclude(now time.Time) {
	r := p.round
	p.round = round{}
	if r.heard.IsZero() && r.passed == 0 {
		p.unheard(now)
		return
	}
	if r.heard.IsZero() { // the sentinel was lost: once more
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
	if p.mtu >= p.bad && p.ok > sentinel { // do not wait for the exact size
		p.decrease(p.ok, Probe, now)
	}
	p.hint = 0
	if p.bad-p.ok <= 1 {
		p.settle(now)
	}
}

// verified is the outcome of a round that was to show whether a router is right:
// of two sizes, that of before and the one that it said, the larger must be lost,
// and not by chance.
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
	p.bad, p.hint = p.hint, 0 // right, but there is a narrower link behind
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

// decrease takes a smaller MTU.
func (p *Path) decrease(mtu int, by Source, now time.Time) {
	p.mtu, p.by, p.learnt = mtu, by, now
	p.raise, p.confirm, p.misses = now.Add(raiseEvery), now.Add(confirmEvery), 0
}

// confirmed is the outcome of a round that was to show that the present size
// passes.
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
	p.search = search{on: true, ok: sentinel, bad: p.mtu + 1} // which is tried once more
}

// unheard is the outcome of a round of which nothing came back: nothing can be
// said. A peer that never answers is asked less and less.
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
	if p.on && p.hint != 0 && p.hint < p.mtu { // only the router is left to believe
		p.decrease(p.hint, ICMP, now)
	}
	p.search = search{}
}

// perRound is how many sizes a round tries between two bounds: with 8 the
// distance becomes a ninth in one round trip.
const perRound = 8

// candidates are the sizes to be tried next.
func (p *Path) candidates() []int {
	var sizes []int
	switch {
	case p.Checking() && p.misses == 0:
		return []int{p.bad - 1} // that this passes refutes the router, and costs least
	case p.Checking():
		return []int{p.bad - 1, p.hint}
	case p.hint != 0 && p.ok < p.hint: // on the way up, and some between
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

// between are up to perRound sizes that cut the space between two bounds into
// equal parts.
func between(ok, bad int) []int {
	var sizes []int
	n := min(perRound, bad-ok-1)
	for i := range n {
		sizes = append(sizes, ok+(bad-ok)*(i+1)/(n+1))
	}
	return sizes
}
