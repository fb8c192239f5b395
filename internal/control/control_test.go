package control_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"sixfour/internal/control"
	"sixfour/internal/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a daemon that says what a test wants.
type fake struct{}

func (fake) Events(ctx context.Context) <-chan engine.Event {
	c := make(chan engine.Event)
	go func() {
		defer close(c)
		for i := range 3 {
			c <- engine.Event{Kind: engine.EventState, Tunnel: "six0", Text: fmt.Sprint(i)}
		}
		<-ctx.Done()
	}()
	return c
}

func (fake) Status() engine.Status {
	return engine.Status{Tunnels: []engine.TunnelStatus{{Name: "six0", Mode: "4in6in4", PeerStatus: engine.PeerStatus{
		State: engine.State{Phase: engine.Up}, In: engine.Traffic{Packets: 3, Bytes: 99, Drops: map[string]uint64{"martian": 2}}}}}}
}

func TestStatus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "control.sock") // the directory is made
	s, err := control.Listen(path, fake{}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want a socket for its owner alone", info.Mode(), err)
	}
	got, err := control.Status(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if tun := got.Tunnels[0]; tun.Name != "six0" || tun.State.Phase != engine.Up || tun.In.Drops["martian"] != 2 {
		t.Errorf("%+v", tun)
	}
	if _, err := control.Listen(path, fake{}, zap.NewNop()); !errors.Is(err, control.ErrInUse) {
		t.Errorf("a second daemon at the same socket: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := control.Status(t.Context(), path); err == nil || !strings.Contains(err.Error(), "no sixfourd answers") {
		t.Errorf("without a daemon: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as after a kill -9
	l.Close()
	s, err := control.Listen(path, fake{}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestFileIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.Listen(path, fake{}, zap.NewNop()); err == nil {
		t.Error("took the place of a file")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "data" {
		t.Errorf("%q, %v", b, err)
	}
}
