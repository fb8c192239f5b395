package keepalive

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/datapath"
	"sixfour/internal/liveness"
	"sixfour/internal/probing"
	"sixfour/transport"
)

// owner records the liveness of one path, and is all that a path needs in these tests.
type owner struct {
	keeper *Keeper
	s      *Subject
	relays []netip.Addr
	inUse  netip.Addr
	panics atomic.Int64

	mu   sync.Mutex // guards last
	last Result
}

func (o *owner) Relays() ([]netip.Addr, netip.Addr) { return o.relays, netip.Addr{} }

func (o *owner) RelaysDown(_ []netip.Addr, inUse netip.Addr) bool {
	changed := o.inUse != inUse
	o.inUse = inUse
	return changed
}

func (o *owner) Liveness(r *Result) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = *r
	return false
}

func (o *owner) result() Result {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

func (o *owner) AnsweredMTU(uint16)                                    {}
func (o *owner) AnsweredLiveness(a probing.LivenessAnswer)             { o.keeper.Answered(o.s, a) }
func (o *owner) Recovered(string)                                      { o.panics.Add(1) }
func (o *owner) Notify(uint32)                                         { o.keeper.Arrived(o.s) }
func (o *owner) LargeSent()                                            {}
func (o *owner) SendFailed(error)                                      {}
func (o *owner) HopRefused(netip.Addr)                                 {}
func (o *owner) ReportedTooBig(encap.PathMTU, encap.Quote, icmp.Error) {}
func (o *owner) ReportedUnreachable(netip.Addr, icmp.Error)            {}
func (o *owner) Reported(netip.Addr, icmp.Error)                       {}

// newOwner returns the owner of a path without a wire, which is received.
func newOwner(k *Keeper) *owner {
	o := &owner{keeper: k}
	p := &datapath.Path{PathOf: datapath.PathOf{Tunnel: &datapath.Tunnel{Log: zap.NewNop(), Owner: o}}, Record: encap.NewRecord(), Owner: o}
	p.Listening.Store(true)
	o.s = NewSubject(p, probing.New(p, o), o)
	return o
}

// echoing is a sender that answers pings of the peer's outer address.
type echoing struct {
	echo   *probing.Echo
	silent *atomic.Bool
	sent   *atomic.Int64
}

func (s *echoing) SendOne(pkt []byte) error {
	s.sent.Add(1)
	if s.silent.Load() {
		return nil
	}
	m := append([]byte(nil), header.IPv4(pkt).Payload()...)
	m[0] = icmp.EchoReply4
	if !s.echo.IsReply(m, icmp.EchoReply4) {
		return errors.New("not a probe")
	}
	s.echo.PassReply(m)
	return nil
}

func (s *echoing) Send([]transport.Packet) (int, error) { return 0, errors.New("no") }
func (s *echoing) Close() error                         { return nil }

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// Each of many paths has a liveness session. When all fail at once, this is detected without
// a flood of packets. Removed paths leave nothing behind.
func TestManyPaths(t *testing.T) {
	const paths = 2000
	k := New(func() {})
	var silent atomic.Bool
	var sent atomic.Int64
	var owners []*owner
	for i := range paths {
		o := newOwner(k)
		owners = append(owners, o)
		l := encap.Layer{Kind: encap.FourInFour, Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})}
		o.s.Wire.Store(&datapath.Wire{Path: o.s.Path, Layers: []encap.Layer{l},
			Life: liveness.Settings{Every: time.Second, After: 1}, Senders: []transport.Sender{&echoing{o.s.echo, &silent, &sent}}})
		k.Mark(o.s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		k.Run(ctx)
		close(done)
	}()
	all := func(what string, want func(r Result) bool) {
		t.Helper()
		eventually(t, what, func() bool {
			for _, o := range owners {
				if !want(o.result()) {
					return false
				}
			}
			return true
		})
	}
	up := func(r Result) bool { return r.State == liveness.Up && r.RTT > 0 && r.OnlyHost }
	down := func(r Result) bool { return r.State == liveness.Down }
	all("all are up", up)
	silent.Store(true)
	all("all are down", down)
	if owners[7].s.Notices.Flags.Load() == 0 {
		t.Error("no notice of the next packet")
	}
	silent.Store(false)
	all("all are up again", up)
	if r := owners[8].result(); r.Counts.Lost == 0 || r.Counts.Sent <= r.Counts.Lost || r.Counts.LastPacket.IsZero() {
		t.Errorf("%+v", r)
	}
	began, before := time.Now(), sent.Load()
	silent.Store(true)
	all("all are down again", down)
	if n, most := sent.Load()-before, int64(probesPerSecond*time.Since(began).Seconds())+2*probesAtOnce; n > most {
		t.Errorf("%d probes in %v", n, time.Since(began))
	}
	for _, o := range owners {
		o.s.Wire.Store(nil)
		k.Mark(o.s)
	}
	eventually(t, "all are checked", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.fresh) == 0
	})
	cancel()
	<-done
	if len(k.due) != 0 {
		t.Errorf("%d are still scheduled", len(k.due))
	}
}

// Answers from an unknown session, or to a probe that was not sent, change nothing.
func TestForeignAnswers(t *testing.T) {
	k := New(func() {})
	s := newOwner(k).s
	s.Wire.Store(&datapath.Wire{Layers: []encap.Layer{{Kind: encap.FourInFour}}, Life: liveness.Settings{Every: time.Second, After: 3}})
	k.renew(s, k.since(time.Now()))
	for _, a := range []probing.LivenessAnswer{{Session: 7}, {Way: probing.Outside, Seq: 9}} {
		k.handleAnswer(answer{s, a})
	}
	if state, _ := s.sessions[0].life.State(); state != liveness.Unknown || s.echo.Proof() != probing.Unproven {
		t.Errorf("%v, %+v", state, s.echo.Proof())
	}
}

// When all targets of a path change, the schedule remains a heap: what is due first is done
// first.
func TestScheduleHolds(t *testing.T) {
	const relays = 64
	k := New(func() {})
	var owners []*owner
	for range 2 {
		o := newOwner(k)
		l := encap.Layer{Kind: encap.SixInFour, Local: netip.MustParseAddr("192.0.2.1"), Resolver: new(datapath.StaticHop)}
		o.s.Wire.Store(&datapath.Wire{Layers: []encap.Layer{l}, Life: liveness.Settings{Every: time.Second, After: 3}})
		owners = append(owners, o)
	}
	now := k.since(time.Now())
	for i := range 100 {
		o := owners[i%2] // becomes due after the other one
		o.relays = nil
		for n := range relays {
			o.relays = append(o.relays, netip.AddrFrom4([4]byte{198, 51, byte(i), byte(n)}))
		}
		k.renew(o.s, now+time.Duration(i)*time.Minute)
		for _, one := range o.s.sessions {
			k.update(one)
		}
		for at := 1; at < len(k.due); at++ {
			if k.due.Less(at, (at-1)/2) {
				t.Fatalf("change %d: place %d is due before what it waits for", i, at)
			}
		}
	}
}

// Packets go to the first relay that is not down, and as before if all are down.
func TestRelayInUse(t *testing.T) {
	set := liveness.Settings{Every: time.Second, After: 1}
	var s Subject
	for i := range 3 {
		s.sessions = append(s.sessions, &session{life: liveness.New(set, 0, 0), place: i, target: target{remote: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), set: set}})
	}
	fail := func(i int) {
		life := s.sessions[i].life
		life.UnreachableError(0)
		for now := time.Duration(0); ; now += time.Second {
			if state, _ := life.State(); state == liveness.Down {
				return
			}
			if now > time.Minute {
				t.Fatal("never down")
			}
			life.UnreachableError(now)
			life.Next(now)
		}
	}
	for _, c := range []struct{ fails, inUse, down int }{{1, 0, 1}, {0, 2, 2}, {2, 0, 0}} {
		fail(c.fails)
		if one, down := s.relayInUse(); one != s.sessions[c.inUse] || len(down) != c.down {
			t.Errorf("after %d: %v, down %v", c.fails, one.target.remote, down)
		}
	}
}

// A panic while one path is checked ends the sessions of this path only.
func TestPanic(t *testing.T) {
	k := New(func() {})
	sick, well := newOwner(k), newOwner(k)
	one, other := &session{of: sick.s, place: 0, life: liveness.New(liveness.Settings{}, 0, 0)}, &session{of: well.s, place: 1, life: liveness.New(liveness.Settings{}, 0, 0)}
	k.due = schedule{one, other}
	sick.s.sessions, well.s.sessions = []*session{one}, []*session{other}
	k.guard(sick.s, func() { panic("a fault") })
	if len(k.due) != 1 || k.due[0] != other || sick.s.sessions != nil || sick.panics.Load() != 1 || well.panics.Load() != 0 {
		t.Errorf("%d sessions are left, %d panics", len(k.due), sick.panics.Load())
	}
}
