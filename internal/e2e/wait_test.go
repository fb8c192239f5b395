package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// check runs the program's check of the daemon's file in a namespace, and expects a
// problem.
func (d *daemon) check(t *testing.T, ns *rig.Namespace, problem string) {
	t.Helper()
	var log rig.Log
	cmd := exec.Command(program, "-check", "-config", d.config)
	cmd.Stderr = &log
	must(t, ns.Start(cmd))
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(log.String(), problem) {
		t.Errorf("-check: exit status %d\n%s, want %q", code, log.String(), problem)
	}
}

// serviceManager records the notifications that it receives.
type serviceManager struct {
	path string
	mu   sync.Mutex
	told []string
}

func newServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	m := &serviceManager{path: filepath.Join(t.TempDir(), "notify")}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := l.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.told = append(m.told, string(b[:n]))
			m.mu.Unlock()
		}
	}()
	return m
}

// count returns how many notifications contain a text.
func (m *serviceManager) count(text string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, told := range m.told {
		if strings.Contains(told, text) {
			n++
		}
	}
	return n
}

func (m *serviceManager) wait(t *testing.T, text string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the manager is told %q", text), func() error {
		if m.count(text) == 0 {
			m.mu.Lock()
			defer m.mu.Unlock()
			return fmt.Errorf("%q", m.told)
		}
		return nil
	})
}

// waitState expects that a tunnel waits for something or, if that is "", carries packets.
func (d *daemon) waitState(t *testing.T, tunnel, what string) {
	t.Helper()
	eventually(t, tunnel+" waits for "+what, func() error {
		s, _ := d.status(t)
		for _, one := range s.Tunnels {
			if one.Name != tunnel {
				continue
			}
			if one.State.Phase.Carries() == (what == "") && strings.Contains(one.State.Detail, what) {
				return nil
			}
			return fmt.Errorf("%s: %s", one.State.Phase, one.State.Detail)
		}
		return errors.New("there is no such tunnel")
	})
}

// If a tunnel lacks something, the daemon starts, reports which tunnels wait and for what,
// carries the packets of the others, and completes each tunnel when what it lacks appears.
func TestOneTunnelWaits(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	m := newServiceManager(t)
	start(t, h.b, configB())
	must(t, h.a.AddRoute(netip.MustParsePrefix("192.168.2.0/24"), outerB, "va"))
	must(t, h.a.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), outerB, "va"))
	must(t, rig.Veth(h.a, "taken0", h.a, "other", 1500))
	missing := filepath.Join(t.TempDir(), "ns")
	plain := func(name, self, remote string, lines ...string) string {
		return fmt.Sprintf("[[tunnel]]\nname = %q\nmode = \"gre\"\nlocal = %q\nremote = %q\n%s\n", name, self, remote, strings.Join(lines, "\n"))
	}
	file := configA() +
		plain("route0", "203.0.113.10", "203.0.113.30", `routes = ["192.168.2.0/24", "192.168.3.0/24"]`) +
		plain("taken0", "203.0.113.10", "203.0.113.31") +
		plain("space0", "203.0.113.10", "203.0.113.32", fmt.Sprintf("netns = %q", missing)) +
		plain("local0", "203.0.113.11", "203.0.113.33") +
		plain("name0", "203.0.113.10", "nobody.invalid") +
		"[[tunnel]]\nname = \"b4\"\nmode = \"4in6\"\nds_lite = true\nlocal = \"2001:db8:ff::10\"\nremote = \"2001:db8:ff::99\"\n"
	a := launch(t, h.a, file, "NOTIFY_SOCKET="+m.path)
	reachable(t, h.a, inB)
	m.wait(t, "READY=1")
	pings(t, h.a, inB, rig.PingOptions{})
	wants := map[string]string{
		"route0": "add route 192.168.2.0/24 through route0: file exists: another interface has that route",
		"taken0": "an interface taken0 exists (type veth) and was not made by sixfour",
		"space0": "network namespace " + missing + ": no such file or directory: create it first",
		"local0": "the address 203.0.113.11, which no interface has",
		"name0":  "the name does not resolve",
		"b4":     "add route 0.0.0.0/0 through b4: file exists: another interface has that route",
	}
	for tunnel, what := range wants {
		a.waitState(t, tunnel, what)
		if tunnel != "b4" { // the last of six, of which five are named
			m.wait(t, tunnel+" waits for ")
		}
	}
	m.wait(t, "; and 1 more")
	if m.count("STATUS=7 tunnels, waiting: ") == 0 || m.count("six0 waits") > 0 {
		t.Errorf("%q", m.told)
	}
	a.check(t, h.a, ":17:10: add route 192.168.2.0/24 through route0")
	a.check(t, h.a, ":19:8: an interface taken0 exists")
	a.check(t, h.a, ":45:11: add route 0.0.0.0/0 through b4")
	a.mustReload(t, strings.Replace(file, "name0", "name1", 1)) // none of this prevents a reload
	a.mustReload(t, file)

	must(t, h.a.DelRoute(netip.MustParsePrefix("192.168.2.0/24"), outerB, "va"))
	must(t, h.a.DelRoute(netip.MustParsePrefix("0.0.0.0/0"), outerB, "va"))
	must(t, h.a.DelLink("other"))
	must(t, h.a.AddAddr("va", netip.MustParsePrefix("203.0.113.11/24")))
	for _, tunnel := range []string{"route0", "b4", "taken0", "local0"} {
		a.waitState(t, tunnel, "")
	}
	for _, f := range []string{"route 192.168.2.0/24", "route 192.168.3.0/24", "route 0.0.0.0/0"} {
		if all := strings.Join(interfacesOf(t, h.a), "\n"); !strings.Contains(all, f) {
			t.Errorf("no %s in\n%s", f, all)
		}
	}
	// A host without IPv6, for a new daemon.
	must(t, h.a.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"))
	v6 := plain("v6", "203.0.113.10", "203.0.113.35", `address = ["fd00::1/64"]`)
	c := launch(t, h.a, v6, "NOTIFY_SOCKET="+m.path)
	c.wait(t, "waiting")
	c.waitState(t, "v6", "add address fd00::1/64 to v6")
	must(t, h.a.Sysctl("net/ipv6/conf/v6/disable_ipv6", "0"))
	c.waitState(t, "v6", "")
	c.end(t, syscall.SIGTERM)
	pings(t, h.a, inB, rig.PingOptions{})
	if code := a.end(t, syscall.SIGTERM); code != 0 || len(leftovers(t, h.a)) > 0 {
		t.Errorf("exit status %d, left: %v", code, leftovers(t, h.a))
	}
}

// The start does not wait for a tunnel for ever, and not at all if all can carry packets.
func TestEveryTunnelReadyLater(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	m := newServiceManager(t)
	must(t, h.a.LinkDown("va"))
	a := launch(t, h.a, configA(), "NOTIFY_SOCKET="+m.path)
	m.wait(t, "READY=1\nSTATUS=1 tunnel, waiting: six0 waits for a route to 203.0.113.20")
	a.wait(t, `ready {"tunnels": 1, "waiting": ["six0"]}`)
	must(t, h.a.LinkUp("va"))
	m.wait(t, "STATUS=1 tunnel, ready to carry packets")
	a.wait(t, "every tunnel can carry packets now")
	must(t, h.a.LinkDown("va"))
	eventually(t, "it is told again", func() error {
		if m.count("six0 waits for") < 2 {
			return errors.New("not yet")
		}
		return nil
	})
	if n := m.count("READY=1"); n != 1 {
		t.Errorf("ready %d times", n)
	}
}

// Metrics that cannot be served yet, at the address of a waiting tunnel or at a port of
// another program, do not end the daemon, and are served as soon as possible.
func TestMetricsLater(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	m := newServiceManager(t)
	var other net.Listener
	must(t, h.a.Do(func() (err error) {
		other, err = net.Listen("tcp", "127.0.0.1:9640")
		return err
	}))
	defer other.Close()
	start(t, h.b, configB())
	a := launch(t, h.a, listenLine+configA(), "NOTIFY_SOCKET="+m.path)
	a.wait(t, "cannot serve metrics: trying again")
	reachable(t, h.a, inB)
	m.wait(t, "STATUS=metrics: listen at 127.0.0.1:9640: address already in use: another program listens there (ss -ltnp sport = :9640 shows which): end it, or choose another listen in [metrics]; 1 tunnel, ready to carry packets")
	other.Close()
	eventually(t, "metrics", func() error {
		_, _, err := ask(h.a, "/metrics")
		return err
	})
	a.wait(t, "metrics are available now")
	if code := a.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
	a = launch(t, h.a, strings.Replace(listenLine, "127.0.0.1", inA.String(), 1)+configA())
	a.wait(t, "metrics are available now")
}

// A service manager with a watchdog gets heartbeats; from a daemon whose control loop has
// stopped it gets none.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	m := newServiceManager(t)
	a := launch(t, h.a, configA(), "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=4000000")
	eventually(t, "two signs of life", func() error {
		if m.count("WATCHDOG=1") < 2 {
			return errors.New("not yet")
		}
		return nil
	})
	// As systemd kills it when there is no heartbeat: the exit status must not be one after
	// which it is not started again (RestartPreventExitStatus=2).
	a.faulty = true // its last output is the stacks
	must(t, a.cmd.Process.Signal(syscall.SIGABRT))
	a.exit(t)
	if w, ok := a.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !w.Signaled() || w.Signal() != syscall.SIGABRT {
		t.Errorf("it ended with %v", a.cmd.ProcessState)
	}
	if !strings.Contains(a.log.String(), "control(") {
		t.Errorf("no stack of the control loop:\n%s", a.log.String())
	}
}

// A route that another program removes from a running tunnel is named, and restored when
// possible; the tunnel's other packets are not affected.
func TestRouteTakenLater(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	start(t, h.b, configB())
	a := start(t, h.a, configA(`routes = ["192.168.2.0/24", "fd00:2::/48"]`))
	reachable(t, h.a, inB)
	va, err := h.a.Handle().LinkByName("va")
	must(t, err)
	for _, r := range []netlink.Route{
		{LinkIndex: va.Attrs().Index, Dst: ipNet("192.168.2.0/24"), Scope: unix.RT_SCOPE_LINK},
		{LinkIndex: va.Attrs().Index, Dst: ipNet("fd00:2::/48")},
	} {
		must(t, h.a.Handle().RouteReplace(&r))
		eventually(t, "it is named", func() error {
			_, s := a.status(t)
			if s.LastError == nil || !strings.Contains(s.LastError.What, "add route "+r.Dst.String()) {
				return fmt.Errorf("%+v", s.LastError)
			}
			return nil
		})
		pings(t, h.a, inB, rig.PingOptions{})
		must(t, h.a.Handle().RouteDel(&r))
		eventually(t, "it is back", func() error {
			if all := strings.Join(interfacesOf(t, h.a), "\n"); !strings.Contains(all, "route "+r.Dst.String()) {
				return errors.New(all)
			}
			return nil
		})
	}
}

func ipNet(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

// If a namespace is deleted and made again, as that of a restarted container, the
// interfaces are made again in it; while there is none, the tunnels wait.
func TestNamespaceMadeAgain(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	name := fmt.Sprintf("sixfour-again-%d", time.Now().UnixNano()%1e9)
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %q: %v\n%s", args, err, out)
		}
	}
	ip("netns", "add", name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	file := configA(fmt.Sprintf("netns = %q", name)) + other("gre0", 1, 2, fmt.Sprintf("netns = %q", "/run/netns/"+name))
	a := start(t, h.a, file)
	start(t, h.b, configB())
	inside := func() {
		t.Helper()
		eventually(t, "a ping from inside", func() error {
			out, err := exec.Command("ip", "netns", "exec", name, "ping", "-c", "1", "-W", "1", inB.String()).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return exec.Command("ip", "-n", name, "link", "show", "gre0").Run()
		})
	}
	inside()
	for i, pause := range []bool{false, true} {
		ip("netns", "del", name)
		if pause {
			a.waitState(t, "six0", "network namespace "+name+": no such file or directory")
			a.waitState(t, "gre0", "network namespace /run/netns/"+name+": no such file or directory")
			a.mustReload(t, file+"# the same\n")
		}
		ip("netns", "add", name)
		inside()
		_, s := a.status(t)
		if s.Repairs["namespace"] != uint64(i+1) || !s.State.Phase.Carries() {
			t.Errorf("%+v %+v", s.Repairs, s.State)
		}
	}
	// Changes in the new namespace are followed as in the first one.
	ip("-n", name, "link", "del", "six0")
	a.wait(t, "interface six0 was deleted by another program")
	inside()
	a.end(t, syscall.SIGTERM)
}

// The namespace of a process exists as long as the process: if the process has ended, the
// tunnel waits, and the daemon still starts.
func TestNamespaceOfAProcess(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	sleep := func() *exec.Cmd {
		t.Helper()
		// No Pdeathsig: it is sent when the thread that started the process ends, and the
		// rig ends threads that were in a namespace.
		cmd := exec.Command("sleep", "300")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		must(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return cmd
	}
	inner := sleep()
	line := fmt.Sprintf("netns = \"/proc/%d/ns/net\"", inner.Process.Pid)
	start(t, h.b, configB())
	a := start(t, h.a, configA()+other("gre0", 1, 2, line))
	a.waitState(t, "gre0", "")
	must(t, inner.Process.Kill())
	_ = inner.Wait()
	a.waitState(t, "gre0", "the process is not running")
	reachable(t, h.a, inB)
	a.end(t, syscall.SIGTERM)
	a = start(t, h.a, configA()+other("gre0", 1, 2, line))
	a.waitState(t, "gre0", "the process is not running")
	reachable(t, h.a, inB)
	if _, s := a.status(t); s.State.Phase == api.Waiting {
		t.Errorf("%+v", s.State)
	}
}
