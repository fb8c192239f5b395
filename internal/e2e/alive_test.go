package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// often makes a daemon notice within seconds that its peer is gone.
const often = "keepalive = \"2s\"\ndead_after = 3"

// phase waits until a daemon's first tunnel is in a phase, and returns its status.
func (d *daemon) phase(t *testing.T, want api.Phase) (s api.TunnelStatus) {
	t.Helper()
	eventually(t, "the tunnel is "+string(want), func() error {
		if _, s = d.status(t); s.State.Phase != want {
			return fmt.Errorf("%+v %+v", s.State, s.Liveness)
		}
		return nil
	})
	return s
}

// forbid makes a namespace drop all packets of an IPv4 protocol, in both directions.
// Calling allow ends this.
func forbid(t *testing.T, ns *rig.Namespace, protocol byte) (allow func()) {
	t.Helper()
	return forbidAt(t, ns, protocol, map[string]*nftables.ChainHook{"in": nftables.ChainHookPrerouting, "out": nftables.ChainHookOutput})
}

// forbidIn makes a namespace drop the packets that arrive.
func forbidIn(t *testing.T, ns *rig.Namespace, protocol byte) (allow func()) {
	t.Helper()
	return forbidAt(t, ns, protocol, map[string]*nftables.ChainHook{"in": nftables.ChainHookPrerouting})
}

func forbidAt(t *testing.T, ns *rig.Namespace, protocol byte, hooks map[string]*nftables.ChainHook) (allow func()) {
	t.Helper()
	var c *nftables.Conn
	must(t, ns.Do(func() (err error) {
		c, err = nftables.New(nftables.AsLasting())
		return err
	}))
	table := c.AddTable(&nftables.Table{Name: "forbid", Family: nftables.TableFamilyIPv4})
	for name, hook := range hooks {
		chain := c.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityRaw})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
	must(t, c.Flush())
	t.Cleanup(func() { must(t, c.CloseLasting()) })
	return func() {
		c.DelTable(table)
		must(t, c.Flush())
	}
}

// A tunnel whose peer is stopped, killed or disconnected becomes suspect and then down,
// with the reason. It is up again as soon as the peer sends a packet.
func TestDeadPeer(t *testing.T) {
	for _, k := range []kind{
		{name: "4in6in4"}, {name: "6in4"}, kindGRE, kindGRE6, kind4in4, kind4in6, kind6in6.withPrefixes("126"), kindDSLite, kind4in6.xdp(),
		kindGRE.with(" with a key", "key = 42\n"), kindGRE.with(" with a key each way", "ikey = %[1]d\nokey = %[2]d\n"), kindGRE.with(" in order", "sequence = true\nchecksum = true\n"), kindGRE.xdp(),
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
			s := a.phase(t, api.Up)
			b.phase(t, api.Up)
			if k.over%20 == 4 { // a ping of the outer address may have been the first to be answered
				b.waitKeepalive(t)
			}
			if s.Liveness.RTT <= 0 || s.Liveness.Sent == 0 || s.Liveness.LastPacket.IsZero() {
				t.Errorf("%+v", s.Liveness)
			}
			if k.over%20 == 0 {
				a.waitInnerAnswer(t)
				b.waitInnerAnswer(t)
			}
			b.freeze(t)
			a.wait(t, `"why": "3 probes in a row were not answered, silent for`)
			s = a.phase(t, api.Down)
			if s.State.Detail == "" || s.LastDown == nil || s.LastDown.From.IsZero() || !s.LastDown.Until.IsZero() || s.Liveness.Missed < 3 || s.Liveness.Lost < 3 {
				t.Errorf("%+v %+v %+v", s.State, s.LastDown, s.Liveness)
			}
			must(t, b.cmd.Process.Signal(syscall.SIGCONT))
			s = a.phase(t, api.Up)
			if s.LastDown == nil || s.LastDown.Until.IsZero() || !strings.Contains(s.LastDown.Why, "not answered") {
				t.Errorf("%+v", s.LastDown)
			}
			b.phase(t, api.Up)
			b.end(t, syscall.SIGKILL)
			a.phase(t, api.Down)
			start(t, h.b, atB)
			a.phase(t, api.Up)
		})
	}
}

// waitInnerAnswer waits until the peer has answered inside, and not only its host.
func (d *daemon) waitInnerAnswer(t *testing.T) {
	t.Helper()
	eventually(t, "the peer answers through the tunnel", func() error {
		if _, s := d.status(t); s.State.Phase != api.Up || s.State.Detail != "" {
			return fmt.Errorf("%+v", s.State)
		}
		return nil
	})
}

// withPrefixes returns k with other prefix lengths of the inner addresses.
func (k kind) withPrefixes(bits string) kind {
	long := regexp.MustCompile(`/(30|64)"`)
	k.name += " within a /" + bits
	k.a, k.b = long.ReplaceAllString(k.a, "/"+bits+`"`), long.ReplaceAllString(k.b, "/"+bits+`"`)
	return k
}

// An answer of the peer's host does not show that the tunnel works. A packet through the
// tunnel does.
func TestOnlyHostAnswers(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	a := start(t, h.a, kind6in6.atA()+often+"\n")
	const detail = "its host answers pings, but nothing comes through the tunnel"
	if s := a.phase(t, api.Up); s.State.Detail != detail || s.Liveness.RTT == 0 {
		t.Errorf("%+v %+v", s.State, s.Liveness)
	}
	start(t, h.b, kind6in6.atB()+"keepalive = \"0s\"\n")
	before := a.phase(t, api.Up)
	reachable(t, h.a, in6B)
	a.waitInnerAnswer(t)
	if s := a.phase(t, api.Up); s.State.Since != before.State.Since {
		t.Errorf("%+v, before %+v", s.State, before.State)
	}
}

// For each peer of a hub that has an inner address of its own, that address is probed.
func TestHubProbesInnerAddresses(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	a := start(t, h.a, "[[tunnel]]\nname = \"six0\"\nmode = \"4in4\"\nlocal = \"203.0.113.10\"\naddress = [\"10.0.0.1/24\"]\nroutes = [\"192.168.2.0/24\"]\n"+often+
		"\n[[tunnel.peer]]\nname = \"b\"\nremote = \"203.0.113.20\"\nallowed = [\"10.0.0.2/32\", \"192.168.2.0/24\"]\n")
	b := start(t, h.b, strings.Replace(kind4in4.atB(), "/30", "/24", 1))
	a.waitInnerPing(t, "b")
	b.end(t, syscall.SIGKILL)
	a.phase(t, api.Down)
}

// The same under load, when a firewall on the path begins to drop the outer packets.
func TestBlockedUnderLoad(t *testing.T) {
	h := newHosts6(t)
	b := start(t, h.b, configB(often))
	a := start(t, h.a, configA(often))
	reachable(t, h.a, inB)
	a.waitAnswered(t)
	b.waitAnswered(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2000 { // one way only: nothing comes back
			_, _ = rig.Ping(t.Context(), h.a, inB, rig.PingOptions{Count: 20, Interval: time.Millisecond, Timeout: 10 * time.Millisecond})
			if t.Context().Err() != nil {
				return
			}
			if _, s := a.status(t); s.State.Phase == api.Down {
				return
			}
		}
	}()
	allow := forbid(t, h.b, unix.IPPROTO_IPV6)
	a.phase(t, api.Down)
	b.phase(t, api.Down)
	<-done
	allow()
	a.phase(t, api.Up)
	b.phase(t, api.Up)
	pings(t, h.a, inB, rig.PingOptions{})
}

// If our packets no longer arrive although packets come from the peer, the peer is suspect,
// not down. It is up when it answers again.
func TestOneWay(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	b := start(t, h.b, configB(often))
	a := start(t, h.a, configA(often))
	a.phase(t, api.Up)
	b.phase(t, api.Up)
	b.waitAnswered(t)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for t.Context().Err() == nil {
			select {
			case <-stop:
				return
			default:
				_, _ = rig.Ping(t.Context(), h.b, inA, rig.PingOptions{Count: 20, Interval: time.Millisecond, Timeout: 10 * time.Millisecond})
			}
		}
	}()
	allow := forbidIn(t, h.b, unix.IPPROTO_IPV6)
	const detail = "packets come from it, but it no longer answers probes"
	s := a.phase(t, api.Suspect)
	eventually(t, "a knows that b sends", func() error {
		if _, s = a.status(t); !strings.Contains(s.State.Detail, detail) || s.LastError == nil || !strings.Contains(s.LastError.What, detail) {
			return fmt.Errorf("%+v %+v", s.State, s.LastError)
		}
		return nil
	})
	b.phase(t, api.Down) // it hears nothing
	for missed := s.Liveness.Missed; s.Liveness.Missed < missed+3; {
		if _, s = a.status(t); s.State.Phase != api.Suspect || s.LastDown != nil {
			t.Fatalf("%+v %+v", s.State, s.LastDown)
		}
		time.Sleep(50 * time.Millisecond)
	}
	close(stop)
	<-done
	allow()
	a.phase(t, api.Up)
	b.phase(t, api.Up)
	pings(t, h.a, inB, rig.PingOptions{})
}

// waitAnswered waits until the peer has answered a probe. Until then the peer is up because it
// sends packets, and its silence would prove nothing.
func (d *daemon) waitAnswered(t *testing.T) {
	t.Helper()
	eventually(t, "the peer has answered", func() error {
		if _, s := d.status(t); s.Liveness.RTT == 0 {
			return fmt.Errorf("%+v", s.Liveness)
		}
		return nil
	})
}

// A peer that answers no probes is up while it sends packets, down if it has never sent
// any, and otherwise suspect, because it may be idle.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	forbid(t, h.b, unix.IPPROTO_ICMP)
	a := start(t, h.a, kind4in4.atA()+often+"\n")
	start(t, h.b, kind4in4.atB()+"keepalive = \"0s\"\n")
	a.phase(t, api.Down)
	wire, err := h.b.Capture("vb")
	must(t, err)
	defer wire.Close()
	send := func() { h.inject(t, wire, ip4(outerB, outerA, unix.IPPROTO_IPIP, experimental(ip4B[0], ip4A[0]))) }
	for range 3 { // the first is enough
		send()
		s := a.phase(t, api.Up)
		if s.Liveness.RTT != 0 || s.Liveness.LastPacket.IsZero() {
			t.Errorf("%+v", s.Liveness)
		}
		a.phase(t, api.Suspect)
	}
	a.wait(t, "it has never answered one")
}

// Without keepalive there are no probes, and a tunnel is up when it can carry packets.
func TestNoKeepalive(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	a := start(t, h.a, plainA(`keepalive = "0s"`))
	if s := a.phase(t, api.Up); s.Liveness != (api.Liveness{}) {
		t.Errorf("%+v", s.Liveness)
	}
}

// Addresses and routes that are removed from the interface are restored, counted and
// reported, unless this happens again and again.
func TestRemovedAddressesAndRoutes(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	b := start(t, h.b, configB(often))
	a := start(t, h.a, configA(often, `routes = ["192.168.2.0/24", "fd00:2::/64"]`))
	reachable(t, h.a, inB)
	link, err := h.a.Handle().LinkByName("six0")
	must(t, err)
	count := func(family int) (n int) {
		list, err := h.a.Handle().RouteList(link, family)
		must(t, err)
		for _, r := range list {
			if r.Dst != nil && (r.Dst.String() == "192.168.2.0/24" || r.Dst.String() == "fd00:2::/64") {
				n++
			}
		}
		return n
	}
	back := func(what string, want map[string]uint64) {
		t.Helper()
		eventually(t, what, func() error {
			_, s := a.status(t)
			for r, n := range want {
				if s.Repairs[r] < n {
					return fmt.Errorf("%v", s.Repairs)
				}
			}
			if count(netlink.FAMILY_V4)+count(netlink.FAMILY_V6) != 2 {
				return errors.New("routes are missing")
			}
			return nil
		})
		reachable(t, h.a, inB)
	}
	flush := func() {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			list, err := h.a.Handle().RouteList(link, family)
			must(t, err)
			for _, r := range list {
				_ = h.a.Handle().RouteDel(&r) // the kernel may have been faster
			}
		}
	}
	flush()
	back("routes are back", map[string]uint64{"route": 1})
	must(t, h.a.DelAddr("six0", netip.PrefixFrom(inA, 30)))
	must(t, h.a.DelAddr("six0", netip.PrefixFrom(in6A, 64)))
	back("addresses are back", map[string]uint64{"route": 2, "address": 1})
	must(t, h.a.DelLink("six0"))
	eventually(t, "the interface is back", func() error {
		if _, s := a.status(t); s.Repairs["interface"] != 1 {
			return fmt.Errorf("%v", s.Repairs)
		}
		return nil
	})
	link, err = h.a.Handle().LinkByName("six0")
	must(t, err)
	back("with all that it had", nil)
	if s := a.phase(t, api.Up); s.LastError == nil || !strings.Contains(s.LastError.What, "interface six0 was deleted") || s.LastDown == nil || s.LastDown.Until.IsZero() {
		t.Errorf("%+v %+v", s.LastError, s.LastDown)
	}
	b.phase(t, api.Up)
	eventually(t, "somebody goes on and on", func() error {
		flush()
		if !strings.Contains(a.log.String(), "again and again") {
			return errors.New(a.log.String())
		}
		return nil
	})
	if _, s := a.status(t); s.Repairs["route"] > 13 || !strings.Contains(s.LastError.What, "again and again") {
		t.Errorf("%v %+v", s.Repairs, s.LastError)
	}
}

// A change of the outer address is reported and counted, and the tunnel continues.
func TestAddressMoves(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	start(t, h.b, strings.Replace(kindGRE.atB(), outerA.String(), "203.0.113.11", 1)+often+"\n")
	a := start(t, h.a, strings.Replace(kindGRE.atA(), `local = "203.0.113.10"`, `local = "auto"`, 1)+often+"\n")
	a.phase(t, api.Up) // b's host answers, although its tunnel is another one
	now := netip.MustParsePrefix("203.0.113.11/24")
	must(t, h.a.DelAddr("va", netip.PrefixFrom(outerA, 24)))
	must(t, h.a.AddAddr("va", now))
	reachable(t, h.a, inB)
	s := a.phase(t, api.Up)
	if s.Repairs["address"] == 0 || s.LastError == nil || s.State.Local != "203.0.113.11" {
		t.Errorf("%v %+v %+v %+v", s.Repairs, s.LastError, s.LastDown, s.State)
	}
}

// A name whose address has changed is looked up as soon as the peer is silent, even without
// an ICMP error.
func TestSilentNameIsLookedUp(t *testing.T) {
	t.Parallel()
	n := newResolving(t)
	n.names.Set("b.example", outerB)
	b := start(t, n.b, plainB(often))
	a := launchWith(t, n.a, strings.Replace(plainA(often), `remote = "`+outerB.String()+`"`, `remote = "b.example"`, 1), n.files)
	a.wait(t, "ready")
	a.phase(t, api.Up)
	b.phase(t, api.Up)
	moved := netip.MustParseAddr("203.0.113.21")
	forbid(t, n.b, unix.IPPROTO_ICMP) // it would say so
	b.end(t, syscall.SIGTERM)
	n.names.Set("b.example", moved)
	must(t, n.b.AddAddr("vb", netip.PrefixFrom(moved, 24)))
	start(t, n.b, strings.Replace(plainB(often), outerB.String(), moved.String(), 1))
	eventually(t, "the name is followed", func() error {
		if _, s := a.status(t); s.Repairs["name"] == 0 || s.State.Phase != api.Up || s.State.Remote != moved.String() {
			return fmt.Errorf("%v %+v", s.Repairs, s.State)
		}
		return nil
	})
}

// A change of keepalive takes effect in place: without it no peer is down, and with it
// peers are probed that were not probed before.
func TestKeepaliveChanges(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	b := start(t, h.b, configB(often))
	a := start(t, h.a, configA(often))
	a.phase(t, api.Up)
	b.freeze(t)
	a.phase(t, api.Down)
	a.reload(t, configA(`keepalive = "0s"`))
	a.phase(t, api.Up)
	a.reload(t, configA(often))
	a.phase(t, api.Down)
	must(t, b.cmd.Process.Signal(syscall.SIGCONT))
	a.phase(t, api.Up)
}
