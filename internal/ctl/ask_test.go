package ctl

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/usage"
)

func TestReload(t *testing.T) {
	f := start(t)
	out, _, err := ctl(t.Context(), "reload --socket "+f.socket)
	must(t, err)
	if want := `added     six2
removed   six1
changed   hub0: peer; peers 2 added, 1 removed
replaced  six0: mode, local6
unchanged six3
changed   [log]
later     [metrics] has changed: this takes effect after a restart
`; out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
	out, _, err = ctl(t.Context(), "reload --json --socket "+f.socket)
	must(t, err)
	var plan api.Plan
	must(t, json.Unmarshal([]byte(out.String()), &plan))
	if len(plan.Changed) != 2 || !plan.Changed[0].InPlace {
		t.Errorf("%+v", plan)
	}
	f.mu.Lock()
	f.bad = "six.toml:3:1: what is wrong\nsix.toml:9:1: and this"
	f.mu.Unlock()
	if out, code := program(t, f.socket, false, "reload"); code != usage.ExitFailure || out != "sixfourctl: "+f.bad+"\n" {
		t.Errorf("%d: %s", code, out)
	}
}

func TestPing(t *testing.T) {
	f := start(t)
	for _, c := range []struct {
		args, want string // durations are replaced by N
		exit       int
		err        string
	}{
		{"ping six0 -c 3", `answer from six0: seq=1 time=1.00 ms
no answer from six0: seq=2 (a router said: ` + "\uFFFD" + `[2J)
answer from six0: seq=3 time=3.00 ms

--- six0 ---
3 sent, 2 answered, 33% lost, in N
rtt min/avg/max/mdev = 1.000/2.000/3.000/1.000 ms
`, 0, ""},
		{"ping six0 -c 1 -s 1400 -i 10ms", "answer from six0: 1400 bytes, seq=1 time=1.00 ms\n\n--- six0 ---\n1 sent, 1 answered, 0% lost, in N\nrtt min/avg/max/mdev = 1.000/1.000/1.000/0.000 ms\n", 0, ""},
		{"ping six0 -c 1 --json", `{"seq":1,"size":0,"rtt_seconds":0.001,"lost":false}
{"sent":1,"answered":1,"loss":0,"rtt_min_seconds":0.001,"rtt_avg_seconds":0.001,"rtt_max_seconds":0.001,"rtt_mdev_seconds":0}
`, 0, ""},
		{"ping hub0/pb -c 1", "no answer from hub0/pb: seq=1 (a router said: \uFFFD[2J)\n\n--- hub0/pb ---\n1 sent, 0 answered, 100% lost, in N\n", 1, "no answer"},
		{"ping hub0", "", 1, `"hub0" is the name of 3 peers: choose hub0/pa`},
		{"ping", "", 2, "ping: an argument is missing: sixfourctl ping TUNNEL|TUNNEL/PEER|PEER"},
		{"ping six0 -c 0", "", 2, "--count 0: give a number from 1 to 100000"},
		{"ping six0 -i 0s", "", 2, "--interval"},
		{"ping six0 -s many", "", 2, `--size "many": give a whole number`},
	} {
		out, _, err := ctl(t.Context(), c.args+" --socket "+f.socket)
		got := regexp.MustCompile(`, in \S+\n`).ReplaceAllString(out.String(), ", in N\n")
		if got != c.want || exitStatus(err) != c.exit || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v\ngot\n%s\nwant\n%s", c.args, err, got, c.want)
		}
	}
}

// Ctrl-C ends ping with the summary, and is not a failure.
func TestPingUntilInterrupted(t *testing.T) {
	f := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	out, errs, ended := new(buffer), new(buffer), make(chan error, 1)
	go func() { ended <- ctlTo(ctx, "ping hub0/pa --socket "+f.socket, out, errs) }()
	waitFor(t, "the first answer", func() bool { return strings.Contains(out.String(), "seq=1") })
	cancel()
	must(t, <-ended)
	if !strings.Contains(out.String(), "1 sent, 1 answered, 0% lost") {
		t.Error(out)
	}
}

func TestMTU(t *testing.T) {
	f := start(t)
	for _, c := range []struct {
		args, want, err string
		exit            int
	}{
		{"mtu six0", " 1280 bytes: answered\n 1500 bytes: no answer\npath MTU 1480 (found by probes), tunnel MTU 1400\n", "", 0},
		{"mtu six0 --json", `{"size":1280,"answered":true}` + "\n" + `{"size":1500,"answered":false}` + "\n" + `{"path_mtu":1480,"mtu":1400,"by":"probe"}` + "\n", "", 0},
		{"mtu hub0/pa", "", "hub0/pa answers no probes", 1},
		{"mtu", "", "mtu: an argument is missing: sixfourctl mtu TUNNEL", 2},
	} {
		out, _, err := ctl(t.Context(), c.args+" --socket "+f.socket)
		if out.String() != c.want || exitStatus(err) != c.exit || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v\ngot\n%s\nwant\n%s", c.args, err, out, c.want)
		}
	}
}
