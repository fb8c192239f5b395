package ctl

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/usage"
)

func TestWatchPrintsEvents(t *testing.T) {
	f := start(t)
	f.events <- api.Event{At: began, Tunnel: "six0", Kind: api.EventState, Text: "up\x1b[2J"}
	f.events <- api.Event{At: began, Tunnel: "hub0", Peer: "pa", Kind: api.EventPathMTU, Text: "1400"}
	f.events <- api.Event{At: began, Kind: api.EventLost, Text: "7 events were lost, because they were not read in time"}
	at := began.Local().Format(time.RFC3339)
	for _, c := range []struct{ args, want string }{
		{"watch", at + " six0 state: up\uFFFD[2J\n" + at + " hub0/pa path_mtu: 1400\n" + at + " lost: 7 events were lost, because they were not read in time\n"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		out, errs, ended := new(buffer), new(buffer), make(chan error, 1)
		go func() { ended <- ctlTo(ctx, c.args+" --socket "+f.socket, out, errs) }()
		waitFor(t, "the events", func() bool { return strings.Count(out.String(), "\n") == strings.Count(c.want, "\n") })
		cancel()
		must(t, <-ended) // ended by the test
		if out.String() != c.want || errs.String() != "" {
			t.Errorf("%s: got\n%s%s\nwant\n%s", c.args, out, errs, c.want)
		}
	}
}

func TestWatchOneTunnelAsJSON(t *testing.T) {
	f := start(t)
	f.events <- api.Event{At: began, Tunnel: "hub0", Kind: api.EventState, Text: "up"}
	f.events <- api.Event{At: began, Tunnel: "six0", Kind: api.EventState, Text: "up"}
	ctx, cancel := context.WithCancel(t.Context())
	out, errs, ended := new(buffer), new(buffer), make(chan error, 1)
	go func() { ended <- ctlTo(ctx, "watch six0 --json --socket "+f.socket, out, errs) }()
	waitFor(t, "the event", func() bool { return strings.Contains(out.String(), "\n") })
	cancel()
	must(t, <-ended)
	if want := `{"at":"2026-03-01T12:00:00Z","tunnel":"six0","kind":"state","text":"up"}` + "\n"; out.String() != want {
		t.Errorf("got %s want %s", out, want)
	}
}

// watch waits for a daemon that restarts, and shows no event twice.
func TestWatchAcrossRestart(t *testing.T) {
	f := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, errs, ended := new(buffer), new(buffer), make(chan error, 1)
	go func() { ended <- ctlTo(ctx, "watch --socket "+f.socket, out, errs) }()
	ev := api.Event{At: began, Tunnel: "six0", Kind: api.EventState, Text: "up"}
	f.events <- ev
	waitFor(t, "the first event", func() bool { return strings.Contains(out.String(), "up\n") })
	f.server.Close()
	waitFor(t, "that the daemon is missed", func() bool { return strings.Contains(errs.String(), "no sixfourd answers at") })
	f.listen(t)
	waitFor(t, "that it is back", func() bool { return strings.Contains(errs.String(), "the daemon is running again") })
	f.events <- ev
	f.events <- api.Event{At: began.Add(time.Second), Tunnel: "six0", Kind: api.EventState, Text: "down"}
	waitFor(t, "the other event", func() bool { return strings.Contains(out.String(), "down\n") })
	if n := strings.Count(out.String(), "up\n"); n != 1 {
		t.Errorf("told %d times:\n%s", n, out)
	}
	cancel()
	must(t, <-ended)
}

func TestWatchWithoutDaemon(t *testing.T) {
	_, _, err := ctl(t.Context(), "watch --socket /no/such/socket")
	if exitStatus(err) != usage.ExitFailure || !strings.Contains(err.Error(), "no sixfourd answers") {
		t.Errorf("%v", err)
	}
}

func picture(v *view, columns, rows int) string {
	var b strings.Builder
	for _, line := range v.frame(columns, rows) {
		b.WriteString(render(line, columns, false) + "\n")
	}
	return b.String()
}

func TestPicture(t *testing.T) {
	v := &view{now: began.Add(time.Minute), statusAt: began.Add(2 * time.Second), beforeAt: began}
	v.before = api.Status{Version: "1", Started: began, Tunnels: []api.TunnelStatus{one(), hub(3)}}
	v.status = api.Status{Version: "1", Started: began, Tunnels: []api.TunnelStatus{one(), hub(3)}}
	v.status.Tunnels[0].Out.Packets += 3000
	v.status.Tunnels[0].Out.Bytes += 250000
	v.status.Tunnels[0].In.Drops = map[string]uint64{"spoof": 5, "martian": 2}
	v.status.Tunnels[1].Peers[2].Out.Packets = 1 // the counter was reset: no rate
	for i := range 20 {
		v.events = append(v.events, api.Event{At: began, Tunnel: "six0", Kind: "state", Text: fmt.Sprint(i)})
	}
	at := began.Local().Format(time.TimeOnly)
	got, want := picture(v, 120, 12), `sixfourd 1 for 1m00s: 2 tunnels, 4 peers, at `+v.now.Format(time.TimeOnly)+`; q quits
TUNNEL  STATE      FOR       RTT  LOSS  PATH MTU         OUT         RATE     IN      RATE  DROPPED
six0    up       1m00s   12.3 ms    5%      1500  1.50 kp/s  1.00 Mbit/s  0 p/s   0 bit/s  in spoof 2 p/s
hub0    up       1m00s                                0 p/s      0 bit/s  0 p/s   0 bit/s
  pb    waiting  1m00s                                0 p/s      0 bit/s  0 p/s   0 bit/s
  and 2 more

EVENTS
`+at+` six0 state: 16
`+at+` six0 state: 17
`+at+` six0 state: 18
`+at+` six0 state: 19
`
	norm := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	if norm(got) != norm(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	v.status.Tunnels[1] = hub(1000)
	for _, size := range [][2]int{{120, 24}, {80, 24}, {200, 60}, {20, 5}, {1, 1}, {3, 2}, {80, 3}, {500, 2000}} {
		lines := strings.Split(strings.TrimSuffix(picture(v, size[0], size[1]), "\n"), "\n")
		if len(lines) > size[1] {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, l := range lines {
			if n := len([]rune(l)); n > size[0] {
				t.Errorf("%v: %d columns: %q", size, n, l)
			}
		}
	}
}
