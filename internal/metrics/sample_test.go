package metrics

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
	"time"

	"sixfour/internal/api"
)

// counts are a logger's counters.
type counts struct{ lost, limited uint64 }

func (c counts) Lost() uint64    { return c.lost }
func (c counts) Limited() uint64 { return c.limited }

// still is a daemon whose state does not change.
type still struct {
	status api.Status
	stuck  bool
}

func (s *still) Status() api.Status { return s.status }

// BrokerClients lists one client of the broker.
func (s *still) BrokerClients(each func(api.BrokerClient)) {
	if s.status.Broker != nil {
		each(api.BrokerClient{Account: odd, Sent: api.BrokerTraffic{Packets: 27, Bytes: 28}, Received: api.BrokerTraffic{Packets: 29, Bytes: 30}})
	}
}

func (s *still) Alive(ctx context.Context) error {
	if s.stuck {
		return errors.New("the control loop does not respond")
	}
	return ctx.Err()
}

// odd is a name that must be escaped in the exposition format.
const odd = "a \"b\"\\\nü"

// busy returns a daemon in which everything has a value: a tunnel with one peer, a hub,
// and a tunnel that waits.
func busy() *still {
	at := time.Unix(1700000000, 500_000_000)
	traffic := func(n uint64, drops map[string]uint64) api.Traffic {
		return api.Traffic{Packets: n, Bytes: 100 * n, Drops: drops}
	}
	one := api.PeerStatus{
		State:    api.State{Phase: api.Up, Since: at, PathMTU: 1500, TunnelMTU: 1440},
		In:       traffic(1, map[string]uint64{"martian": 2}),
		Out:      traffic(3, map[string]uint64{"too_big": 4}),
		Answered: 5,
		ICMP: api.ICMP{
			Ignored: 7, Limited: 9,
			ReceivedTypes: api.ICMPTypes{Unreachable: 1, TooBig: 2, TimeExceeded: 3, Parameter: 4, Other: 5},
			SentTypes:     api.ICMPTypes{TooBig: 6},
		},
		Probes: api.Probes{Sent: 10, Answered: 11}, InvalidECN: 12, IDRepeats: 13,
		Liveness: api.Liveness{Sent: 14, Lost: 15, RTT: 0.016, Loss: 0.25, LastPacket: at},
	}
	b, c := one, one
	b.Peer, c.Peer = "b", odd
	b.In, b.Out = traffic(10, map[string]uint64{"martian": 1}), traffic(20, map[string]uint64{})
	c.In, c.Out = traffic(30, map[string]uint64{"martian": 2, "spoof": 1}), traffic(40, map[string]uint64{})
	c.State = api.State{Phase: api.Suspect, Since: at}
	c.Paths = []api.PathStatus{
		{State: api.State{Phase: api.Waiting, Since: at}, In: traffic(25, nil), Out: traffic(0, nil)},
		{Used: true, Share: 1, State: api.State{Phase: api.Suspect, Since: at, Encap: "fou", PathMTU: 1480}, In: traffic(5, nil), Out: traffic(40, nil),
			Liveness: api.Liveness{Sent: 23, Lost: 24, RTT: 0.025, Loss: 0.5}},
	}
	hub := api.TunnelStatus{Name: "hub", Mode: "6in4", Namespace: "n", Peers: []api.PeerStatus{b, c}}
	hub.State = b.State
	// The interface has refused two packets from the peers.
	hub.In, hub.Out = traffic(38, map[string]uint64{"martian": 3, "spoof": 1, "interface_down": 2}), traffic(60, map[string]uint64{"no_peer": 8})
	lost := api.TunnelStatus{Name: odd, Mode: "gre"}
	lost.State = api.State{Phase: api.Waiting, Since: at, Detail: "a route to 203.0.113.20"}
	return &still{status: api.Status{
		Version: "1", Started: at, Reloads: api.Reloads{Succeeded: 21, Failed: 22, Last: at, Error: "no"},
		Tunnels: []api.TunnelStatus{{Name: "six0", Mode: "4in6in4", PeerStatus: one, Repairs: map[string]uint64{"route": 17},
			Session: &api.Session{State: api.SessionUp, Attempts: map[string]uint64{"success": 25, "failure": 26}}}, hub, lost},
		Stray: traffic(0, map[string]uint64{"foreign_source": 18}),
		Broker: &api.BrokerStatus{
			Accounts: 31, Leases: 32, FreePrefixes: 33, Clients: map[string]int{"ayiya": 34},
			Refused: []api.BrokerRefusals{{Protocol: "tic", Reason: "wrong_secret", Count: 35}},
		},
		LISP: &api.MapServerStatus{Sites: 39, Registered: 37, Prefixes: 38, Served: map[string]uint64{"replied": 40}, Refused: map[string]uint64{"wrong_key": 41}},
		Gateway: &api.GatewayStatus{
			DefaultRoute: &api.DefaultRouteStatus{Tunnel: "six0", State: api.GatewayActive, IPv4: true},
			Masquerade:   &api.MasqueradeStatus{Interfaces: []string{"eth0", "ppp0"}, State: api.GatewayWaiting, Missing: []string{"ppp0"}},
			Shares:       []api.ShareStatus{{Tunnel: "six0", State: api.GatewayActive, PortCount: 36}},
		},
	}}
}

// quiet is a log whose output is discarded.
var quiet = log.New(io.Discard, "", 0)

// serve starts a server for a daemon, and returns its URL.
func serve(t *testing.T, d Daemon) string {
	t.Helper()
	s, err := Listen("127.0.0.1:0", d, counts{19, 20}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return "http://" + s.Addr().String()
}

// get makes a request, and returns the status code and the body.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: time.Minute}
	defer client.CloseIdleConnections()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSuffix(string(b), "\n")
}
