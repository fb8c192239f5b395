package liveness

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// world simulates a peer, the path to it, and the caller of a Peer.
type world struct {
	t   *testing.T
	p   *Session
	now time.Duration

	rtt     time.Duration // of answers; negative: none
	lose    func(n int) bool
	traffic time.Duration // interval of the peer's own packets; 0: none
	packets int           // packets that have arrived
	seen    int           // how many of them the caller has counted
	told    int           // how many of them were reported at once
	next    time.Duration // when the next packet arrives

	sends    time.Duration // interval of packets to the peer; 0: none
	nextSent time.Duration // when the next one is sent
	sent     int           // packets that the caller has not counted
	noticed  int           // how many were reported at once
	refuses  bool          // probes cannot be sent

	probes  int
	answers map[time.Duration]uint16
	states  []string // with the time of each change
}

func newWorld(t *testing.T, set Settings) *world {
	return &world{t: t, p: New(set, uint16(rand.Uint32()), 0), answers: make(map[time.Duration]uint16)}
}

const tick = 10 * time.Millisecond

// run simulates the time until a moment, in ticks.
func (w *world) run(until time.Duration) {
	for ; w.now < until; w.now += tick {
		before, _ := w.p.State()
		for w.traffic > 0 && w.now >= w.next {
			w.packets++
			w.next = w.now + w.traffic
			if w.p.WantsNextPacket() {
				w.told++
				w.seen = w.packets
				w.p.Traffic(true, w.now)
			}
		}
		w.send()
		for at, seq := range w.answers {
			if at <= w.now {
				delete(w.answers, at)
				w.seen = w.packets
				if !w.p.Answer(seq, w.now) {
					w.t.Errorf("%v: the answer to %d is none", w.now, seq)
				}
				if w.p.Answer(seq, w.now) {
					w.t.Errorf("%v: the answer to %d is taken twice", w.now, seq)
				}
			}
		}
		for w.p.Due() <= w.now {
			if w.packets > w.seen {
				w.seen = w.packets
				w.p.Traffic(false, w.now)
			}
			w.countSent()
			if seq, ok := w.p.Next(w.now); ok {
				w.probes++
				if w.refuses {
					w.p.SendFailed(w.now)
				} else if w.rtt >= 0 && (w.lose == nil || !w.lose(w.probes)) {
					w.answers[w.now+w.rtt+time.Duration(w.probes)] = seq
				}
			}
			if w.p.Due() <= w.now {
				w.t.Fatalf("%v: due again at %v", w.now, w.p.Due())
			}
		}
		if after, missed := w.p.State(); after != before {
			w.states = append(w.states, fmt.Sprintf("%v %d", after, missed))
		}
	}
}

// send sends the packets that are due.
func (w *world) send() {
	if w.sends == 0 {
		return
	}
	for w.nextSent = max(w.nextSent, w.now-tick); w.now >= w.nextSent; w.nextSent += w.sends {
		w.sent++
		if w.p.WantsNextSent() {
			w.noticed++
			w.countSent()
		}
	}
}

// countSent reports the packets that were sent.
func (w *world) countSent() {
	if w.sent > 0 {
		w.p.Sent(w.sent, w.now)
		w.sent = 0
	}
}

func (s State) String() string { return [...]string{"unknown", "up", "suspect", "down"}[s] }

var usual = Settings{25 * time.Second, 5}

// A peer that answers is up after the first answer. It is then probed as often as
// necessary and no more, whether it sends packets or not.
func TestUp(t *testing.T) {
	w := newWorld(t, usual)
	w.rtt = 50 * time.Millisecond
	w.run(time.Second)
	if s, _ := w.p.State(); s != Up || w.probes != 1 {
		t.Fatalf("%v after %d probes", s, w.probes)
	}
	w.run(1000 * time.Second)
	if s, _ := w.p.State(); s != Up || w.probes < 40 || w.probes > 55 || len(w.states) != 1 {
		t.Errorf("%v, %d probes, %v", s, w.probes, w.states)
	}
	if rtt := w.p.RTT(); rtt < 45*time.Millisecond || rtt > 65*time.Millisecond || w.p.Loss() != 0 {
		t.Errorf("RTT %v, loss %v", rtt, w.p.Loss())
	}
	before := w.probes
	w.traffic, w.next = time.Second, w.now
	w.run(2000 * time.Second)
	if n := w.probes - before; n < 40 || n > 55 || len(w.states) != 1 || w.told > 2*n {
		t.Errorf("%d probes of a peer that sends, %v, told %d times", n, w.states, w.told)
	}
}

// Whenever a peer fails, it is down in time, but not before the required number of probes
// is lost; and it is up after the first packet or answer.
func TestDown(t *testing.T) {
	for _, set := range []Settings{usual, {time.Second, 1}, {time.Second, 3}, {5 * time.Second, 4}, {time.Minute, 10}} {
		for range 50 {
			w := newWorld(t, set)
			w.rtt = time.Duration(rand.IntN(200)) * time.Millisecond
			w.traffic = time.Duration(rand.IntN(3)) * set.Every / 5
			w.run(5*set.Every + time.Duration(rand.Int64N(int64(2*set.Every))))
			silent := w.now
			w.rtt, w.traffic = -1, 0
			clear(w.answers)
			bound := set.Every + time.Duration(set.After)*minTimeout
			for s, _ := w.p.State(); s != Down; s, _ = w.p.State() {
				w.run(w.now + tick)
				if w.now > silent+bound+time.Duration(2+set.After)*tick {
					t.Fatalf("%+v: silent at %v, %v at %v", set, silent, s, w.now)
				}
			}
			_, missed := w.p.State()
			if at, _ := w.p.LastPacket(); missed < set.After || w.now < at+set.Every {
				t.Errorf("%+v: heard at %v, down at %v after %d", set, at, w.now, missed)
			}
			want := fmt.Sprintf("[up 0 suspect %d down %d]", min(suspectAfter, set.After), missed)
			one := fmt.Sprintf("[up 0 down %d]", missed)
			if got := fmt.Sprint(w.states); got != want && (got != one || set.After > suspectAfter) {
				t.Errorf("%+v: %v, want %v", set, got, want)
			}
			// It is still probed, less and less often.
			before, since := w.probes, w.now
			w.run(w.now + 20*set.Every)
			if n := w.probes - before; n < 15 || n > 40 {
				t.Errorf("%+v: %d probes in %v of one that is down", set, n, w.now-since)
			}
			if rand.IntN(2) == 0 {
				w.rtt = 30 * time.Millisecond
			} else {
				w.traffic, w.next = set.Every/4, w.now
			}
			within := minTimeout + 2*maxTimeout // for a probe that is in flight, the next one, and the timeout of that
			if w.traffic == 0 {
				within = set.Every + time.Second
			}
			w.run(w.now + within)
			if s, _ := w.p.State(); w.traffic == 0 && s != Up || w.traffic > 0 && (s != Suspect || !w.p.OneWay()) {
				t.Errorf("%+v: %v %v after it is there again", set, s, within)
			}
		}
	}
}

// If our packets no longer arrive, but the peer's packets do, the peer is suspect in
// time. It stays suspect, not down, and not up before it answers. It is probed less and
// less often, and its packets are not reported each at once.
func TestDeaf(t *testing.T) {
	for _, set := range []Settings{usual, {2 * time.Second, 1}, {2 * time.Second, 2}, {5 * time.Second, 4}, {time.Minute, 10}} {
		for _, traffic := range []time.Duration{tick, time.Second, set.Every / 3, set.Every * 3 / 4, set.Every * 24 / 25} {
			name := fmt.Sprintf("%+v, a packet each %v", set, traffic)
			w := newWorld(t, set)
			w.rtt = 20 * time.Millisecond
			w.traffic = traffic
			w.run(3*set.Every + time.Duration(rand.Int64N(int64(set.Every))))
			w.rtt = -1
			clear(w.answers)
			begun, limit := w.now, min(suspectAfter, set.After)
			bound := set.Every + time.Duration(limit)*minTimeout
			for s, _ := w.p.State(); s != Suspect; s, _ = w.p.State() {
				w.run(w.now + tick)
				if w.now > begun+bound+time.Duration(2+limit)*tick {
					t.Fatalf("%s: deaf at %v, %v at %v", name, begun, s, w.now)
				}
			}
			w.run(w.now + set.Every) // at least one packet arrives
			if !w.p.OneWay() {
				t.Errorf("%s: not known to send", name)
			}
			before, told, since := w.probes, w.told, w.now
			w.run(w.now + 20*set.Every)
			// Two for each packet at most, of which one may come every 24/25 of Every.
			if n := w.probes - before; n < 15 || n > 42 {
				t.Errorf("%s: %d probes in %v", name, n, w.now-since)
			}
			if n := w.told - told; n > 2*20*trafficChecks {
				t.Errorf("%s: told at once %d times in %v", name, n, w.now-since)
			}
			if want := fmt.Sprintf("[up 0 suspect %d]", limit); fmt.Sprint(w.states) != want {
				t.Errorf("%s: %v, want %v", name, w.states, want)
			}
			w.rtt = 20 * time.Millisecond
			w.run(w.now + set.Every + time.Second)
			if s, missed := w.p.State(); s != Up || missed != 0 {
				t.Errorf("%s: %v after %d", name, s, missed)
			}
			w.rtt, w.traffic = -1, 0 // finally it also sends nothing
			w.run(w.now + 2*set.Every + time.Duration(set.After)*minTimeout)
			if s, _ := w.p.State(); s != Down {
				t.Errorf("%s: %v", name, s)
			}
			// Its packet causes a probe at once; it answers, and was not suspect in
			// between.
			w.rtt, w.traffic, w.next = 20*time.Millisecond, time.Hour, w.now
			changes := len(w.states)
			w.run(w.now + 3*minTimeout + 10*tick)
			if s, _ := w.p.State(); s != Up || len(w.states) != changes+1 {
				t.Errorf("%s: %v after it is heard: %v", name, s, w.states)
			}
		}
	}
}

// New settings apply at once, and nothing is forgotten.
func TestSet(t *testing.T) {
	w := newWorld(t, Settings{time.Hour, 5})
	w.rtt = 30 * time.Millisecond
	w.run(time.Minute)
	rtt := w.p.RTT()
	w.p.Set(usual, w.now)
	if s, _ := w.p.State(); s != Up || w.p.RTT() != rtt || w.probes != 1 {
		t.Errorf("%v, RTT %v, %d probes", s, w.p.RTT(), w.probes)
	}
	w.rtt = -1
	w.run(w.now + usual.Every + time.Duration(usual.After+1)*minTimeout)
	if s, _ := w.p.State(); s != Down {
		t.Errorf("%v", s)
	}
	w.p.Set(Settings{time.Second, 5}, w.now)
	w.rtt = 30 * time.Millisecond
	w.run(w.now + 2*time.Second)
	if s, _ := w.p.State(); s != Up || len(w.states) != 4 {
		t.Errorf("%v", w.states)
	}
}

// A peer that never answers is up while it sends packets. Before its first packet it is
// unknown, and then down. Later silence makes it suspect: it may be idle.
func TestSilent(t *testing.T) {
	w := newWorld(t, usual)
	w.rtt = -1
	w.run(3700 * time.Millisecond) // before five timeouts of 0.75 s are over
	if s, missed := w.p.State(); s != Unknown || missed < 3 {
		t.Errorf("%v after %d", s, missed)
	}
	w.run(6 * time.Second)
	if s, _ := w.p.State(); s != Down {
		t.Errorf("%v", s)
	}
	w.traffic, w.next = 10*time.Second, w.now
	w.run(1000 * time.Second)
	if s, _ := w.p.State(); s != Up || fmt.Sprint(w.states) != "[down 5 up 0]" {
		t.Errorf("%v, %v", s, w.states)
	}
	if w.probes > 5+2+1000/18 {
		t.Errorf("%d probes", w.probes)
	}
	if at, ok := w.p.LastPacket(); !ok || w.now-at > 10*time.Second+usual.Every/2+tick {
		t.Errorf("heard at %v, it is %v", at, w.now)
	}
	w.traffic = 0
	w.run(2000 * time.Second)
	if s, _ := w.p.State(); s != Suspect || fmt.Sprint(w.states) != "[down 5 up 0 suspect 3]" {
		t.Errorf("%v, %v", s, w.states)
	}
	for w.p.inFlight { // one error that may be forged
		w.run(w.now + tick)
	}
	w.p.UnreachableError(w.now)
	w.run(w.now + 2*usual.Every)
	if s, _ := w.p.State(); s != Suspect {
		t.Errorf("%v after one error", s)
	}
	for until := w.now + 3*usual.Every; w.now < until; w.run(w.now + minTimeout/2) { // one to each probe
		w.p.UnreachableError(w.now)
	}
	if s, _ := w.p.State(); s != Down {
		t.Errorf("%v after errors", s)
	}
}

// Round trips of seconds do not make a peer suspect: late answers count.
func TestSlow(t *testing.T) {
	for _, rtt := range []time.Duration{1200 * time.Millisecond, 2500 * time.Millisecond, 4 * time.Second} {
		w := newWorld(t, Settings{5 * time.Second, 6}) // this many probes take at least 4.5 s to be lost
		w.rtt = rtt
		w.run(500 * time.Second)
		if s, _ := w.p.State(); s != Up || len(w.states) != 1 {
			t.Errorf("%v: %v", rtt, w.states)
		}
		if got := w.p.RTT(); (got - rtt).Abs() > rtt/10 {
			t.Errorf("RTT %v, want %v", got, rtt)
		}
		if w.p.Loss() > 0.2 {
			t.Errorf("%v: loss %v", rtt, w.p.Loss())
		}
	}
}

func TestLoss(t *testing.T) {
	w := newWorld(t, Settings{5 * time.Second, 5})
	w.lose = func(n int) bool { return n%4 == 0 }
	w.run(1000 * time.Second)
	if s, _ := w.p.State(); s != Up || len(w.states) != 1 {
		t.Errorf("%v", w.states)
	}
	if loss := w.p.Loss(); loss < 0.2 || loss > 0.3 {
		t.Errorf("loss %v, want a quarter", loss)
	}
	if sent, lost := w.p.Probes(); int(sent) != w.probes || lost < sent/5 || lost > sent/3 {
		t.Errorf("%d of %d lost", lost, sent)
	}
}

// An error that reports the peer unreachable causes a probe, at most one per second.
func TestDoubt(t *testing.T) {
	w := newWorld(t, usual)
	w.run(5 * time.Second)
	before := w.probes
	for range 100 {
		w.p.UnreachableError(w.now)
		w.run(w.now + tick)
	}
	if n := w.probes - before; n != 1 {
		t.Errorf("%d probes in a second", n)
	}
	if s, _ := w.p.State(); s != Up {
		t.Errorf("%v", s)
	}
}

func TestRestart(t *testing.T) {
	w := newWorld(t, usual)
	w.run(100 * time.Second)
	seq := w.p.seq - 1
	sent, _ := w.p.Probes()
	w.p.Restart(usual, w.now)
	if w.p.Answer(seq, w.now) {
		t.Error("an answer from before is taken")
	}
	if s, _ := w.p.State(); s != Unknown || w.p.RTT() != 0 || w.p.Due() > w.now {
		t.Errorf("%v, RTT %v, due at %v", s, w.p.RTT(), w.p.Due())
	}
	w.run(w.now + time.Second)
	if now, _ := w.p.Probes(); now != sent+1 {
		t.Errorf("%d probes after %d", now, sent)
	}
}

// The probes of many peers that start together are spread over time.
func TestSpread(t *testing.T) {
	const peers = 10000
	var list []*Session
	for i := range peers {
		list = append(list, New(usual, uint16(i*7919), 0))
	}
	perSecond := make([]int, 400)
	for now := time.Duration(0); now < 400*time.Second; now += 250 * time.Millisecond {
		for _, p := range list {
			if p.Due() > now {
				continue
			}
			if seq, ok := p.Next(now); ok {
				perSecond[now/time.Second]++
				p.Answer(seq, now)
			}
		}
	}
	for s, n := range perSecond[370:] {
		if n > peers/10 {
			t.Errorf("%d of %d probes in second %d", n, peers, s+370)
		}
	}
}

func FuzzPeer(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 250, 0, 17, 3, 99})
	f.Fuzz(func(t *testing.T, ops []byte) {
		set := Settings{2 * time.Second, 4}
		p := New(set, 65530, 0)
		var now time.Duration
		heard, doubted := -set.Every, false
		var last uint16
		p.SetRole(Role(len(ops)%int(InUse+1)), 0)
		for i, op := range ops {
			now += time.Duration(op) * 10 * time.Millisecond
			switch i % 5 {
			case 0, 1:
				if seq, ok := p.Next(now); ok {
					last = seq
				}
				if p.Due() <= now {
					t.Fatalf("due at %v, it is %v", p.Due(), now)
				}
			case 2:
				if p.Answer(last-uint16(op%3), now) {
					heard, doubted = now, false
					if s, missed := p.State(); s != Up || missed != 0 {
						t.Fatalf("%v after %d and an answer", s, missed)
					}
				}
			case 3:
				exact := op%2 == 0
				p.Traffic(exact, now)
				if s, _ := p.State(); s == Unknown || s == Down && p.answerAt < 0 {
					t.Fatalf("%v with a packet", s)
				}
				if at, _ := p.LastPacket(); exact || at > heard {
					heard, doubted = at, false
				}
				if p.WantsNextPacket() {
					t.Fatal("the next packet would be told of, too")
				}
			case 4:
				if op%8 == 0 {
					p.SetRole(Role(op/8%byte(InUse+1)), now)
				}
				p.Sent(int(op), now)
				doubted = true
				p.UnreachableError(now)
			}
			s, missed := p.State()
			// A peer that is down and sends a packet is probed at once, before its state
			// changes.
			atOnce := p.inFlight || p.probeAt <= now+minTimeout
			if s == Up && missed >= suspectAfter || s == Down && !doubted && now < heard+set.Every && !atOnce || p.OneWay() && s != Suspect {
				t.Fatalf("%v after %d, heard at %v, it is %v", s, missed, heard, now)
			}
			if loss := p.Loss(); loss < 0 || loss > 1 || p.RTT() < 0 || missed < 0 || missed > 0 && s == Up && missed >= 4 {
				t.Fatalf("loss %v, RTT %v, %v after %d", loss, p.RTT(), s, missed)
			}
			if sent, lost := p.Probes(); lost > sent {
				t.Fatalf("%d of %d lost", lost, sent)
			}
		}
	})
}
