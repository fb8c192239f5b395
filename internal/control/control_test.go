package control_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/control"
	"sixfour/internal/engine"
)

const patience = 30 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// waitFor waits until something is so.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// fake is a daemon that says what a test wants.
type fake struct {
	events func(ctx context.Context, emit func(engine.Event) bool) // nil: three, and then it waits
}

func (f fake) Events(ctx context.Context) <-chan engine.Event {
	c := make(chan engine.Event)
	events := f.events
	if events == nil {
		events = func(ctx context.Context, emit func(engine.Event) bool) {
			for i := range 3 {
				emit(engine.Event{Kind: engine.EventState, Tunnel: "six0", Text: fmt.Sprint(i)})
			}
			<-ctx.Done()
		}
	}
	go func() {
		defer close(c)
		events(ctx, func(ev engine.Event) bool {
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

func (fake) Status() engine.Status {
	return engine.Status{Tunnels: []engine.TunnelStatus{
		{Name: "six0", Mode: "4in6in4", PeerStatus: engine.PeerStatus{
			State: engine.State{Phase: engine.Up}, In: engine.Traffic{Packets: 3, Bytes: 99, Drops: map[string]uint64{"martian": 2}}}},
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
	got, err := control.Status(t.Context(), path)
	must(t, err)
	if tun := got.Tunnels[0]; len(got.Tunnels) != 2 || tun.Name != "six0" || tun.State.Phase != engine.Up || tun.In.Drops["martian"] != 2 {
		t.Errorf("%+v", tun)
	}
	c := control.NewClient(path)
	defer c.Close()
	if got, err := c.Status(t.Context(), "six1"); err != nil || len(got.Tunnels) != 1 || got.Tunnels[0].Name != "six1" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.Status(t.Context(), "sax"); err == nil || err.Error() != `there is no tunnel "sax": there are six0, six1` {
		t.Error(err)
	}
}

func TestEvents(t *testing.T) {
	c := control.NewClient(listen(t, fake{}))
	defer c.Close()
	var got []string
	enough := errors.New("enough")
	err := c.Events(t.Context(), func(ev engine.Event) error {
		if got = append(got, ev.Text); len(got) == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || strings.Join(got, " ") != "0 1 2" {
		t.Errorf("%q, %v", got, err)
	}
}

// The daemon notices at once when who follows its events has gone.
func TestEventsWithoutReader(t *testing.T) {
	ended := make(chan struct{})
	c := control.NewClient(listen(t, fake{events: func(ctx context.Context, emit func(engine.Event) bool) {
		emit(engine.Event{Text: "first"})
		<-ctx.Done()
		close(ended)
	}}))
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.Events(ctx, func(engine.Event) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("it still waits for events")
	}
}

// Close ends what is open; whoever read it is told.
func TestCloseEndsStreams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	s, err := control.Listen(path, fake{}, zap.NewNop())
	must(t, err)
	c := control.NewClient(path)
	defer c.Close()
	ended, begun := make(chan error, 1), make(chan struct{}, 3)
	go func() {
		ended <- c.Events(t.Context(), func(engine.Event) error { begun <- struct{}{}; return nil })
	}()
	<-begun
	must(t, s.Close())
	if err := <-ended; err != nil && !errors.Is(err, control.ErrNoDaemon) {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := control.Status(t.Context(), path); !errors.Is(err, control.ErrNoDaemon) {
		t.Errorf("without a daemon: %v", err)
	}
}
