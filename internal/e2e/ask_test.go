package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
)

// ask pings a peer, and returns the results.
func (d *daemon) ask(t *testing.T, r api.PingRequest) (replies []api.PingReply, err error) {
	t.Helper()
	c := client.New(d.socket)
	err = c.Ping(t.Context(), r, func(p api.PingReply) error {
		replies = append(replies, p)
		return nil
	})
	return replies, err
}

// An operator's echo requests are answered in each mode, up to the size that the path
// carries. The result of each is reported, also when the peer has disappeared.
func TestAsk(t *testing.T) {
	for _, c := range []struct {
		kind
		outside bool // from the peer's host, not through the tunnel
	}{
		{kind{name: "4in6in4"}, false}, {kind{name: "6in4"}, false}, {kindGRE, false}, {kindGRE6, false}, {kindGRE.xdp(), false},
		{kind4in4, false}, {kind4in6, false}, {kind6in6, false}, {kind6in6.withPrefixes("128"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts6(t)
			atA, atB := c.atA(), c.atB()
			switch c.name {
			case "4in6in4":
				atA, atB = configA(), configB()
			case "6in4":
				atA, atB = plainA(), plainB()
			}
			b, a := start(t, h.b, atB), start(t, h.a, atA)
			a.phase(t, api.Up)
			if c.over%20 == 4 {
				b.waitKeepalive(t)
			}
			if !c.outside {
				a.waitInnerPing(t, "six0")
			}
			for _, size := range []int{0, 200, 1500} {
				replies, err := a.ask(t, api.PingRequest{Peer: "six0", Count: 3, Interval: 10 * time.Millisecond, Timeout: 5 * time.Second, Size: size})
				must(t, err)
				if len(replies) != 3 {
					t.Fatalf("%d bytes: %+v", size, replies)
				}
				for _, r := range replies {
					if r.Lost || r.RTT <= 0 || r.Size != size || strings.Contains(r.Detail, "outside the tunnel") != c.outside {
						t.Errorf("%d bytes: %+v", size, r)
					}
				}
			}
			if replies, err := a.ask(t, api.PingRequest{Peer: "six0", Count: 1, Size: 1501}); err != nil || len(replies) != 1 || !replies[0].Lost || replies[0].Detail == "" {
				t.Errorf("1501 bytes: %+v, %v", replies, err)
			}
			for r, why := range map[api.PingRequest]string{
				{Peer: "six1"}:                     `no peer "six1": choose six0`,
				{Peer: "six0", Count: -1}:          "count is -1",
				{Peer: "six0", Count: 1_000_000}:   "count is 1000000",
				{Peer: "six0", Size: 70000}:        "size is 70000",
				{Peer: "six0", Interval: 1}:        "interval is 1ns",
				{Peer: "six0", Timeout: time.Hour}: "timeout is 1h",
			} {
				if _, err := a.ask(t, r); err == nil || !strings.Contains(err.Error(), why) {
					t.Errorf("%+v: %v, want %s", r, err, why)
				}
			}
			if replies, err := a.ask(t, api.PingRequest{Peer: "six0", Count: 1, Size: 30}); err != nil || len(replies) != 1 || !strings.Contains(replies[0].Detail, "too small") {
				t.Errorf("30 bytes: %+v, %v", replies, err)
			}
			if c.outside {
				return
			}
			b.freeze(t)
			replies, err := a.ask(t, api.PingRequest{Peer: "six0", Count: 2, Interval: 10 * time.Millisecond, Timeout: 100 * time.Millisecond})
			if err != nil || len(replies) != 2 || !replies[0].Lost || !replies[1].Lost {
				t.Errorf("%+v, %v", replies, err)
			}
			must(t, b.cmd.Process.Signal(syscall.SIGCONT))
		})
	}
}

// waitInnerPing waits until a peer answers an operator through the tunnel. Until then its
// host is pinged.
func (d *daemon) waitInnerPing(t *testing.T, peer string) {
	t.Helper()
	eventually(t, "it answers through the tunnel", func() error {
		replies, err := d.ask(t, api.PingRequest{Peer: peer, Count: 1})
		if err == nil && (len(replies) != 1 || replies[0].Lost || replies[0].Detail != "") {
			return fmt.Errorf("%+v", replies)
		}
		return err
	})
}

// waitKeepalive waits until a daemon has returned a router's keepalive.
func (d *daemon) waitKeepalive(t *testing.T) {
	t.Helper()
	eventually(t, "keepalives are answered", func() error {
		if _, s := d.status(t); s.Answered == 0 {
			return errors.New("none was")
		}
		return nil
	})
}

// The search finds the exact path MTU, behind a router that sends ICMP errors and behind
// one that does not. It returns an error if the peer does not answer.
func TestAskMTU(t *testing.T) {
	for _, c := range []struct {
		name     string
		a, b     string
		over     int
		narrow   int
		swallows bool
	}{
		{"4in6in4", configA(), configB(), 60, 1400, false},
		{"4in6in4, silently", configA(), configB(), 60, 1321, true},
		{"6in4", plainA(), plainB(), 20, 1333, true},
		{"6in4, wide", plainA(), plainB(), 20, 1500, true},
		{"gre", kindGRE.atA(), kindGRE.atB(), 24, 1402, true},
		{"4in4, static", kind4in4.with("", "pmtu = \"static\"\n").atA(), kind4in4.with("", "pmtu = \"static\"\n").atB(), 20, 1390, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := newRouted(t)
			if c.swallows && c.narrow < 1500 {
				n.dropLarge(t, c.narrow)
			} else {
				n.narrow(t, c.narrow)
			}
			b, a := start(t, n.b, c.b), start(t, n.a, c.a)
			a.phase(t, api.Up)
			client := client.New(a.socket)
			tried := make(map[int]bool)
			got, err := client.ProbeMTU(t.Context(), "six0", func(p api.MTUProbe) error {
				if tried[p.Size] || p.Answered != (p.Size <= c.narrow) {
					t.Errorf("%+v", p)
				}
				tried[p.Size] = true
				return nil
			})
			must(t, err)
			if want := (api.MTUResult{PathMTU: c.narrow, TunnelMTU: c.narrow - c.over, By: "probe"}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			if c.over != 60 {
				return
			}
			b.freeze(t)
			if _, err := client.ProbeMTU(t.Context(), "six0", func(p api.MTUProbe) error {
				t.Errorf("%+v", p)
				return nil
			}); err == nil || !strings.Contains(err.Error(), "six0 answers no probes") {
				t.Error(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if _, err := client.ProbeMTU(ctx, "six0", func(api.MTUProbe) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	}
}

// freeze stops a daemon until it gets SIGCONT.
func (d *daemon) freeze(t *testing.T) {
	t.Helper()
	must(t, d.cmd.Process.Signal(syscall.SIGSTOP))
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.cmd.Process.Pid))
	must(t, err)
	for _, task := range tasks {
		eventually(t, "every thread has stopped", func() error {
			b, err := os.ReadFile(task)
			if err == nil && !strings.Contains(string(b), ") T ") {
				return errors.New(string(b))
			}
			return nil
		})
	}
}
