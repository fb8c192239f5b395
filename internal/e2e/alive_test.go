package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sixfour/internal/engine"
	"sixfour/internal/rig"
)

// often has a daemon notice within seconds that its peer is gone.
const often = "keepalive = \"2s\"\ndead_after = 3"

// phase waits until a daemon's first tunnel is in a phase, and returns its status.
func (d *daemon) phase(t *testing.T, want engine.Phase) (s engine.TunnelStatus) {
	t.Helper()
	eventually(t, "the tunnel is "+string(want), func() error {
		if _, s = d.status(t); s.State.Phase != want {
			return fmt.Errorf("%+v %+v", s.State, s.Liveness)
		}
		return nil
	})
	return s
}

// forbid has a namespace drop all packets of an IPv4 protocol that come or go.
// Allow is called to take that back.
func forbid(t *testing.T, ns *rig.Namespace, protocol byte) (allow func()) {
	t.Helper()
	var c *nftables.Conn
	must(t, ns.Do(func() (err error) {
		c, err = nftables.New(nftables.AsLasting())
		return err
	}))
	table := c.AddTable(&nftables.Table{Name: "forbid", Family: nftables.TableFamilyIPv4})
	for name, hook := range map[string]*nftables.ChainHook{"in": nftables.ChainHookPrerouting, "out": nftables.ChainHookOutput} {
		chain := c.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityRaw})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
	must(t, c.Flush())
	t.Cleanup(func() { c.CloseLasting() })
	return func() {
		c.DelTable(table)
		must(t, c.Flush())
	}
}

// A tunnel whose peer is stopped, killed, or cut off becomes suspect and down, says
// why, and is up again with the first sign of life.
func TestDeadPeer(t *testing.T) {
	for _, k := range []kind{
		{name: "4in6in4"}, {name: "6in4"}, kindGRE, kindGRE6, kind6in6,
		kindGRE.with(" with a key", "key = 42\n"), kindGRE.with(" in order", "sequence = true\nchecksum = true\n"), kindGRE.xdp(),
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts6(t)
			atA, atB := configA(often), configB(often)
			switch {
			case k.name == "6in4":
				atA, atB = plainA(often), plainB(often)
			case k.a != "":
				atA, atB = k.atA()+often+"\n", k.atB()+often+"\n"
			}
			b, a := start(t, h.b, atB), start(t, h.a, atA)
			s := a.phase(t, engine.Up)
			b.phase(t, engine.Up)
			if k.over%20 == 4 { // a ping of the outer address may have been the first to be answered
				eventually(t, "keepalives are answered", func() error {
					if _, s := b.status(t); s.Answered == 0 {
						return fmt.Errorf("%+v", s.Liveness)
					}
					return nil
				})
			}
			if s.Liveness.RTT <= 0 || s.Liveness.Sent == 0 || s.Liveness.Heard.IsZero() {
				t.Errorf("%+v", s.Liveness)
			}
			if k.over >= 40 && !strings.Contains(k.name, "gre") { // an answer from outside: the host lives on
				return
			}
			must(t, b.cmd.Process.Signal(syscall.SIGSTOP))
			a.wait(t, `"why": "3 probes in a row were not answered, silent for`)
			s = a.phase(t, engine.Down)
			if s.State.Detail == "" || s.LastDown == nil || s.LastDown.From.IsZero() || !s.LastDown.Until.IsZero() || s.Liveness.Missed < 3 || s.Liveness.Lost < 3 {
				t.Errorf("%+v %+v %+v", s.State, s.LastDown, s.Liveness)
			}
			must(t, b.cmd.Process.Signal(syscall.SIGCONT))
			s = a.phase(t, engine.Up)
			if s.LastDown == nil || s.LastDown.Until.IsZero() || !strings.Contains(s.LastDown.Why, "not answered") {
				t.Errorf("%+v", s.LastDown)
			}
			b.phase(t, engine.Up)
			b.end(t, syscall.SIGKILL)
			a.phase(t, engine.Down)
			start(t, h.b, atB)
			a.phase(t, engine.Up)
		})
	}
}

// The same under load, when a firewall on the way begins to drop the outer packets.
func TestForbiddenUnderLoad(t *testing.T) {
	h := newHosts6(t)
	b := start(t, h.b, configB(often))
	a := start(t, h.a, configA(often))
	reachable(t, h.a, inB)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2000 { // one way only: nothing comes back
			_, _ = rig.Ping(t.Context(), h.a, inB, rig.PingOptions{Count: 20, Interval: time.Millisecond, Timeout: 10 * time.Millisecond})
			if t.Context().Err() != nil {
				return
			}
			if _, s := a.status(t); s.State.Phase == engine.Down {
				return
			}
		}
	}()
	allow := forbid(t, h.b, unix.IPPROTO_IPV6)
	a.phase(t, engine.Down)
	b.phase(t, engine.Down)
	<-done
	allow()
	a.phase(t, engine.Up)
	b.phase(t, engine.Up)
	pings(t, h.a, inB, rig.PingOptions{})
}

// A peer that answers nothing is up while it sends, and suspect or down otherwise.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	forbid(t, h.b, unix.IPPROTO_ICMP)
	a := start(t, h.a, kind4in4.atA()+often+"\n")
	start(t, h.b, kind4in4.atB()+"keepalive = \"0s\"\n")
	a.phase(t, engine.Down)
	wire, err := h.b.Capture("vb")
	must(t, err)
	defer wire.Close()
	send := func() { h.inject(t, wire, ip4(outerB, outerA, unix.IPPROTO_IPIP, marked(ip4B[0], ip4A[0]))) }
	for range 3 { // the first is enough
		send()
		s := a.phase(t, engine.Up)
		if s.Liveness.RTT != 0 || s.Liveness.Heard.IsZero() {
			t.Errorf("%+v", s.Liveness)
		}
		a.phase(t, engine.Down)
	}
	a.wait(t, "it never answered one")
}

// Without keepalive there is no probe, and a tunnel is up when it can carry.
func TestNoKeepalive(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	a := start(t, h.a, plainA(`keepalive = "0s"`))
	if s := a.phase(t, engine.Up); s.Liveness != (engine.Liveness{}) {
		t.Errorf("%+v", s.Liveness)
	}
}
