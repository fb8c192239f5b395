package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/control"
	"sixfour/internal/usage"
)

// asProgram is the environment variable that makes the test binary sixfourctl.
const asProgram = "SIXFOURCTL_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(Main())
	}
	goleak.VerifyTestMain(m)
}

const patience = 30 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fake is a daemon behind a real control socket whose answers a test controls.
type fake struct {
	socket string
	server *control.Server

	mu     sync.Mutex
	status api.Status
	bad    string // why a reload fails
	events chan api.Event
}

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// start starts a daemon with a tunnel to one peer and a hub.
func start(t *testing.T) *fake {
	t.Helper()
	f := &fake{socket: filepath.Join(t.TempDir(), "control.sock"), events: make(chan api.Event, 10)}
	f.status = api.Status{Version: "1.2.3", Started: began, Tunnels: []api.TunnelStatus{one(), hub(3)},
		Stray: api.Traffic{Drops: map[string]uint64{"foreign_source": 5}}}
	f.listen(t)
	t.Cleanup(func() { f.server.Close() })
	return f
}

func (f *fake) listen(t *testing.T) {
	t.Helper()
	s, err := control.Open(f.socket, f, zap.NewNop())
	must(t, err)
	s.Serve()
	f.server = s
}

func (f *fake) Status() api.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

func (f *fake) Events(ctx context.Context) <-chan api.Event {
	c := make(chan api.Event)
	go func() {
		defer close(c)
		for {
			select {
			case ev := <-f.events:
				select {
				case c <- ev:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return c
}

func (f *fake) Reload(context.Context) (api.Plan, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bad != "" {
		return api.Plan{}, errors.New(f.bad)
	}
	return api.Plan{Added: []string{"six2"}, Removed: []string{"six1"}, Unchanged: []string{"six3"}, Restart: []string{"metrics"}, Settings: []string{"log"},
		Changed: []api.Change{{Tunnel: "hub0", InPlace: true, Keys: []string{"peer"}, PeersAdded: 2, PeersRemoved: 1}, {Tunnel: "six0", Keys: []string{"mode", "local6"}}}}, nil
}

// Ping answers every other probe; none for hub0/pb, which waits; endlessly for hub0/pa.
func (f *fake) Ping(ctx context.Context, r api.PingRequest, each func(api.PingReply)) error {
	switch r.Peer {
	case "hub0":
		return errors.New(`"hub0" is the name of 3 peers: choose hub0/pa, hub0/pb, hub0/pc`)
	case "hub0/pa":
		each(api.PingReply{Seq: 1, RTT: 0.002})
		<-ctx.Done()
		return ctx.Err()
	}
	for i := range r.Count {
		if i%2 == 1 || r.Peer == "hub0/pb" {
			each(api.PingReply{Seq: i + 1, Size: r.Size, Lost: true, Detail: "a router said: \x1b[2J"})
		} else {
			each(api.PingReply{Seq: i + 1, Size: r.Size, RTT: 0.001 * float64(i+1)})
		}
	}
	return nil
}

func (f *fake) ProbeMTU(_ context.Context, peer string, each func(api.MTUProbe)) (api.MTUResult, error) {
	if peer != "six0" {
		return api.MTUResult{}, fmt.Errorf("%s answers no probes", peer)
	}
	each(api.MTUProbe{Size: 1280, Answered: true})
	each(api.MTUProbe{Size: 1500})
	return api.MTUResult{PathMTU: 1480, TunnelMTU: 1400, By: "probe"}, nil
}

func one() api.TunnelStatus {
	return api.TunnelStatus{Name: "six0", Mode: "4in6in4", Namespace: "lan", Repairs: map[string]uint64{"route": 1, "interface": 2},
		PeerStatus: api.PeerStatus{
			State: api.State{Phase: api.Up, Since: began, Local: "203.0.113.10", Remote: "203.0.113.20", Local6: "fc00::1", Remote6: "fc00::2",
				PathMTU: 1500, TunnelMTU: 1440, IOState: api.IOState{IO: "socket"}},
			In:        api.Traffic{Packets: 3, Bytes: 99, Drops: map[string]uint64{"spoof": 1, "martian": 2}},
			Out:       api.Traffic{Packets: 4, Bytes: 100},
			Answered:  7,
			Liveness:  api.Liveness{Sent: 40, Lost: 2, Missed: 1, RTT: 0.0123, Loss: 0.05, LastPacket: began.Add(time.Hour)},
			LastError: &api.Fault{At: began.Add(time.Minute), What: "\x1b[2Jnetwork is unreachable"},
			LastDown:  &api.Outage{From: began, Until: began.Add(70 * time.Second), Why: "5 probes were lost"},
		}}
}

// hub is a tunnel with one peer that waits and one that is down.
func hub(n int) api.TunnelStatus {
	t := api.TunnelStatus{Name: "hub0", Mode: "4in6in4", PeerStatus: api.PeerStatus{State: api.State{Phase: api.Up, Since: began, Local: "203.0.113.10", Local6: "fc00::1", TunnelMTU: 1480, IOState: api.IOState{IO: "socket"}}}}
	for i := range n {
		p := api.PeerStatus{Peer: "p" + string(rune('a'+i%26)) + strings.Repeat("x", i/26),
			State: api.State{Phase: api.Up, Since: began, Remote: "198.51.100.1", PathMTU: 1500},
			Out:   api.Traffic{Packets: 12345, Bytes: 1234567}, In: api.Traffic{Packets: 9, Bytes: 900, Drops: map[string]uint64{"spoof": 8}},
			Liveness: api.Liveness{Sent: 400, Lost: 1, RTT: 0.0005, Loss: 0.001}}
		switch i {
		case 1:
			p.State = api.State{Phase: api.Waiting, Since: began, Detail: "a route to 198.51.100.2"}
			p.Liveness = api.Liveness{}
		case 2:
			p.State.Phase, p.State.Detail = api.Down, "5 probes were lost"
			p.LastDown = &api.Outage{From: began, Why: "5 probes were lost"}
		}
		t.Peers = append(t.Peers, p)
	}
	return t
}

// buffer holds the output of a command, and can be read while the command runs.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// ctl runs a command line.
func ctl(ctx context.Context, args string) (out, errs *buffer, err error) {
	out, errs = new(buffer), new(buffer)
	return out, errs, ctlTo(ctx, args, out, errs)
}

func ctlTo(ctx context.Context, args string, out, errs *buffer) error {
	cmd := Root()
	cmd.SetOut(out)
	cmd.SetErr(errs)
	cmd.SetArgs(strings.Fields(args))
	return cmd.ExecuteContext(ctx)
}

// exitStatus returns the exit status that sixfourctl would have.
func exitStatus(err error) int {
	switch {
	case err == nil:
		return usage.ExitOK
	case errors.As(err, new(failure)):
		return usage.ExitFailure
	}
	return usage.ExitMisuse
}

// waitFor waits until a condition is true.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
