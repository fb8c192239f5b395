package main

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sixfour/internal/logging"
	"sixfour/internal/readiness"
	"sixfour/internal/systemd"
)

// The heartbeat says that the control loop works, and extends the time of a start and of a
// reload.
func TestHeartbeat(t *testing.T) {
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
		p.heartbeat()
		p.heartbeat() // too early
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

// The status line shows a failed reload even if many tunnels wait.
func TestStatusLine(t *testing.T) {
	s := readiness.Summary{Tunnels: 300}
	for range 300 {
		s.Waiting = append(s.Waiting, readiness.Wait{Tunnel: "six0", For: "the address 203.0.113.10, which no interface has"})
	}
	var r report
	line := r.line(func(r *report) {
		r.tunnels, r.reload, r.metrics = describe(s), "the configuration was not reloaded: f:1:1: "+strings.Repeat("long ", 1000), "metrics: address in use"
	})
	for _, want := range []string{"the configuration was not reloaded: f:1:1: long", "metrics: address in use", "300 tunnels, waiting: six0 waits for the address", "and 295 more"} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is not in %q", want, line)
		}
	}
	if n := strings.Count(line, "six0 waits"); n != 5 {
		t.Errorf("%d tunnels are named", n)
	}
	if got := describe(readiness.Summary{Tunnels: 6, Waiting: s.Waiting[:5]}); strings.Contains(got, "more") {
		t.Error(got)
	}
}
