package ctl

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"sixfour/internal/api"
)

// twoPaths are the paths to a peer: the first one failed, the second one is used instead.
func twoPaths() []api.PathStatus {
	return []api.PathStatus{
		{Why: "it is down: 3 probes in a row were not answered", WhySince: began.Add(time.Minute),
			State:    api.State{Phase: api.Down, Since: began.Add(time.Minute), Local: "203.0.113.10", Remote: "203.0.113.20", PathMTU: 1500, Detail: "3 probes in a row were not answered"},
			Liveness: api.Liveness{Sent: 20, Lost: 3, Loss: 0.15}},
		{Used: true, Share: 1, Why: "used", WhySince: began.Add(time.Minute),
			State:    api.State{Phase: api.Up, Since: began, Local: "203.0.113.10", Remote: "203.0.113.20", Encap: "fou", LocalPort: 5555, Port: 5556, PathMTU: 1492},
			Liveness: api.Liveness{Sent: 20, RTT: 0.0123}, Out: api.Traffic{Packets: 12345}, In: api.Traffic{Packets: 9}},
		{Why: "standby for path 2", WhySince: began,
			State: api.State{Phase: api.Up, Since: began, Local: "2001:db8::1", Remote: "2001:db8::2", Encap: "https", LocalPort: 443, Port: 443}},
	}
}

func TestPaths(t *testing.T) {
	f := start(t)
	f.status.Tunnels[0].Paths = twoPaths()
	other := hub(3)
	other.Name = "hub1"
	other.Peers = other.Peers[:1]
	f.status.Tunnels = append(f.status.Tunnels, other)
	for _, c := range []struct {
		args string
		want []string // the first words of each line below the heading
		err  string
		exit int
	}{
		{"paths", []string{"six0 1 -", "not used for", "six0 2 100%", "used for", "six0 3 -", "not used for", "hub0/pa 1 100%", "used for", "hub0/pb 1 -", "not used for", "hub0/pc 1 100%", "used for", "hub1/pa 1 100%", "used for"}, "", 0},
		{"paths hub1", []string{"hub1/pa 1 100%", "used for"}, "", 0},
		{"paths hub0/pb", []string{"hub0/pb 1 - none waiting", "not used for"}, "", 0},
		{"paths pc", []string{"hub0/pc 1 100% none 198.51.100.1 down", "used for"}, "", 0},
		{"paths pa", nil, `"pa" is the name of 2 peers: choose hub0/pa, hub1/pa`, 1},
		{"paths nope", nil, `there is no tunnel or peer "nope": choose six0, hub0, hub1, or TUNNEL/PEER`, 1},
		{"paths six0 hub0", nil, `paths: argument "hub0" is one too many: sixfourctl paths [TUNNEL|TUNNEL/PEER|PEER]`, 2},
	} {
		out, _, err := ctl(t.Context(), c.args+" --socket "+f.socket)
		if exitStatus(err) != c.exit || c.err != "" && (err == nil || err.Error() != c.err) {
			t.Errorf("%s: exit %d, %v", c.args, exitStatus(err), err)
			continue
		}
		got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")[1:]
		for i := range max(len(got), len(c.want)) {
			if i >= len(got) || i >= len(c.want) || !strings.HasPrefix(strings.Join(strings.Fields(got[i]), " "), c.want[i]) {
				t.Errorf("%s: got\n%s\nwant\n%s", c.args, out, strings.Join(c.want, "\n"))
				break
			}
		}
	}
}

func TestPathsTable(t *testing.T) {
	var all []peerPath
	for i, p := range twoPaths() {
		all = append(all, peerPath{"six0", "", i + 1, p})
	}
	var b strings.Builder
	must(t, writeLines(&b, false, pathsReport(all, began.Add(75*time.Second))))
	want := `
TUNNEL  PATH  SHARE  ENCAP  LOCAL              REMOTE             STATE    FOR      RTT  LOSS  PATH MTU     OUT  IN
six0       1      -  none   203.0.113.10       203.0.113.20       down     15s            15%      1500       0   0
    not used for 15s: it is down: 3 probes in a row were not answered
six0       2   100%  fou    203.0.113.10:5555  203.0.113.20:5556  up     1m15s  12.3 ms    0%      1492  12.3 k   9
    used for 15s
six0       3      -  https  [2001:db8::1]:443  [2001:db8::2]:443  up     1m15s                                0   0
    not used for 1m15s: standby for path 2
`
	if got := "\n" + b.String(); got != want {
		t.Errorf("got%swant%s", got, want)
	}
}

// The JSON form has the fields of the status, and the place of each path.
func TestPathsJSON(t *testing.T) {
	f := start(t)
	f.status.Tunnels[0].Paths = twoPaths()
	out, _, err := ctl(t.Context(), "paths --json --socket "+f.socket)
	must(t, err)
	var all []peerPath
	must(t, json.Unmarshal([]byte(out.String()), &all))
	var got []string
	for _, p := range all {
		got = append(got, fmt.Sprintf("%s/%s %d %v %s", p.Tunnel, p.Peer, p.Path, p.Used, p.State.Encap))
	}
	if want := "six0/ 1 false ,six0/ 2 true fou,six0/ 3 false https,hub0/pa 1 true ,hub0/pb 1 false ,hub0/pc 1 true "; strings.Join(got, ",") != want {
		t.Errorf("%q, want %q", strings.Join(got, ","), want)
	}
}

// The live view has a row for each of several paths, with its own rates.
func TestWatchPaths(t *testing.T) {
	v := &view{now: began.Add(time.Minute), statusAt: began.Add(2 * time.Second), beforeAt: began}
	for _, s := range []*api.Status{&v.before, &v.status} {
		h := hub(1)
		h.Peers[0].Paths = twoPaths()
		*s = api.Status{Version: "1", Started: began, Tunnels: []api.TunnelStatus{one(), h}}
		s.Tunnels[0].Paths = twoPaths()
	}
	v.status.Tunnels[0].Paths[1].Out.Packets += 3000
	v.status.Tunnels[0].Paths[1].Out.Bytes += 250000
	all := picture(v, 160, 24)
	for _, want := range []string{"  path 1", "  path 2 fou, used", "  path 3 https", "    path 2 fou, used"} {
		if !strings.Contains(all, "\n"+want+" ") {
			t.Errorf("there is no %q in\n%s", want, all)
		}
	}
	for line := range strings.Lines(all) {
		if strings.HasPrefix(line, "  path 2") && !strings.Contains(line, "1.50 kp/s  1.00 Mbit/s") {
			t.Errorf("the rates of path 2: %s", line)
		}
	}
	if small := picture(v, 160, 5); strings.Contains(small, "path 1") {
		t.Errorf("paths are shown that do not fit:\n%s", small)
	}
}
