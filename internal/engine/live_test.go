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
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/events"
	"sixfour/internal/keepalive"
	"sixfour/internal/liveness"
	"sixfour/internal/report"
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
	if !s.p.Echo.IsReply(m, icmp.EchoReply4) {
		return errors.New("not a probe")
	}
	s.p.Echo.PassReply(m)
	return nil
}

func (s *echoing) Send([]transport.Packet) (int, error) { return 0, errors.New("no") }
func (s *echoing) Close() error                         { return nil }

// When all of a hub's many peers fail at once, their states say so, without a flood of log
// lines.
func TestManyLives(t *testing.T) {
	const peers = 2000
	core, lines := observer.New(zapcore.InfoLevel)
	k := keepalive.New(func() {})
	hub := loggedTunnel(config.Tunnel{Name: "hub0", Hub: true}, nil, zap.New(core))
	hub.workers.Keeper, hub.report.Events = k, new(events.Log)
	var silent atomic.Bool
	var sent atomic.Int64
	for i := range peers {
		p := addPath(hub, config.Peer{Name: fmt.Sprint(i)})
		remote := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		way := &datapath.Wire{Path: p.Path, Layers: []encap.Layer{layer(encap.FourInFour, "192.0.2.1", remote.String(), framing.GRE{})},
			Life: liveness.Settings{Every: time.Second, After: 1}, Senders: []transport.Sender{&echoing{p, &silent, &sent}}}
		p.Listening.Store(true)
		p.publish(way)
		p.reportWire(way)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		k.Run(ctx)
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
	if n := lines.FilterLevelExact(zapcore.WarnLevel).Len(); n == 0 || n > peers/100 {
		t.Errorf("%d warnings", n)
	}
	// The peers' packets are received, but they no longer answer: something is wrong.
	p := hub.peers[7].paths[0]
	if p.Notices.Flags.Load() == 0 {
		t.Error("nobody wants to know")
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		p.Received(1, 100)
		if s := p.status(); s.LastError != nil && s.LastError.What == report.NoAnswers {
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
	for p := range hub.paths() {
		p.publish(nil)
	}
	cancel()
	<-done
}

// If a suspect peer still sends packets, the Keeper is notified now and then, not for each
// batch.
func TestDeafUnderLoad(t *testing.T) {
	k := keepalive.New(func() {})
	tun := tunnelOf(config.Tunnel{Name: "six0"})
	tun.workers.Keeper, tun.report.Events = k, new(events.Log)
	var silent atomic.Bool
	var sent atomic.Int64
	p := tun.only.paths[0]
	way := &datapath.Wire{Path: p.Path, Layers: []encap.Layer{layer(encap.FourInFour, "192.0.2.1", "192.0.2.2", framing.GRE{})},
		Life: liveness.Settings{Every: time.Second, After: 2}, Senders: []transport.Sender{&echoing{p, &silent, &sent}}}
	p.Listening.Store(true)
	p.publish(way)
	p.reportWire(way)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		k.Run(ctx)
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
	until("suspect", func(s api.PeerStatus) bool { return s.State.Phase == api.Suspect && s.State.Detail == report.NoAnswers })
	seen := sent.Load()
	until("asked", func(s api.PeerStatus) bool {
		if s.State.Phase != api.Suspect {
			t.Fatalf("%+v", s.State)
		}
		return sent.Load() >= seen+3
	})
	if s := p.status(); s.LastError == nil || s.LastError.What != report.NoAnswers || s.LastDown != nil {
		t.Errorf("%+v %+v", s.LastError, s.LastDown)
	}
	silent.Store(false)
	until("up", func(s api.PeerStatus) bool { return s.State.Phase == api.Up && s.State.Detail == "" })
	if most := 10 + 20*int(time.Since(began)/time.Second); told > most {
		t.Errorf("told %d times in %v", told, time.Since(began))
	}
}
