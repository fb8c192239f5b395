package main

import (
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"sixfour/internal/logging"
	"sixfour/internal/systemd"
)

// The heartbeat says that the control loop works, and extends the time of a start and of a
// reload.
func TestBeat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	log, err := logging.New(io.Discard, "info", "console")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for _, c := range []struct {
		ready, reloading bool
		watchdog         time.Duration
		want             string
	}{
		{false, false, 0, "EXTEND_TIMEOUT_USEC=60000000"},
		{true, false, 30 * time.Second, "WATCHDOG=1"},
		{true, true, 30 * time.Second, "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000"},
		{true, true, 0, "EXTEND_TIMEOUT_USEC=60000000"},
	} {
		p := &process{log: log, manager: systemd.Find(), watchdog: c.watchdog}
		p.ready.Store(c.ready)
		p.reloading.Store(c.reloading)
		p.beat()
		p.beat() // too early
		if err := p.manager.Notify("END=1"); err != nil {
			t.Fatal(err)
		}
		var got []string
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			if string(buf[:n]) == "END=1" {
				break
			}
			got = append(got, string(buf[:n]))
		}
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("ready %v, reloading %v, watchdog %v: %q, want %q", c.ready, c.reloading, c.watchdog, got, c.want)
		}
	}
}
