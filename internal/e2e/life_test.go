package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// leftovers lists what a daemon could have left behind in a namespace.
func leftovers(t *testing.T, ns *rig.Namespace) (found []string) {
	t.Helper()
	links, err := ns.Handle().LinkList()
	must(t, err)
	for _, l := range links {
		if l.Type() == "tun" || l.Type() == "tuntap" {
			found = append(found, "interface "+l.Attrs().Name)
		}
	}
	routes, err := ns.Handle().RouteList(nil, netlink.FAMILY_ALL)
	must(t, err)
	for _, r := range routes {
		if r.Dst != nil && strings.HasPrefix(r.Dst.String(), "192.168.") {
			found = append(found, "route "+r.Dst.String())
		}
	}
	return found
}

func TestSIGTERMLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		a := start(t, h.a, configA(`routes = ["192.168.2.0/24", "192.168.3.0/24"]`))
		if got := leftovers(t, h.a); len(got) != 3 {
			t.Errorf("made %v, want an interface and two routes", got)
		}
		if code := a.end(t, sig); code != 0 {
			t.Errorf("%v: exit status %d", sig, code)
		}
		if got := leftovers(t, h.a); len(got) > 0 {
			t.Errorf("%v leaves %v", sig, got)
		}
		if _, err := os.Stat(a.socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v leaves the control socket: %v", sig, err)
		}
	}
}

func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.b, configB())
	for range 3 {
		a := start(t, h.a, configA(`routes = ["192.168.2.0/24"]`))
		reachable(t, h.a, inB)
		a.end(t, syscall.SIGKILL)
	}
	start(t, h.a, configA(`routes = ["192.168.2.0/24"]`))
	pings(t, h.a, inB, rig.PingOptions{})
}

// Either side is restarted during a TCP transfer, and the connection continues.
func TestRestartUnderTraffic(t *testing.T) {
	h := newHosts(t, 1500)
	a, b := start(t, h.a, configA()), start(t, h.b, configB())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// The addresses of the connection must exist longer than the interfaces.
	for _, end := range []struct {
		ns   *rig.Namespace
		addr string
	}{{h.a, "10.1.0.1/32"}, {h.b, "10.1.0.2/32"}} {
		must(t, end.ns.AddAddr("lo", netip.MustParsePrefix(end.addr)))
	}
	restartA := func() *daemon { return start(t, h.a, configA(`routes = ["10.1.0.2/32"]`)) }
	restartB := func() *daemon { return start(t, h.b, configB(`routes = ["10.1.0.1/32"]`)) }
	a.end(t, syscall.SIGTERM)
	b.end(t, syscall.SIGTERM)
	a, b = restartA(), restartB()

	done := make(chan error, 1)
	go func() {
		_, err := rig.TCPTransfer(ctx, h.a, h.b, netip.MustParseAddrPort("10.1.0.2:5003"), 1<<30)
		done <- err
	}()
	moved := func(d *daemon, atLeast uint64) {
		eventually(t, "traffic", func() error {
			if _, s := d.status(t); s.In.Packets+s.Out.Packets < atLeast {
				return errors.New("none yet")
			}
			return nil
		})
	}
	moved(b, 2000)
	a.end(t, syscall.SIGKILL)
	a = restartA()
	moved(a, 2000)
	b.end(t, syscall.SIGTERM)
	b = restartB()
	moved(b, 2000)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// An old interface of ours is replaced, with everything on it. An interface of another
// program is not changed, and is named in the error.
func TestStaleInterface(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.b, configB())
	makeTun := func(alias string) {
		must(t, h.a.Do(func() error {
			handle := h.a.Handle()
			// A persistent interface, as a killed program leaves it behind.
			if err := handle.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "six0"}, Mode: netlink.TUNTAP_MODE_TUN}); err != nil {
				return err
			}
			l, err := handle.LinkByName("six0")
			if err != nil || alias == "" {
				return err
			}
			return handle.LinkSetAlias(l, alias)
		}))
	}
	makeTun("sixfour tunnel")
	must(t, h.a.AddAddr("six0", netip.MustParsePrefix("172.20.0.1/24")))
	a := start(t, h.a, configA())
	pings(t, h.a, inB, rig.PingOptions{})
	addrs, err := h.a.Handle().AddrList(nil, netlink.FAMILY_V4)
	must(t, err)
	for _, addr := range addrs {
		if addr.IP.String() == "172.20.0.1" {
			t.Error("the leftover's address is still there")
		}
	}
	a.end(t, syscall.SIGTERM)
	if got := leftovers(t, h.a); len(got) > 0 {
		t.Errorf("left: %v", got)
	}

	makeTun("")
	d := launch(t, h.a, configA())
	d.wait(t, "an interface six0 exists (type tuntap) and was not made by sixfour")
	d.check(t, h.a, ":4:8: an interface six0 exists (type tuntap) and was not made by sixfour")
	if mtu, err := h.a.MTU("six0"); err != nil || mtu != 1500 {
		t.Errorf("the foreign interface: MTU %d, %v", mtu, err)
	}
	must(t, h.a.DelLink("six0"))
	reachable(t, h.a, inB)
}

func TestSecondDaemonForTheSameInterface(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.b, configB())
	first := start(t, h.a, configA())
	d := launch(t, h.a, configA())
	d.wait(t, "another sixfourd running with the same tunnel")
	pings(t, h.a, inB, rig.PingOptions{})
	first.end(t, syscall.SIGTERM)
	reachable(t, h.a, inB) // through the second daemon, when it has the interface
	if _, s := d.status(t); !s.State.Phase.Carries() {
		t.Errorf("%+v", s.State)
	}
}

// What disappears and comes back is waited for, with the state in the log.
func TestHeals(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.b, configB())
	must(t, h.a.DelAddr("va", netip.PrefixFrom(outerA, 24)))
	a := launch(t, h.a, configA(`routes = ["192.168.2.0/24"]`))
	a.wait(t, "the address 203.0.113.10, which no interface has")
	if strings.Contains(a.log.String(), "ready") {
		t.Error("ready without a local address")
	}
	must(t, h.a.AddAddr("va", netip.PrefixFrom(outerA, 24)))
	a.wait(t, "ready")
	reachable(t, h.a, inB)

	phase := func(want api.Phase) {
		t.Helper()
		eventually(t, "phase "+string(want), func() error {
			if _, s := a.status(t); s.State.Phase != want {
				return errors.New(string(s.State.Phase))
			}
			return nil
		})
	}
	must(t, h.a.LinkDown("va")) // takes the route away
	phase(api.Waiting)
	a.wait(t, "a route to 203.0.113.20: network is unreachable")
	if _, err := rig.Ping(t.Context(), h.a, inB, rig.PingOptions{Timeout: 50 * time.Millisecond}); err != nil {
		t.Error(err)
	}
	if _, s := a.status(t); s.Out.Drops["no_route"] == 0 {
		t.Errorf("drops: %v", s.Out.Drops)
	}
	must(t, h.a.LinkUp("va"))
	phase(api.Up)
	reachable(t, h.a, inB)

	must(t, h.a.DelLink("six0"))
	a.wait(t, "interface six0 was deleted by another program")
	a.wait(t, "the interface was made again")
	reachable(t, h.a, inB)

	must(t, h.a.LinkDown("six0")) // removes routes and IPv6 addresses
	a.wait(t, "interface is down")
	phase(api.Waiting)
	must(t, h.a.LinkUp("six0"))
	a.wait(t, "the interface is up again")
	phase(api.Up)
	reachable(t, h.a, in6B)
	if got := leftovers(t, h.a); len(got) != 2 {
		t.Errorf("after down and up: %v, want the interface and its route", got)
	}

	must(t, h.a.SetMTU("va", 1400)) // the MTU of the interface follows the path
	eventually(t, "MTU 1340", func() error {
		mtu, err := h.a.MTU("six0")
		if err == nil && mtu != 1340 {
			err = errors.New("not yet")
		}
		return err
	})
}

// local = "auto" uses the address that routing chooses, and follows it.
func TestLocalAuto(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.b, configB())
	auto := strings.Replace(configA(), `local = "203.0.113.10"`, `local = "auto"`, 1)
	a := start(t, h.a, auto)
	pings(t, h.a, inB, rig.PingOptions{})
	must(t, h.a.DelAddr("va", netip.PrefixFrom(outerA, 24)))
	must(t, h.a.AddAddr("va", netip.MustParsePrefix("203.0.113.77/24")))
	a.wait(t, `"local": "203.0.113.77"`)
	must(t, h.a.DelAddr("va", netip.MustParsePrefix("203.0.113.77/24")))
	must(t, h.a.AddAddr("va", netip.PrefixFrom(outerA, 24)))
	reachable(t, h.a, inB)
}

// With a mark, a rule keeps outer packets out of the tunnel into which all packets are
// routed, including those to the peer's address.
func TestMark(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	const mark, table = 7, 100
	must(t, h.a.Do(func() error {
		link, err := h.a.Handle().LinkByName("va")
		if err != nil {
			return err
		}
		rule := netlink.NewRule()
		rule.Mark, rule.Table = mark, table
		if err := h.a.Handle().RuleAdd(rule); err != nil {
			return err
		}
		return h.a.Handle().RouteAdd(&netlink.Route{
			Table: table, LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK,
			Dst: &net.IPNet{IP: outerB.AsSlice(), Mask: net.CIDRMask(32, 32)},
		})
	}))
	a := start(t, h.a, configA(fmt.Sprintf("fwmark = %d", mark), fmt.Sprintf(`routes = ["%v/32"]`, outerB)))
	start(t, h.b, configB())
	pings(t, h.a, inB, rig.PingOptions{})
	transfer(t, h.a, h.b, inB, 5<<20)
	if _, s := a.status(t); len(s.Out.Drops) > 0 {
		t.Errorf("%+v", s.Out)
	}
}

// A route to the peer that leads into the tunnel itself is not used.
func TestRouteIntoItself(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	a := start(t, h.a, configA())
	must(t, h.a.AddRoute(netip.PrefixFrom(outerB, 32), netip.Addr{}, "six0"))
	a.wait(t, "that does not lead into six0 itself")
	must(t, h.a.DelRoute(netip.PrefixFrom(outerB, 32), netip.Addr{}, "six0"))
	eventually(t, "up again", func() error {
		if _, s := a.status(t); !s.State.Phase.Carries() {
			return errors.New(s.State.Detail)
		}
		return nil
	})
}

// Without the capabilities, the error says how to get them.
func TestUnprivileged(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	path := filepath.Join(filepath.Dir(program), "nobody.toml")
	must(t, os.WriteFile(path, []byte(configA()), 0o644))
	cmd := exec.Command(program, "-config", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var log rig.Log
	cmd.Stderr = &log
	must(t, h.a.Start(cmd))
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(log.String(), "run as root") {
		t.Errorf("exit status %d\n%s", code, log.String())
	}
}

// systemd is notified when the tunnels can carry packets, and not before.
func TestNotify(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	must(t, err)
	defer l.Close()
	must(t, l.SetDeadline(time.Now().Add(patience)))
	read := func() string {
		b := make([]byte, 200)
		n, err := l.Read(b)
		must(t, err)
		return string(b[:n])
	}
	d := launch(t, h.a, configA(), "NOTIFY_SOCKET="+socket, "FDSTORE=0")
	if got := read(); got != "READY=1\nSTATUS=1 tunnel, ready to carry packets" {
		t.Errorf("got %q", got)
	}
	d.wait(t, "ready")
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	if got := read(); got != "STOPPING=1" {
		t.Errorf("got %q", got)
	}
	if code := d.exit(t); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// SIGHUP makes the daemon read its file, even if the file has not changed.
func TestSIGHUP(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	d := start(t, h.a, configA())
	must(t, d.cmd.Process.Signal(syscall.SIGHUP))
	d.wait(t, "0 added, 0 removed, 0 changed in place, 0 replaced, 1 unchanged")
	if code := d.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// A file with errors changes nothing on the system.
func TestBadConfigurationChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	d := launch(t, h.a, configA(`mtu = 60`, `rotes = []`, `ttl = 0`))
	if code := d.exit(t); code != 2 || strings.Count(d.log.String(), "\n") != 3 {
		t.Errorf("exit status %d\n%s", code, d.log.String())
	}
	if got := leftovers(t, h.a); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// A peer may be a name. The hosts file has localhost, which is this host; the other name
// does not exist.
func TestRemoteName(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t, "a")
	name := func(remote string) string {
		return strings.NewReplacer(`remote = "203.0.113.20"`, `remote = "`+remote+`"`, `local = "203.0.113.10"`, `local = "127.0.64.9"`).Replace(configA())
	}
	d := launch(t, ns, name("localhost"))
	d.wait(t, "127.0.0.1 "+itself)
	d.end(t, syscall.SIGTERM)
	d = launch(t, ns, name("no-such-host.invalid"))
	d.wait(t, "no-such-host.invalid: the name does not resolve")
	if code := d.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
}
