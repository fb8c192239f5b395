package control_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/control"
	"sixfour/internal/control/client"
)

const patience = 30 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// waitFor waits until a condition is true.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// fake is a daemon whose answers a test controls.
type fake struct {
	large  bool                                                 // its status does not fit into a socket's buffer
	events func(ctx context.Context, emit func(api.Event) bool) // nil: sends three events, and then waits
}

func (f fake) Events(ctx context.Context) <-chan api.Event {
	c := make(chan api.Event)
	events := f.events
	if events == nil {
		events = func(ctx context.Context, emit func(api.Event) bool) {
			for i := range 3 {
				emit(api.Event{Kind: api.EventState, Tunnel: "six0", Text: fmt.Sprint(i)})
			}
			<-ctx.Done()
		}
	}
	go func() {
		defer close(c)
		events(ctx, func(ev api.Event) bool {
			select {
			case c <- ev:
				return true
			case <-ctx.Done():
				return false
			}
		})
	}()
	return c
}

func (fake) Reload(context.Context) (api.Plan, error) {
	return api.Plan{}, errors.New("six.toml:3:1: what is wrong")
}

func (fake) Ping(ctx context.Context, r api.PingRequest, each func(api.PingReply)) error {
	if r.Peer != "six0" {
		return fmt.Errorf("there is no peer %q", r.Peer)
	}
	for i := range r.Count {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		each(api.PingReply{Seq: i + 1, RTT: r.Interval.Seconds()})
	}
	return nil
}

func (fake) ProbeMTU(_ context.Context, peer string, each func(api.MTUProbe)) (api.MTUResult, error) {
	each(api.MTUProbe{Size: 1280, Answered: true})
	if peer != "six0" {
		return api.MTUResult{}, fmt.Errorf("%s does not answer", peer)
	}
	each(api.MTUProbe{Size: 1500})
	return api.MTUResult{PathMTU: 1480, TunnelMTU: 1400, By: "probe"}, nil
}

func (f fake) Status() api.Status {
	if f.large {
		return api.Status{Tunnels: []api.TunnelStatus{{Name: strings.Repeat("x", 8<<20)}}}
	}
	return api.Status{Tunnels: []api.TunnelStatus{
		{Name: "six0", Mode: "4in6in4", PeerStatus: api.PeerStatus{
			State: api.State{Phase: api.Up}, In: api.Traffic{Packets: 3, Bytes: 99, Drops: map[string]uint64{"martian": 2}}}},
		{Name: "six1", Mode: "6in4"},
	}}
}

func listen(t *testing.T, d control.Daemon) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "control.sock")
	s, err := control.Listen(path, d, zap.NewNop())
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return path
}

func TestStatus(t *testing.T) {
	path := listen(t, fake{})
	got, err := client.Status(t.Context(), path)
	must(t, err)
	if tun := got.Tunnels[0]; len(got.Tunnels) != 2 || tun.Name != "six0" || tun.State.Phase != api.Up || tun.In.Drops["martian"] != 2 {
		t.Errorf("%+v", tun)
	}
	c := client.New(path)
	if got, err := c.Status(t.Context(), "six1"); err != nil || len(got.Tunnels) != 1 || got.Tunnels[0].Name != "six1" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.Status(t.Context(), "sax"); err == nil || err.Error() != `there is no tunnel "sax": choose six0, six1` {
		t.Error(err)
	}
}

func TestEvents(t *testing.T) {
	c := client.New(listen(t, fake{}))
	var got []string
	enough := errors.New("enough")
	err := c.Events(t.Context(), func(ev api.Event) error {
		if got = append(got, ev.Text); len(got) == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || strings.Join(got, " ") != "0 1 2" {
		t.Errorf("%q, %v", got, err)
	}
}

// The daemon detects at once that a client following its events has disconnected.
func TestEventsClientDisconnects(t *testing.T) {
	ended := make(chan struct{})
	c := client.New(listen(t, fake{events: func(ctx context.Context, emit func(api.Event) bool) {
		emit(api.Event{Text: "first"})
		<-ctx.Done()
		close(ended)
	}}))
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.Events(ctx, func(api.Event) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("it still waits for events")
	}
}

// A request before the daemon can answer waits, and fails when the daemon ends.
func TestRequestBeforeServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	for _, serve := range []bool{true, false} {
		s, err := control.Open(path, fake{}, zap.NewNop())
		must(t, err)
		ended := make(chan error, 1)
		c, err := net.Dial("unix", path)
		must(t, err)
		go func() {
			_, err := client.Status(t.Context(), path)
			ended <- err
		}()
		if serve {
			s.Serve()
			must(t, <-ended)
		}
		must(t, s.Close())
		if !serve {
			if err := <-ended; !errors.Is(err, client.ErrNoDaemon) {
				t.Error(err)
			}
		}
		c.Close()
	}
}

// Close ends open streams, and their readers get the reason.
func TestCloseEndsStreams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	s, err := control.Listen(path, fake{}, zap.NewNop())
	must(t, err)
	c := client.New(path)
	ended, begun := make(chan error, 1), make(chan struct{}, 3)
	go func() {
		ended <- c.Events(t.Context(), func(api.Event) error { begun <- struct{}{}; return nil })
	}()
	<-begun
	must(t, s.Close())
	if err := <-ended; err != nil && !errors.Is(err, client.ErrNoDaemon) {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := client.Status(t.Context(), path); !errors.Is(err, client.ErrNoDaemon) {
		t.Errorf("without a daemon: %v", err)
	}
}

func TestAsk(t *testing.T) {
	c := client.New(listen(t, fake{}))
	if _, err := c.Reload(t.Context()); err == nil || err.Error() != "six.toml:3:1: what is wrong" {
		t.Error(err)
	}
	var replies []api.PingReply
	must(t, c.Ping(t.Context(), api.PingRequest{Peer: "six0", Count: 2, Interval: 1500 * time.Millisecond}, func(r api.PingReply) error {
		replies = append(replies, r)
		return nil
	}))
	if want := []api.PingReply{{Seq: 1, RTT: 1.5}, {Seq: 2, RTT: 1.5}}; !slices.Equal(replies, want) {
		t.Errorf("%+v", replies)
	}
	if err := c.Ping(t.Context(), api.PingRequest{Peer: "x"}, nil); err == nil || err.Error() != `there is no peer "x"` {
		t.Error(err)
	}
	var probes []api.MTUProbe
	note := func(p api.MTUProbe) error { probes = append(probes, p); return nil }
	if got, err := c.ProbeMTU(t.Context(), "six0", note); err != nil || got != (api.MTUResult{PathMTU: 1480, TunnelMTU: 1400, By: "probe"}) || len(probes) != 2 {
		t.Errorf("%+v %+v, %v", probes, got, err)
	}
	if _, err := c.ProbeMTU(t.Context(), "six1", note); err == nil || err.Error() != "six1 does not answer" { // after the first line
		t.Error(err)
	}
}

// broken is a daemon whose file has thousands of errors.
type broken struct{ fake }

func (broken) Reload(context.Context) (api.Plan, error) {
	return api.Plan{}, errors.New(strings.Repeat("six.toml:3:1: <what> is wrong\n", 100_000))
}

// However long an error is, the client understands it.
func TestLongError(t *testing.T) {
	c := client.New(listen(t, broken{}))
	if _, err := c.Reload(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "six.toml:3:1: <what> is wrong\nsix.toml") || !strings.HasSuffix(err.Error(), "…") {
		t.Errorf("%.200v", err)
	}
}
