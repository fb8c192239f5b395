package liveness

import (
	"fmt"
	"testing"
	"time"
)

const ms = time.Millisecond

// inUse returns a path in use that has been up for a while.
func inUse(t *testing.T, set Settings, rtt time.Duration) *world {
	t.Helper()
	w := newWorld(t, set)
	w.rtt = rtt
	w.p.SetRole(InUse, 0)
	w.run(5 * time.Second)
	if s, _ := w.p.State(); s != Up || w.probes > 8 {
		t.Fatalf("%v after %d probes", s, w.probes)
	}
	return w
}

// fails lets the path fail, and returns how long after the last answer or packet it is no
// longer up.
func (w *world) fails() time.Duration {
	w.t.Helper()
	w.rtt, w.traffic = -1, 0
	clear(w.answers)
	from := w.now
	for s, _ := w.p.State(); s == Up; s, _ = w.p.State() {
		w.run(w.now + tick)
		if w.now > from+time.Minute {
			w.t.Fatalf("still %v", s)
		}
	}
	return w.now - max(w.p.answerAt, w.p.packetAt)
}

// A path on which packets are sent is suspect no later than 3 seconds after the last sign of
// the peer, whatever the settings, and however many packets come back before.
func TestInUse(t *testing.T) {
	for _, set := range []Settings{usual, {time.Second, 1}, {time.Second, 5}, {time.Hour, 10}} {
		for _, rtt := range []time.Duration{ms, 40 * ms, 300 * ms, 700 * ms} {
			for _, sends := range []time.Duration{50 * time.Microsecond, 20 * ms, 300 * ms} {
				for _, traffic := range []time.Duration{0, 20 * ms, 300 * ms} {
					name := fmt.Sprintf("%v, RTT %v, a packet each %v, and back each %v", set, rtt, sends, traffic)
					w := inUse(t, set, rtt)
					w.sends, w.traffic, w.next = sends, traffic, w.now
					before := w.probes
					w.run(w.now + 60*time.Second)
					if n := w.probes - before; len(w.states) != 1 || n > 90 {
						t.Fatalf("%s: %v, %d probes in a minute", name, w.states, n)
					}
					if after := w.fails(); after > 3*time.Second+2*tick {
						t.Errorf("%s: not up any more after %v", name, after)
					}
				}
			}
		}
	}
}

// Without packets, or with few that are answered, a path in use is probed as any other one.
func TestInUseIdle(t *testing.T) {
	w := inUse(t, usual, 20*ms)
	w.run(w.now + 200*time.Second)
	if w.probes > 12 || len(w.states) != 1 || w.noticed > 0 {
		t.Errorf("%d probes, %v", w.probes, w.states)
	}
	w.sends, w.traffic, w.next = 300*ms, 300*ms, w.now
	before := w.probes
	w.run(w.now + 200*time.Second)
	if n := w.probes - before; n > 15 || len(w.states) != 1 || w.noticed > 2 {
		t.Errorf("with packets that are answered: %d probes, %v, %d notices", n, w.states, w.noticed)
	}
	w.sends, w.traffic = 0, 0
	w.run(w.now + 2*time.Second)
	before = w.probes
	w.run(w.now + 200*time.Second)
	if n := w.probes - before; n > 12 {
		t.Errorf("idle again: %d probes", n)
	}
	w.rtt = -1
	clear(w.answers)
	w.sends = 100 * time.Second // the first packet after a while
	w.nextSent = w.now
	w.run(w.now + tick)
	for s, _ := w.p.State(); s == Up && w.now < w.nextSent; s, _ = w.p.State() {
		w.run(w.now + tick)
	}
	if left := w.nextSent - w.now; left < 97*time.Second {
		t.Errorf("suspect %v after the first packet", 100*time.Second-left)
	}
}

// The answers to the probes of the other end are no reason for probes.
func TestAnswersAreNoPackets(t *testing.T) {
	var ends [2]*Session
	for i := range ends {
		ends[i] = New(usual, uint16(i*7), 0)
		ends[i].SetRole(InUse, 0)
	}
	probes := 0
	for now := time.Duration(0); now < 300*time.Second; now += tick {
		for i, p := range ends {
			if now < 10*time.Second {
				p.Sent(20, now)
			}
			for p.Due() <= now {
				seq, ok := p.Next(now)
				if !ok {
					break
				}
				if now > 12*time.Second {
					probes++
				}
				other := ends[1-i] // its host answers, through the tunnel
				other.Traffic(other.WantsNextPacket(), now)
				other.Sent(1, now)
				p.Answer(seq, now)
			}
		}
	}
	if probes > 2*300/18 {
		t.Errorf("%d probes", probes)
	}
}

// An error makes a path suspect at once if a probe confirms it, and not otherwise. While
// probes cannot be sent, it is suspect, too.
func TestErrorInUse(t *testing.T) {
	for _, sends := range []time.Duration{0, 20 * ms} {
		w := inUse(t, usual, 30*ms)
		w.sends = sends
		w.run(w.now + 5*time.Second)
		before := w.probes
		for range 100 { // forged: it answers
			w.p.UnreachableError(w.now)
			w.run(w.now + 10*tick)
		}
		if n := w.probes - before; len(w.states) != 1 || n > 60 {
			t.Errorf("%d probes, %v", n, w.states)
		}
		w.rtt = -1
		clear(w.answers)
		w.p.UnreachableError(w.now)
		w.run(w.now + probePause + 2*errorTimeout)
		if s, _ := w.p.State(); s != Suspect {
			t.Errorf("%v after an error", s)
		}
		w.rtt = 30 * ms
		w.run(w.now + standbyEvery + time.Second)
		if s, _ := w.p.State(); s != Up || w.p.Doubt() {
			t.Errorf("%v when it answers again", s)
		}
	}
	w := inUse(t, usual, 30*ms)
	w.sends = 20 * ms
	w.refuses = true
	w.run(w.now + activeEvery + windowLength + errorTimeout + 3*tick)
	if s, _ := w.p.State(); s != Suspect {
		t.Errorf("%v while nothing can be sent", s)
	}
}

// A path that carries no packets is probed seldom, and at once when it is needed.
func TestStandby(t *testing.T) {
	w := newWorld(t, Settings{time.Second, 5})
	w.rtt = 20 * ms
	w.p.SetRole(Standby, 0)
	w.sends, w.traffic = 20*ms, 20*ms // sent by mistake, and by the other end
	w.run(200 * time.Second)
	if len(w.states) != 1 || w.probes < 19 || w.probes > 28 {
		t.Errorf("%v, %d probes", w.states, w.probes)
	}
	before := w.probes
	w.run(w.now + time.Second)
	w.p.SetRole(Needed, w.now)
	w.run(w.now + tick)
	if n := w.probes - before; n < 1 {
		t.Error("no probe when it is needed")
	}
	w.run(w.now + time.Second)
	if w.p.SetRole(InUse, w.now); w.p.Doubt() {
		t.Error("doubts")
	}
	w.p.SetRole(Standby, w.now)
	w.rtt, w.traffic, w.sends = -1, 0, 0
	clear(w.answers)
	w.p.SetRole(Needed, w.now)
	w.run(w.now + probePause + 4*quickPause + time.Second)
	if s, _ := w.p.State(); s == Up {
		t.Error("up, though it was needed and has not answered")
	}
}

// A peer that was started later answers a few seconds after its first packet.
func TestStartedLater(t *testing.T) {
	for _, r := range []Role{Standby, Compared, InUse} {
		w := newWorld(t, usual)
		w.p.SetRole(r, 0)
		w.rtt = -1
		w.run(100 * ms)
		w.rtt, w.traffic, w.next = 20*ms, time.Hour, w.now
		w.run(5 * time.Second)
		if w.p.RTT() == 0 || w.p.Loss() != 0 {
			t.Errorf("role %d: in %v, %d probes, a round-trip time of %v, and a loss of %v", r, w.now, w.probes, w.p.RTT(), w.p.Loss())
		}
		w = newWorld(t, usual) // never answers
		w.p.SetRole(r, 0)
		w.rtt, w.traffic = -1, time.Second
		w.run(200 * time.Second)
		if len(w.states) != 1 || w.probes > 30 {
			t.Errorf("role %d: %v, %d probes", r, w.states, w.probes)
		}
	}
}

// A path on trial is probed every second. A lost probe is a doubt; three make it suspect.
func TestTrial(t *testing.T) {
	w := newWorld(t, usual)
	w.rtt = 20 * ms
	w.p.SetRole(Standby, 0)
	w.run(30 * time.Second)
	w.p.SetRole(Trial, w.now)
	before := w.probes
	w.run(w.now + 10*time.Second)
	if n := w.probes - before; n < 9 || n > 15 {
		t.Errorf("%d probes in 10 s", n)
	}
	w.rtt = -1
	clear(w.answers)
	for until := w.now + activeEvery + quickPause + 2*tick; w.now < until && !w.p.Doubt(); {
		w.run(w.now + tick)
	}
	if s, missed := w.p.State(); s != Up || missed != 1 {
		t.Errorf("%v after %d", s, missed)
	}
	if after := w.fails(); after > 3*time.Second {
		t.Errorf("up until %v after the last answer", after)
	}
}
