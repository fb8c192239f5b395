// Package e2e runs the daemon as its users do: the built program, between
// network namespaces, with real packets. Its tests need root.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// program is the daemon that the tests run.
var program string

func TestMain(m *testing.M) {
	if remote := os.Getenv(fragileEnv); remote != "" {
		if err := runFragile(remote); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "the end-to-end tests make namespaces and TUN devices: run them as root")
		os.Exit(1)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "sixfour-e2e")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil { // one test runs the program as nobody
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if program, err = rig.Build(dir, "sixfour/cmd/sixfourd"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		// Tests wait for most of their time, so more of them run in parallel than there are
		// processors; those that measure or flood do not.
		if err := flag.Set("test.parallel", "10"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// patience is how long a test waits for something that must happen.
const patience = 20 * time.Second

// hosts is the network of most tests:
//
//	namespace a                                namespace b
//	203.0.113.10/24 va ──────────────────── vb 203.0.113.20/24
//	six0 10.0.0.1/30, fc00::1/64               six0 10.0.0.2/30, fc00::2/64
type hosts struct {
	a, b *rig.Namespace
}

var (
	outerA = netip.MustParseAddr("203.0.113.10")
	outerB = netip.MustParseAddr("203.0.113.20")
	inA    = netip.MustParseAddr("10.0.0.1")
	inB    = netip.MustParseAddr("10.0.0.2")
	in6A   = netip.MustParseAddr("fc00::1")
	in6B   = netip.MustParseAddr("fc00::2")
)

func newHosts(t *testing.T, mtu int) hosts {
	t.Helper()
	h := hosts{newNamespace(t, "a"), newNamespace(t, "b")}
	must(t, rig.Veth(h.a, "va", h.b, "vb", mtu))
	must(t, h.a.AddAddr("va", netip.PrefixFrom(outerA, 24)))
	must(t, h.b.AddAddr("vb", netip.PrefixFrom(outerB, 24)))
	must(t, h.a.LinkUp("va"))
	must(t, h.b.LinkUp("vb"))
	return h
}

var (
	must         = rigtest.Must
	newNamespace = rigtest.Namespace
)

// Configurations of the two ends, with lines to add to the [[tunnel]].
func configA(lines ...string) string { return config("4in6in4", 1, 2, lines) }
func configB(lines ...string) string { return config("4in6in4", 2, 1, lines) }
func plainA(lines ...string) string  { return config("6in4", 1, 2, lines) }
func plainB(lines ...string) string  { return config("6in4", 2, 1, lines) }

func config(mode string, self, other int, lines []string) string {
	outer := map[int]netip.Addr{1: outerA, 2: outerB}
	c := fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = %q\nlocal = \"%v\"\nremote = \"%v\"\n", mode, outer[self], outer[other])
	if mode == "4in6in4" {
		c += fmt.Sprintf("local6 = \"fc00::%d\"\nremote6 = \"fc00::%d\"\n", self, other)
	}
	all := strings.Join(lines, "\n")
	if !strings.Contains(all, "address =") {
		v4 := ""
		if mode == "4in6in4" {
			v4 = fmt.Sprintf("\"10.0.0.%d/30\", ", self)
		}
		c += fmt.Sprintf("address = [%s\"fc00::%d/64\"]\n", v4, self)
	}
	return c + all + "\n"
}

// daemon is a running sixfourd.
type daemon struct {
	cmd    *exec.Cmd
	log    rig.Log
	socket string
	config string // the path of its file
	done   chan error
	faulty bool // it is expected to fail, with a message
}

// launch starts a daemon in a namespace and does not wait for anything.
func launch(t *testing.T, ns *rig.Namespace, config string, env ...string) *daemon {
	t.Helper()
	return launchWith(t, ns, config, nil, env...)
}

// launchWith is launch for a daemon that sees other files in the place of some.
func launchWith(t *testing.T, ns *rig.Namespace, config string, files map[string]string, env ...string) *daemon {
	t.Helper()
	return launchBy(t, ns, config, files, []string{program}, env...)
}

// launchBy is launchWith with a command that runs the program.
func launchBy(t *testing.T, ns *rig.Namespace, config string, files map[string]string, command []string, env ...string) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := &daemon{socket: filepath.Join(dir, "control.sock"), done: make(chan error, 1)}
	d.config = filepath.Join(dir, "sixfour.toml")
	d.write(t, config)
	d.cmd = exec.Command(command[0], append(slices.Clone(command[1:]), "-config", d.config)...)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.Env = append(os.Environ(), env...)
	must(t, ns.StartWith(d.cmd, files))
	go func() { d.done <- d.cmd.Wait() }()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the daemon in %s:\n%s", ns.Name(), d.log.String())
		}
		d.end(t, syscall.SIGKILL)
		if d.faulty {
			return
		}
		for _, bad := range []string{"panic", "DATA RACE", "fatal error"} {
			if strings.Contains(d.log.String(), bad) {
				t.Errorf("%s in the log of the daemon in %s:\n%s", bad, ns.Name(), d.log.String())
			}
		}
	})
	return d
}

// write replaces the daemon's file in one step.
func (d *daemon) write(t *testing.T, config string) {
	t.Helper()
	must(t, os.WriteFile(d.config+".new", []byte(fmt.Sprintf("[control]\nsocket = %q\n", d.socket)+withIO(config)), 0o600))
	must(t, os.Rename(d.config+".new", d.config))
}

// ioEnv names the variable with the io of all tunnels whose configuration has none, so that all
// tests can be run with each way in which packets are sent and received.
const ioEnv = "SIXFOUR_TEST_IO"

// withIO adds that to a configuration.
func withIO(config string) string {
	io := os.Getenv(ioEnv)
	if io == "" {
		return config
	}
	tables := strings.SplitAfter(config, "[[tunnel]]\n")
	for i := 1; i < len(tables); i++ {
		if own, _, _ := strings.Cut(tables[i], "\n["); !strings.Contains("\n"+own, "\nio ") {
			tables[i] = fmt.Sprintf("io = %q\n", io) + tables[i]
		}
	}
	return strings.Join(tables, "")
}

// start starts a daemon and waits until it is ready.
func start(t *testing.T, ns *rig.Namespace, config string) *daemon {
	t.Helper()
	d := launch(t, ns, config)
	d.wait(t, "ready")
	return d
}

// wait waits for a text in the log.
func (d *daemon) wait(t *testing.T, text string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q in the log", text), func() error {
		if !strings.Contains(d.log.String(), text) {
			return errors.New(d.log.String())
		}
		return nil
	})
}

// end sends a signal, waits for the end, and returns the exit status; -1 if a
// signal ended it.
func (d *daemon) end(t *testing.T, sig syscall.Signal) int {
	t.Helper()
	_ = d.cmd.Process.Signal(sig) // may have ended by itself
	return d.exit(t)
}

// exit waits for the end, and returns the exit status.
func (d *daemon) exit(t *testing.T) int {
	t.Helper()
	select {
	case err := <-d.done:
		d.done <- err // for the next call
		return d.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("the daemon does not end:\n%s", d.log.String())
	}
	return 0
}

// status requests the daemon's status, and returns it and its first tunnel, if there is one.
func (d *daemon) status(t *testing.T) (api.Status, api.TunnelStatus) {
	t.Helper()
	s, err := client.Status(t.Context(), d.socket)
	must(t, err)
	if len(s.Tunnels) == 0 {
		return s, api.TunnelStatus{}
	}
	return s, s.Tunnels[0]
}

// eventually repeats try until it succeeds.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// pings sends some pings, and requires every answer.
func pings(t *testing.T, from *rig.Namespace, to netip.Addr, o rig.PingOptions) {
	t.Helper()
	if o.Count == 0 {
		o.Count = 3
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	res, err := rig.Ping(t.Context(), from, to, o)
	if err != nil || res.Received != o.Count || res.Corrupt != 0 || res.Duplicates != 0 {
		t.Errorf("ping %v %+v: %+v, %v", to, o, res, err)
		logCounters(t, from)
	}
}

// logCounters logs the counters that show where the kernel may have lost a packet.
func logCounters(t *testing.T, n *rig.Namespace) {
	t.Helper()
	if err := n.Do(func() error {
		for _, file := range []string{"dev", "snmp", "snmp6", "netstat", "raw", "raw6"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + file)
			if err != nil {
				return err
			}
			t.Logf("%s in %s:\n%s", file, n.Name(), b)
		}
		return nil
	}); err != nil {
		t.Log(err)
	}
}

// reachable waits until a ping is answered.
func reachable(t *testing.T, from *rig.Namespace, to netip.Addr) {
	t.Helper()
	eventually(t, "ping "+to.String(), func() error {
		res, err := rig.Ping(t.Context(), from, to, rig.PingOptions{Timeout: 200 * time.Millisecond})
		if err == nil && res.Received == 0 {
			err = fmt.Errorf("no answer: %+v", res)
		}
		return err
	})
}

// transfer moves bytes over TCP and compares what arrives.
func transfer(t *testing.T, from, to *rig.Namespace, addr netip.Addr, bytes int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	res, err := rig.TCPTransfer(ctx, from, to, netip.AddrPortFrom(addr, 5001), bytes)
	if err != nil {
		t.Errorf("TCP to %v: %v", addr, err)
		return
	}
	t.Logf("TCP to %v: %d bytes in %v", addr, res.Bytes, res.Elapsed.Round(time.Millisecond))
}
