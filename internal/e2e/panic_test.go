package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/nd"
	"sixfour/encap/resolve"
	"sixfour/internal/api"
	"sixfour/internal/configfile"
	"sixfour/internal/control"
	"sixfour/internal/engine"
	"sixfour/internal/readiness"
	"sixfour/internal/rig"
)

// Hop limits of inner packets at which a fragile resolver panics.
const (
	fragileTo = 201 + iota
	fragileFrom
	fragileHold
	fragileHear
	fragileNext
)

// fragile is a mechanism with a bug: packets with some hop limits make its resolvers panic.
type fragile struct{ remote netip.Addr }

func (fragile) Hosts() []resolve.Host { return nil }

func (m fragile) Resolver(resolve.Site) (resolve.Resolver, error) {
	fmt.Fprintln(os.Stderr, "a resolver is made")
	to := m.remote.As4()
	return &fragileResolver{to: binary.BigEndian.Uint32(to[:])}, nil
}

type fragileResolver struct {
	to   uint32
	sick bool
}

func (r *fragileResolver) fail(ip header.IPv6, at byte) {
	if ip.HopLimit() == at {
		panic(fmt.Sprintf("a fault at hop limit %d", at))
	}
}

func (r *fragileResolver) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	ip := header.IPv6(inner)
	r.fail(ip, fragileTo)
	if ip.HopLimit() == fragileHold {
		return resolve.Endpoint{}, drop.Unresolved
	}
	return resolve.Endpoint4(r.to), drop.None
}

func (r *fragileResolver) From(_, _ resolve.Endpoint, inner []byte) drop.Reason {
	r.fail(inner, fragileFrom)
	return drop.None
}

func (*fragileResolver) Wants(inner []byte) bool { return nd.Is(inner) }

func (r *fragileResolver) Receive(_ header.Outer, inner []byte, _ time.Time) bool {
	r.fail(inner, fragileHear)
	r.sick = header.IPv6(inner).HopLimit() == fragileNext
	return true
}

func (r *fragileResolver) Hold(pkt []byte, _ time.Time) bool {
	r.fail(pkt, fragileHold)
	return false
}

func (r *fragileResolver) Next(time.Time) ([]resolve.Message, int, time.Time) {
	if r.sick {
		panic("a fault in Next")
	}
	return nil, 0, time.Time{}
}

func (*fragileResolver) Entries(time.Time) []resolve.Entry { return nil }

func (*fragileResolver) Learnt() resolve.Learnt { return resolve.Learnt{} }

// fragileEnv makes the test program a daemon whose first tunnel is fragile, with a
// remote address.
const fragileEnv = "SIXFOUR_FRAGILE_REMOTE"

// runFragile is that daemon.
func runFragile(remote string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := configfile.Load(os.Args[len(os.Args)-1])
	if err != nil {
		return err
	}
	cfg.Tunnels[0].Layers[0].Mechanism = fragile{netip.MustParseAddr(remote)}
	log, err := zap.NewDevelopment()
	if err != nil {
		return err
	}
	e, err := engine.New(cfg, log)
	if err != nil {
		return err
	}
	s, err := control.Open(cfg.Control.Socket, asDaemon{e}, log)
	if err != nil {
		return err
	}
	s.Serve()
	defer s.Close()
	return e.Run(ctx, func(readiness.Summary) { log.Info("ready") })
}

type asDaemon struct{ *engine.Engine }

func (d asDaemon) Events(ctx context.Context) <-chan api.Event { return d.Happened().Follow(ctx) }

func (asDaemon) Reload(context.Context) (api.Plan, error) {
	return api.Plan{}, errors.New("not here")
}

// fragileEnd starts one.
func fragileEnd(t *testing.T, ns *rig.Namespace, self, other netip.Addr, n int) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := &daemon{socket: filepath.Join(dir, "control.sock"), config: filepath.Join(dir, "sixfour.toml"), done: make(chan error, 1)}
	d.write(t, fmt.Sprintf(`
[[tunnel]]
name = "frail0"
mode = "6to4"
role = "router"
local = "%v"
address = ["%v/16"]
keepalive = "0s"
[[tunnel]]
name = "six0"
mode = "4in4"
local = "%v"
remote = "%v"
address = ["10.0.0.%d/30"]
`, self, fragileAddr(self), self, other, n))
	d.cmd = exec.Command(os.Args[0], d.config)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.Env = append(os.Environ(), fragileEnv+"="+other.String())
	must(t, ns.Start(d.cmd))
	go func() { d.done <- d.cmd.Wait() }()
	t.Cleanup(func() {
		d.end(t, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("log of the daemon in %s:\n%s", ns.Name(), d.log.String())
		}
	})
	d.wait(t, "ready")
	return d
}

// fragileAddr is the 6to4 address of an outer one.
func fragileAddr(outer netip.Addr) netip.Addr {
	v4 := outer.As4()
	return netip.AddrFrom16([16]byte{0x20, 0x02, v4[0], v4[1], v4[2], v4[3], 15: 1})
}

// solicitation is a message of neighbour discovery that makes the far end's resolver
// fail.
func solicitation(hopLimit byte) []byte {
	p := make([]byte, header.IPv6Len+24)
	p[0], p[5], p[6], p[7] = 0x60, 24, header.ICMPv6, hopLimit
	copy(p[8:], fragileAddr(outerA).AsSlice())
	copy(p[24:], fragileAddr(outerB).AsSlice())
	p[header.IPv6Len] = 135
	copy(p[header.IPv6Len+8:], fragileAddr(outerB).AsSlice())
	binary.BigEndian.PutUint16(p[header.IPv6Len+2:], ^header.Sum(p[header.IPv6Len:], header.PseudoSum(p[8:24], p[24:40], 24, header.ICMPv6)))
	return p
}

// A panic while a packet is handled costs only that packet: the tunnel and all others
// continue, with their interfaces, and the panic is counted and logged. This holds for
// every goroutine that handles received data.
func TestPanicDropsOnePacket(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	a, b := fragileEnd(t, h.a, outerA, outerB, 1), fragileEnd(t, h.b, outerB, outerA, 2)
	frail := fragileAddr(outerB)
	reachable(t, h.a, frail)
	reachable(t, h.a, inB)
	wire, err := h.a.Capture("frail0")
	must(t, err)
	defer wire.Close()
	lost := func(ttl int) func() {
		return func() {
			r, err := rig.Ping(t.Context(), h.a, frail, rig.PingOptions{TTL: ttl, Timeout: 10 * time.Millisecond})
			if err != nil || r.Received > 0 {
				t.Errorf("a ping that makes a resolver fail: %+v, %v", r, err)
			}
		}
	}
	inject := func(hopLimit byte) func() {
		return func() { must(t, wire.Inject(solicitation(hopLimit))) }
	}
	for _, c := range []struct {
		name string
		at   *daemon
		send func()
		anew bool // the resolver
	}{
		{"To, on the way out", a, lost(fragileTo), false},
		{"From, on the way in", b, lost(fragileFrom), false},
		{"Hold, on the way out", a, lost(fragileHold), true},
		{"Hear, on the way in", b, inject(fragileHear), true},
		{"Next, of neighbour discovery", b, inject(fragileNext), true},
	} {
		before := repairsOf(t, c.at)
		made := strings.Count(c.at.log.String(), "a resolver is made")
		index := linkIndex(t, h, "frail0")
		c.send()
		eventually(t, c.name+": counted", func() error {
			if now := repairsOf(t, c.at); now <= before {
				return fmt.Errorf("%d panics", now)
			}
			return nil
		})
		if c.anew {
			eventually(t, c.name+": a new resolver", func() error {
				if strings.Count(c.at.log.String(), "a resolver is made") <= made {
					return errors.New("there is none")
				}
				return nil
			})
		}
		reachable(t, h.a, frail)
		pings(t, h.a, inB, rig.PingOptions{Count: 1})
		if now := linkIndex(t, h, "frail0"); now != index {
			t.Errorf("%s: the interface is another one: %v, was %v", c.name, now, index)
		}
	}
	for _, d := range []*daemon{a, b} {
		_, tunnel := d.status(t)
		if n := tunnel.Out.Drops[drop.InternalError.String()] + tunnel.In.Drops[drop.InternalError.String()]; n == 0 {
			t.Errorf("no packet is counted as %v: %v %v", drop.InternalError, tunnel.Out.Drops, tunnel.In.Drops)
		}
		if !strings.Contains(d.log.String(), "panic: this is a bug in sixfourd") || !strings.Contains(d.log.String(), "fragileResolver") {
			t.Error("the log does not show where the fault is")
		}
	}
	// Many at once, from several senders.
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				_ = wire.Inject(solicitation(fragileHear))
			}
		})
	}
	all.Wait()
	reachable(t, h.a, frail)
	pings(t, h.a, inB, rig.PingOptions{Count: 3})
	for _, d := range []*daemon{a, b} {
		if code := d.end(t, syscall.SIGTERM); code != 0 {
			t.Errorf("exit status %d", code)
		}
	}
}

// repairsOf returns how many panics of the first tunnel were counted.
func repairsOf(t *testing.T, d *daemon) uint64 {
	t.Helper()
	_, tunnel := d.status(t)
	return tunnel.Repairs["panic"]
}

// linkIndex returns the index of an interface at both ends.
func linkIndex(t *testing.T, h hosts, name string) (index [2]int) {
	t.Helper()
	for i, ns := range []*rig.Namespace{h.a, h.b} {
		l, err := ns.Handle().LinkByName(name)
		must(t, err)
		index[i] = l.Attrs().Index
	}
	return index
}

// A fatal bug ends the daemon by a signal: the usual exit status of a panic is that of a
// wrong configuration, after which systemd does not start the daemon again
// (RestartPreventExitStatus=). A signal makes the Go runtime end as a panic does.
func TestPanicExitStatus(t *testing.T) {
	t.Parallel()
	a := start(t, newHosts(t, 1500).a, configA())
	a.faulty = true
	must(t, a.cmd.Process.Signal(syscall.SIGQUIT))
	a.exit(t)
	if s, ok := a.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !s.Signaled() || s.Signal() != syscall.SIGABRT {
		t.Errorf("it ended by %v, want %v", a.cmd.ProcessState, syscall.SIGABRT)
	}
	if !strings.Contains(a.log.String(), "goroutine ") {
		t.Error("the log has no stack")
	}
}
