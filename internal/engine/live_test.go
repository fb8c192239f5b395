package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/events"
	"sixfour/internal/liveness"
	"sixfour/internal/probing"
	"sixfour/transport"
)

// echoing is a sender that answers pings of the peer's outer address.
type echoing struct {
	p      *path
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
	if !s.p.echo.IsReply(m, icmp.EchoReply4) {
		return errors.New("not a probe")
	}
	s.p.echo.PassReply(m)
	return nil
}

func (s *echoing) Send([]transport.Packet) (int, error) { return 0, errors.New("no") }
func (s *echoing) Close() error                         { return nil }

// Each of a hub's many peers has a liveness session. When all fail at once, this is detected
// without a flood of packets or log lines. Removed peers leave nothing behind.
func TestManyLives(t *testing.T) {
	const peers = 2000
	core, lines := observer.New(zapcore.InfoLevel)
	k := newKeeper(func() {})
	hub := loggedTunnel(config.Tunnel{Name: "hub0", Hub: true}, nil, zap.New(core))
	hub.keeper, hub.events = k, new(events.Log)
	var silent atomic.Bool
	var sent atomic.Int64
	for i := range peers {
		p := addPath(hub, config.Peer{Name: fmt.Sprint(i)})
		remote := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		way := &datapath.Wire{Layers: []encap.Layer{layer(encap.FourInFour, "192.0.2.1", remote.String(), encap.GRE{})},
			Life: liveness.Settings{Every: time.Second, After: 1}, Senders: []transport.Sender{&echoing{p, &silent, &sent}}}
		p.Listening.Store(true)
		p.publish(way)
		p.reportWire(way)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		k.run(ctx)
		close(done)
	}()
	all := func(want api.Phase) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			n := 0
			for p := range hub.paths() {
				if p.status().State.Phase == want {
					n++
				}
			}
			if n == peers {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d peers are %s", n, peers, want)
			}
		}
	}
	all(api.Up)
	silent.Store(true)
	all(api.Down)
	if n := lines.FilterLevelExact(zapcore.WarnLevel).Len(); n == 0 || n > 2*lifeLogs {
		t.Errorf("%d warnings", n)
	}
	// The peers' packets are received, but they no longer answer: something is wrong.
	p := hub.peers[7].paths[0]
	if p.Notices.Flags.Load() == 0 {
		t.Error("nobody wants to know")
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		p.Received(1, 100)
		if s := p.status(); s.LastError != nil && s.LastError.What == noAnswers {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", p.status())
		}
	}
	if s := p.status(); s.LastDown == nil || !s.LastDown.Until.IsZero() {
		t.Errorf("%+v", s.LastDown)
	}
	silent.Store(false)
	all(api.Up)
	s := hub.peers[8].paths[0].status()
	if s.LastDown == nil || s.LastDown.Why == "" || s.LastDown.Until.IsZero() || s.Liveness.Lost == 0 || s.Liveness.Sent <= s.Liveness.Lost {
		t.Errorf("%+v %+v", s.LastDown, s.Liveness)
	}
	began, before := time.Now(), sent.Load()
	silent.Store(true)
	all(api.Down)
	if n, most := sent.Load()-before, int64(probesPerSecond*time.Since(began).Seconds())+2*probesAtOnce; n > most {
		t.Errorf("%d probes in %v", n, time.Since(began))
	}
	for p := range hub.paths() {
		p.publish(nil)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		k.mu.Lock()
		n := len(k.fresh)
		k.mu.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d peers are not looked at", n)
		}
	}
	cancel()
	<-done
	if len(k.due) != 0 {
		t.Errorf("%d are still watched", len(k.due))
	}
}

// If a suspect peer still sends packets, the keeper is notified now and then, not for each
// batch.
func TestDeafUnderLoad(t *testing.T) {
	k := newKeeper(func() {})
	tun := tunnelOf(config.Tunnel{Name: "six0"})
	tun.keeper, tun.events = k, new(events.Log)
	var silent atomic.Bool
	var sent atomic.Int64
	p := tun.only.paths[0]
	way := &datapath.Wire{Layers: []encap.Layer{layer(encap.FourInFour, "192.0.2.1", "192.0.2.2", encap.GRE{})},
		Life: liveness.Settings{Every: time.Second, After: 2}, Senders: []transport.Sender{&echoing{p, &silent, &sent}}}
	p.Listening.Store(true)
	p.publish(way)
	p.reportWire(way)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		k.run(ctx)
		close(done)
	}()
	defer func() {
		cancel()
		<-done
	}()
	told, began := 0, time.Now()
	until := func(what string, ok func(api.PeerStatus) bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(p.status()); time.Sleep(50 * time.Microsecond) {
			p.In.Carried(1, 100)
			if flags := p.Notices.Flags.Swap(0); flags != 0 {
				told++
				p.Notify(flags)
			}
			if time.Now().After(deadline) {
				t.Fatalf("not %s: %+v", what, p.status())
			}
		}
	}
	until("up", func(s api.PeerStatus) bool { return s.State.Phase == api.Up && s.Liveness.RTT > 0 })
	silent.Store(true)
	until("suspect", func(s api.PeerStatus) bool { return s.State.Phase == api.Suspect && s.State.Detail == noAnswers })
	seen := sent.Load()
	until("asked", func(s api.PeerStatus) bool {
		if s.State.Phase != api.Suspect {
			t.Fatalf("%+v", s.State)
		}
		return sent.Load() >= seen+3
	})
	if s := p.status(); s.LastError == nil || s.LastError.What != noAnswers || s.LastDown != nil {
		t.Errorf("%+v %+v", s.LastError, s.LastDown)
	}
	silent.Store(false)
	until("up", func(s api.PeerStatus) bool { return s.State.Phase == api.Up && s.State.Detail == "" })
	if most := 10 + 20*int(time.Since(began)/time.Second); told > most {
		t.Errorf("told %d times in %v", told, time.Since(began))
	}
}

// Answers from an unknown session, or to a probe that was not sent, change nothing.
func TestForeignAnswers(t *testing.T) {
	k := newKeeper(func() {})
	p := tunnelOf(config.Tunnel{}).only.paths[0]
	for _, a := range []probing.LivenessAnswer{{}, {Session: 7}, {Way: probing.Outside, Seq: 9}} {
		k.handleAnswer(probeAnswer{p, a})
	}
	if len(k.due) > 0 || p.echo.Proof() != probing.Unproven {
		t.Errorf("%d sessions, %+v", len(k.due), p.echo.Proof())
	}
}

// When all targets of a peer change, the schedule remains a heap: what is due first is done
// first.
func TestScheduleHolds(t *testing.T) {
	k := newKeeper(func() {})
	var peers []*path
	for range 2 {
		tun := tunnelOf(config.Tunnel{})
		tun.mech = new(mechanism)
		p := tun.only.paths[0]
		p.Listening.Store(true)
		p.Wire.Store(&datapath.Wire{Layers: []encap.Layer{layer(encap.SixInFour, "192.0.2.1", "198.51.100.1", encap.GRE{})},
			Life: liveness.Settings{Every: time.Second, After: 3}})
		peers = append(peers, p)
	}
	now := k.since(time.Now())
	for i := range 100 {
		p := peers[i%2] // becomes due after the other one
		var watched relays
		for n := range maxRelays {
			watched.addrs = append(watched.addrs, netip.AddrFrom4([4]byte{198, 51, byte(i), byte(n)}))
		}
		p.t.mech.watched.Store(&watched)
		k.renew(p, now+time.Duration(i)*time.Minute)
		for _, pl := range p.sessions {
			k.update(pl)
		}
		for at := 1; at < len(k.due); at++ {
			if k.due.Less(at, (at-1)/2) {
				t.Fatalf("change %d: place %d is due before what it waits for", i, at)
			}
		}
	}
}
