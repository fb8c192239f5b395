package ctl

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/usage"
)

// lines returns a report's lines, without colours.
func lines(s api.Status, now time.Time) string {
	var b strings.Builder
	_ = writeLines(&b, false, report(s, now))
	return b.String()
}

func TestReport(t *testing.T) {
	s := api.Status{Tunnels: []api.TunnelStatus{one(), hub(3)}, Stray: api.Traffic{Drops: map[string]uint64{"foreign_source": 5}}}
	s.Tunnels[0].LastDown.From = time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	s.Tunnels[0].LastDown.Until = s.Tunnels[0].LastDown.From.Add(70 * time.Second)
	want := `six0  4in6in4  up for 2h13m
  outer      203.0.113.10 > 203.0.113.20, path MTU 1500 (of the first hop), through a socket
  IPv6 layer fc00::1 > fc00::2
  interface  MTU 1440, in network namespace lan
  liveness   RTT 12.3 ms, loss 5%; 40 probes, 2 lost (the last 1), last confirmed 1h13m ago
  out        4 packets, 100 bytes
  in         3 packets, 99 bytes
  dropped in martian 2, spoof 1
  answered   7 echo requests and keepalives of the peer
  last error 2h12m ago: �[2Jnetwork is unreachable
  last down  2026-03-01 12:00:00, for 1m10s: 5 probes were lost
  repairs    interface 2, route 1

hub0  4in6in4  up for 2h13m
  outer      203.0.113.10 > 3 peers, through a socket
  peers      1 down, 1 up, 1 waiting
  IPv6 layer fc00::1 > 3 peers
  interface  MTU 1480
  out        0 packets, 0 bytes
  in         0 packets, 0 bytes
  PEER  STATE      FOR  REMOTE             RTT  LOSS  PATH MTU     OUT    BYTES  IN  BYTES  DROPPED
  pa    up       2h13m  198.51.100.1  0.500 ms   <1%      1500  12.3 k  1.23 MB   9  900 B  in: spoof 8
  pb    waiting  2h13m                                          12.3 k  1.23 MB   9  900 B  in: spoof 8
      waits for a route to 198.51.100.2
  pc    down     2h13m  198.51.100.1  0.500 ms   <1%      1500  12.3 k  1.23 MB   9  900 B  in: spoof 8
      because 5 probes were lost
packets of no tunnel
  dropped in foreign_source 5
`
	now := began.Add(2*time.Hour + 13*time.Minute + 5*time.Second)
	if got := lines(s, now); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestNeighbours: the nodes that a mechanism knows are shown, but not more than fit a screen.
func TestNeighbours(t *testing.T) {
	s := api.TunnelStatus{Name: "isatap0", Mode: "isatap", Neighbours: []api.Neighbour{
		{Address: "fe80::5efe:a00:1", Outer: "10.0.0.1", State: "router", Age: 75},
		{Address: "fe80::2", State: "incomplete"},
	}}
	got := lines(api.Status{Tunnels: []api.TunnelStatus{s}}, began)
	if want := `  neighbours fe80::5efe:a00:1 at 10.0.0.1, router, 1m15s ago
             fe80::2 at an unknown outer address, incomplete
`; !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for range 100 {
		s.Neighbours = append(s.Neighbours, s.Neighbours[1])
	}
	got = lines(api.Status{Tunnels: []api.TunnelStatus{s}}, began)
	if n := strings.Count(got, "incomplete"); n != shownNeighbours-1 || !strings.Contains(got, "and 82 more\n") {
		t.Errorf("%d of them\n%s", n, got)
	}
}

// What a broker knows of our address.
func TestAddressUpdate(t *testing.T) {
	u := api.AddressUpdate{Server: "broker.example", Host: "123", Local: "192.0.2.1", At: began}
	for _, c := range []struct {
		state, answer, problem string
		want                   string
	}{
		{api.UpdateWaiting, "", "", "gets our address when there is one"},
		{api.UpdateDone, "good 192.0.2.1", "", "answered good 192.0.2.1 1m15s ago"},
		{api.UpdateStopped, "nohost", "it does not know update_host: correct it", "does not get our address, since 1m15s: it does not know update_host: correct it: then reload"},
		{api.UpdateRetrying, "911", "it has a problem", "did not take our address 1m15s ago: it has a problem; next attempt in 45s"},
	} {
		u.State, u.Answer, u.Error, u.Next = c.state, c.answer, c.problem, began.Add(2*time.Minute)
		got := lines(api.Status{Tunnels: []api.TunnelStatus{{Name: "six0", Mode: "6in4", AddressUpdate: &u}}}, began.Add(75*time.Second))
		if want := "  broker     broker.example " + c.want + "\n"; !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

// Each of several paths has a line, with the reason of its state below it.
func TestReportPaths(t *testing.T) {
	now := time.Now()
	s := api.Status{Tunnels: []api.TunnelStatus{{Name: "six0", Mode: "6in4", PeerStatus: api.PeerStatus{
		State: api.State{Phase: api.Up, Since: now, Local: "192.0.2.2", Remote: "2001:db8::2", Encap: "fou", LocalPort: 5555, Port: 5556, IOState: api.IOState{IO: "socket"}, PathMTU: 1500},
		Paths: []api.PathStatus{
			{State: api.State{Phase: api.Down, Since: now.Add(-time.Minute), Local: "192.0.2.1", Remote: "198.51.100.1", PathMTU: 1500, Detail: "3 probes in a row were not answered"}},
			{Used: true, State: api.State{Phase: api.Up, Since: now.Add(-time.Hour), Local: "192.0.2.2", Remote: "198.51.100.2", Encap: "fou", LocalPort: 5555, Port: 5556}, Liveness: api.Liveness{RTT: 0.0015}, Out: api.Traffic{Packets: 7}},
			{State: api.State{Phase: api.Up, Since: now.Add(-time.Hour)}, Why: "standby for path 2", WhySince: now.Add(-time.Minute)},
			{Used: true, Share: 0.25, State: api.State{Phase: api.Up, Since: now.Add(-time.Hour)}},
		},
	}}}}
	text := lines(s, now)
	for _, want := range []string{
		"outer      fou 192.0.2.2:5555 > [2001:db8::2]:5556, path MTU 1500 (of the first hop), through a socket",
		"path 1     down for 1m00s: 192.0.2.1 > 198.51.100.1, path MTU 1500, 0 packets out, 0 in",
		"because 3 probes in a row were not answered",
		"path 2     up for 1h00m, used: fou 192.0.2.2:5555 > 198.51.100.2:5556, RTT 1.50 ms, 7 packets out, 0 in",
		"path 3     up for 1h00m, 0 packets out, 0 in",
		"not used for 1m00s: standby for path 2",
		"path 4     up for 1h00m, used by 25% of the flows, 0 packets out, 0 in",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
}

func TestColours(t *testing.T) {
	var b strings.Builder
	must(t, writeLines(&b, true, report(api.Status{Tunnels: []api.TunnelStatus{one()}}, began)))
	if !strings.Contains(b.String(), "\x1b[32mup\x1b[0m") {
		t.Errorf("%q", b.String())
	}
	for _, line := range strings.Split(b.String(), "\n") {
		if strings.Count(line, "\x1b[")%2 != 0 || strings.Contains(line, "\x1b[2J") {
			t.Errorf("%q", line)
		}
	}
}

func TestStatusCommand(t *testing.T) {
	f := start(t)
	for _, c := range []struct {
		args, want, err string
		exit            int
	}{
		{"status", "six0  4in6in4  up for ", "", 0},
		{"status", "\nhub0  4in6in4  up for ", "", 0},
		{"status hub0", "hub0  4in6in4  up for ", "", 0},
		{"status hub0/pc", "hub0/pc  4in6in4  down for ", "", 0},
		{"status nope", "", `there is no tunnel "nope": choose six0, hub0`, 1},
		{"status hub0/nope", "", `tunnel hub0 has no peer "nope"`, 1},
		{"status six0 six1", "", `status: argument "six1" is one too many: sixfourctl status [TUNNEL|TUNNEL/PEER]`, 2},
		{"status --frob", "", "status has no flag --frob: it has --", 2},
		{"frob", "", `there is no command "frob": choose status, watch, doctor,`, 2},
		{"status --socket /no/such/socket", "", "no sixfourd answers at /no/such/socket: start it, or", 1},
	} {
		args := c.args
		if !strings.Contains(args, "--socket") && args != "frob" {
			args += " --socket " + f.socket
		}
		out, errs, err := ctl(t.Context(), args)
		if exitStatus(err) != c.exit || c.err == "" && !strings.Contains(out.String(), c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: exit %d, %v\n%s%s", c.args, exitStatus(err), err, out, errs)
		}
		if strings.Contains(out.String(), "\x1b") {
			t.Errorf("%s: colours in what is no terminal", c.args)
		}
	}
	out, _, err := ctl(t.Context(), "status six0 --json --socket "+f.socket)
	must(t, err)
	var s api.Status
	must(t, json.Unmarshal([]byte(out.String()), &s))
	if len(s.Tunnels) != 1 || s.Tunnels[0].Liveness.RTT != 0.0123 {
		t.Errorf("%+v", s)
	}
}

// If a status cannot be written, the command fails.
func TestStatusToFullDevice(t *testing.T) {
	f := start(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	defer full.Close()
	for _, args := range [][]string{{"status"}, {"status", "--json"}} {
		cmd := Root()
		cmd.SetOut(full)
		cmd.SetArgs(append(args, "--socket", f.socket))
		if err := cmd.ExecuteContext(t.Context()); exitStatus(err) != usage.ExitFailure {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestOneLinePerPeer(t *testing.T) {
	s := api.Status{Tunnels: []api.TunnelStatus{hub(1000)}}
	if n := strings.Count(lines(s, began), "\n"); n > 1000+10 {
		t.Errorf("%d lines", n)
	}
}

// Without permission, the error says how to get it.
func TestStatusWithoutPermission(t *testing.T) {
	f := start(t)
	must(t, os.Chmod(filepath.Dir(f.socket), 0o755))
	must(t, os.Chmod(filepath.Dir(filepath.Dir(f.socket)), 0o755))
	out, code := program(t, f.socket, true, "status")
	if want := "sixfourctl: " + f.socket + " may not be opened: run as root, or join group sixfour\n"; code != usage.ExitFailure || out != want {
		t.Errorf("%d: %s", code, out)
	}
}

// The status shows both parts of the gateway, and strangers.
func TestReportGateway(t *testing.T) {
	s := api.Status{
		Gateway: &api.GatewayStatus{
			DefaultRoute: &api.DefaultRouteStatus{Tunnel: "six0", State: api.GatewayActive, IPv4: true, Bypass: []string{"198.51.100.0/24"}},
			Masquerade:   &api.MasqueradeStatus{Interfaces: []string{"eth0", "ppp0"}, State: api.GatewayWaiting, Detail: "there is no interface ppp0", Missing: []string{"ppp0"}},
			Advice:       []string{"turn it on"},
		},
		Stray:          api.Traffic{Drops: map[string]uint64{"foreign_source": 5}},
		UnknownSources: []api.UnknownSource{{From: "192.0.2.1", To: "203.0.113.10", Protocol: 41, Last: began}},
	}
	want := `
gateway
  default    active: all IPv4 packets without another route go into six0, except to 198.51.100.0/24
  masquerade waiting: packets from the tunnels leave through eth0, ppp0 with its address
             because there is no interface ppp0
  advice     turn it on
packets of no tunnel
  dropped in foreign_source 5
  from       192.0.2.1 (protocol 41, 1m05s ago)
`
	if got := lines(s, began.Add(65*time.Second)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The status of a broker has its prefixes, clients and refusals, and what does not work.
func TestReportBroker(t *testing.T) {
	b := &api.BrokerStatus{
		Store: "/var/lib/sixfour/broker.db", Accounts: 3, Leases: 2, FreePrefixes: 126, Clients: map[string]int{"tsp": 1, "ayiya": 12, "json": 0},
		Refused: []api.BrokerRefusals{{Protocol: "tic", Reason: "wrong_secret", Count: 4}},
		Listeners: []api.BrokerListener{
			{Protocol: "json", Address: netip.MustParseAddrPort("203.0.113.10:14629")},
			{Protocol: "tic", Address: netip.MustParseAddrPort("203.0.113.10:3874"), Error: "another program listens there"},
		},
	}
	want := `
broker
  prefixes   2 given away to 3 accounts, 126 left, in /var/lib/sixfour/broker.db
  clients    12 ayiya, 1 tsp connected
  refused    tic wrong_secret 4
  listener   tic at 203.0.113.10:3874: another program listens there
`
	if got := lines(api.Status{Broker: b}, began); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	want = `
broker
  store      the store is damaged
  clients    none connected
`
	if got := lines(api.Status{Broker: &api.BrokerStatus{Error: "the store is damaged"}}, began); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The session with a server is one line, with what it says in another, and what it has granted
// in a third.
func TestSession(t *testing.T) {
	granted := api.Session{Server: "b.example", State: api.SessionUp, Since: began, Address: "2001:db8::1/64", Routed: []string{"2001:db8::/64"}, MTU: 1280, Type: "TCP", Granted: began}
	retrying := granted
	retrying.State, retrying.Error, retrying.Next, retrying.Said = api.SessionRetrying, "the password is wrong", began.Add(2*time.Minute), "400 no"
	for _, c := range []struct {
		session api.Session
		want    []string
	}{
		{api.Session{Server: "b.example", State: api.SessionConnecting, Since: began}, []string{"  server     b.example has not answered yet"}},
		{granted, []string{"  server     b.example up for 1m15s", "  granted    2001:db8::1/64, prefix 2001:db8::/64, MTU 1280, in TCP, 1m15s ago"}},
		{retrying, []string{
			"  server     b.example no session for 1m15s: the password is wrong; next attempt in 45s", "             it says: 400 no",
			"  granted    2001:db8::1/64, prefix 2001:db8::/64, MTU 1280, in TCP, 1m15s ago"}},
	} {
		got := lines(api.Status{Tunnels: []api.TunnelStatus{{Name: "six0", Mode: "json", Session: &c.session}}}, began.Add(75*time.Second))
		for _, want := range c.want {
			if !strings.Contains(got, want+"\n") {
				t.Errorf("%q is not in\n%s", want, got)
			}
		}
	}
}
