package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

// manager replaces systemd: it receives a daemon's notifications, and keeps descriptors for
// the next daemon.
type manager struct {
	conn *net.UnixConn
	path string

	mu     sync.Mutex
	files  []*os.File // by their names
	states []string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{path: filepath.Join(t.TempDir(), "notify")}
	var err error
	m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	must(t, err)
	done := make(chan struct{})
	go func() { defer close(done); m.listen() }()
	t.Cleanup(func() { m.conn.Close(); <-done; m.release() })
	return m
}

func (m *manager) listen() {
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*64))
	for {
		n, oobn, _, _, err := m.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		m.receive(string(buf[:n]), oob[:oobn])
	}
}

func (m *manager) receive(text string, oob []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states = append(m.states, text)
	_, name, _ := strings.Cut(text, "FDNAME=")
	if strings.Contains(text, "FDSTOREREMOVE=1") {
		m.files = slices.DeleteFunc(m.files, func(f *os.File) bool {
			if f.Name() == name {
				f.Close()
			}
			return f.Name() == name
		})
		return
	}
	messages, _ := unix.ParseSocketControlMessage(oob)
	for i := range messages {
		fds, _ := unix.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			m.files = append(m.files, os.NewFile(uintptr(fd), name))
		}
	}
}

// release does what happens when the service is stopped for good.
func (m *manager) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.files {
		f.Close()
	}
	m.files = nil
}

// received reports whether a state was received.
func (m *manager) received(state string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.states, func(s string) bool { return strings.Contains(s, state) })
}

// start starts a daemon with a configuration file, as the manager does.
func (m *manager) start(t *testing.T, ns *rig.Namespace, d *daemon) {
	t.Helper()
	m.mu.Lock()
	m.states = nil
	// The number of the process must be in its environment.
	d.cmd = exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, program, "-config", d.config)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+m.path)
	if len(m.files) > 0 {
		var names []string
		for _, f := range m.files {
			names = append(names, f.Name())
		}
		d.cmd.ExtraFiles = m.files
		d.cmd.Env = append(d.cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	err := ns.Start(d.cmd)
	m.mu.Unlock()
	must(t, err)
	d.done = make(chan error, 1)
	cmd, done := d.cmd, d.done
	go func() { done <- cmd.Wait() }()
	eventually(t, "ready", func() error {
		if !m.received("READY=1") {
			return errors.New(d.log.String())
		}
		return nil
	})
}

// managed is a daemon that a manager starts.
func managed(t *testing.T, m *manager, ns *rig.Namespace, config string) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := &daemon{socket: filepath.Join(dir, "control.sock"), config: filepath.Join(dir, "sixfour.toml")}
	d.write(t, config)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the daemon in %s:\n%s", ns.Name(), d.log.String())
		}
		d.end(t, syscall.SIGKILL)
	})
	m.start(t, ns, d)
	return d
}

// Packets in both directions wait while the daemon is restarted, however it ended, and none
// is lost, also of those over UDP. The interface, its addresses and routes stay.
func TestRestartLosesNothing(t *testing.T) {
	const fou = "[[tunnel.path]]\nencap = \"fou\"\n"
	for _, c := range []struct {
		queues int
		path   string
	}{{1, ""}, {2, ""}, {1, fou}} {
		queues := c.queues
		h := newHosts(t, 1500)
		m := newManager(t)
		a := managed(t, m, h.a, configA(fmt.Sprintf("queues = %d", queues), `routes = ["192.168.2.0/24"]`, c.path))
		start(t, h.b, configB(`queues = 1`, c.path))
		reachable(t, h.a, inB)
		before := interfacesOf(t, h.a)
		rate := 20_000
		if rig.Race {
			rate = 2000
		}
		load := func(from, to *rig.Namespace, addr netip.Addr, result *rig.LoadResult) func() {
			return func() {
				r, err := rig.Load(t.Context(), from, to, netip.AddrPortFrom(addr, 5000),
					rig.LoadOptions{UDP: true, Duration: 6 * time.Second, Size: 64, Rate: rate, Segments: 10})
				if err != nil {
					t.Error(err)
				}
				*result = r
			}
		}
		var out, in rig.LoadResult
		var flows sync.WaitGroup
		flows.Go(load(h.a, h.b, inB, &out))
		flows.Go(load(h.b, h.a, inA, &in))
		restarts := 0
		for begun := time.Now(); time.Since(begun) < 3*time.Second; restarts++ { // the last packets are for the last daemon
			time.Sleep(200 * time.Millisecond) // some traffic between two
			if code := a.end(t, syscall.SIGTERM); code != 0 {
				t.Errorf("exit status %d", code)
			}
			m.start(t, h.a, a)
		}
		flows.Wait()
		if out.Lost() != 0 || in.Lost() != 0 || out.Received == 0 || in.Received == 0 {
			t.Errorf("%d queues, %q, %d restarts: out %+v, in %+v", queues, c.path, restarts, out, in)
		}
		t.Logf("%d queues, %d restarts, %d and %d packets: %d and %d lost, none for %v and %v at most",
			queues, restarts, out.Received, in.Received, out.Lost(), in.Lost(), out.Gap.Round(time.Millisecond), in.Gap.Round(time.Millisecond))
		if now := interfacesOf(t, h.a); !slices.Equal(now, before) {
			t.Errorf("there is %q, and was %q", now, before)
		}
		a.end(t, syscall.SIGKILL)
		m.start(t, h.a, a)
		pings(t, h.a, inB, rig.PingOptions{})
		if now := interfacesOf(t, h.a); !slices.Equal(now, before) {
			t.Errorf("there is %q, and was %q", now, before)
		}
		a.end(t, syscall.SIGTERM)
		if got := leftovers(t, h.a); len(got) != 2 {
			t.Errorf("before the manager lets go there is %v", got)
		}
		m.release()
		if got := leftovers(t, h.a); len(got) > 0 {
			t.Errorf("left: %v", got)
		}
	}
}

// Stored descriptors are compared with the configuration of the next process, and closed if
// it does not need them.
func TestRestartWithAnotherConfiguration(t *testing.T) {
	h := newHosts(t, 1500)
	m := newManager(t)
	own := configA(`routes = ["192.168.2.0/24"]`)
	a := managed(t, m, h.a, own+other("gre0", 1, 2, `address = ["10.5.0.1/24"]`))
	start(t, h.b, configB())
	reachable(t, h.a, inB)
	index := func() int {
		t.Helper()
		l, err := h.a.Handle().LinkByName("six0")
		must(t, err)
		return l.Attrs().Index
	}
	first := index()
	restart := func(config string) {
		t.Helper()
		a.end(t, syscall.SIGTERM)
		a.write(t, config)
		m.start(t, h.a, a)
		pings(t, h.a, in6B, rig.PingOptions{})
	}

	restart(configA(`address = ["10.0.0.1/24", "fc00::1/64"]`, `routes = ["192.168.3.0/24"]`, `mtu = 1300`))
	want := []string{"address 10.0.0.1/24 on six0", "address fc00::1/64 on six0", fmt.Sprintf("link %d six0 tuntap mtu 1300 up up", first), fmt.Sprintf("route 192.168.3.0/24 through %d", first)}
	eventually(t, "what the new configuration says", func() error {
		now := interfacesOf(t, h.a)
		now = slices.DeleteFunc(now, func(f string) bool {
			return !strings.Contains(f, "six0") && !strings.Contains(f, "gre0") && !strings.HasPrefix(f, "route") || strings.HasPrefix(f, "address fe80")
		})
		if !slices.Equal(now, want) {
			return fmt.Errorf("%q, want %q", now, want)
		}
		return nil
	})

	restart(configA(`queues = 2`))
	if index() == first {
		t.Error("an interface with other queues is the same")
	}
	if got := leftovers(t, h.a); len(got) != 1 {
		t.Errorf("there is %v", got)
	}

	// What a reload removes is gone, even if the manager has stored it.
	a.mustReload(t, configA(`queues = 2`)+other("gre0", 1, 2))
	a.mustReload(t, other("gre0", 1, 2))
	if got := leftovers(t, h.a); !slices.Equal(got, []string{"interface gre0"}) {
		t.Errorf("there is %v", got)
	}
	eventually(t, "the manager forgets", func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, f := range m.files {
			if strings.Contains(f.Name(), "six0") {
				return errors.New(f.Name())
			}
		}
		return nil
	})
}

// Descriptors that are not ours, or do not match their names, do no harm.
func TestRestartWithForeignDescriptors(t *testing.T) {
	h := newHosts(t, 1500)
	m := newManager(t)
	for _, name := range []string{"tun/six0/0", "raw/41/203.0.113.10/0/1", "http", "tun/six0", "tun/%zz/0"} {
		f, err := os.Open("/dev/null")
		must(t, err)
		fd, err := unix.Dup(int(f.Fd()))
		must(t, err)
		f.Close()
		m.files = append(m.files, os.NewFile(uintptr(fd), name))
	}
	a := managed(t, m, h.a, configA())
	start(t, h.b, configB())
	pings(t, h.a, inB, rig.PingOptions{})
	a.end(t, syscall.SIGTERM)
	m.start(t, h.a, a)
	pings(t, h.a, inB, rig.PingOptions{})
}

// Without a manager that stores descriptors, a restart is an interruption, whose length the
// test logs.
func TestRestartWithoutStore(t *testing.T) {
	h := newHosts(t, 1500)
	a := start(t, h.a, configA(`queues = 1`))
	start(t, h.b, configB(`queues = 1`))
	reachable(t, h.a, inB)
	var gaps []time.Duration
	for range 5 {
		done := make(chan rig.LoadResult)
		go func() {
			r, err := rig.Load(t.Context(), h.b, h.a, netip.AddrPortFrom(inA, 5000), rig.LoadOptions{UDP: true, Duration: 2 * time.Second, Size: 64, Rate: 2000})
			if err != nil {
				t.Error(err)
			}
			done <- r
		}()
		eventually(t, "traffic", func() error {
			if _, s := a.status(t); s.In.Packets < 100 {
				return errors.New("none yet")
			}
			return nil
		})
		a.end(t, syscall.SIGTERM)
		a = start(t, h.a, configA(`queues = 1`))
		r := <-done
		if r.Received == 0 || r.Lost() == 0 {
			t.Errorf("%+v", r)
		}
		gaps = append(gaps, r.Gap.Round(time.Millisecond))
	}
	slices.Sort(gaps)
	t.Logf("gaps: %v", gaps)
	pings(t, h.a, inB, rig.PingOptions{})
}
