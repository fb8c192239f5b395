package doctor_test

import (
	"encoding/json"
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

	"sixfour/internal/doctor"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// The programs that the tests run.
var sixfourd, sixfourctl string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "sixfour-doctor")
		if err == nil {
			defer os.RemoveAll(dir)
			err = os.Chmod(dir, 0o755) // one test runs a program as user nobody
		}
		if err == nil {
			sixfourd, err = rig.Build(dir, "sixfour/cmd/sixfourd")
		}
		if err == nil {
			sixfourctl, err = rig.Build(dir, "sixfour/cmd/sixfourctl")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		// The tests mostly wait: they do not need a processor each.
		flag.Parse()
		_ = flag.Set("test.parallel", "6")
		return m.Run()
	}())
}

// patience is how long a test waits for an event that must happen.
const patience = 30 * time.Second

// hosts is the network of the tests:
//
//	namespace a            namespace r             namespace b
//	va ─────────────────── ra       rb ─────────── vb
//	198.51.100.10/24       .1       .1             203.0.113.20/24
//	2001:db8:a::10/64      ::1      ::1            2001:db8:b::20/64
type hosts struct{ a, r, b *rig.Namespace }

var (
	outerA  = netip.MustParsePrefix("198.51.100.10/24")
	outerB  = netip.MustParsePrefix("203.0.113.20/24")
	outerA6 = netip.MustParsePrefix("2001:db8:a::10/64")
	outerB6 = netip.MustParsePrefix("2001:db8:b::20/64")
	all4    = netip.MustParsePrefix("0.0.0.0/0")
	all6    = netip.MustParsePrefix("::/0")
)

func newHosts(t *testing.T) hosts {
	t.Helper()
	h := hosts{newNamespace(t, "a"), newNamespace(t, "r"), newNamespace(t, "b")}
	must(t, rig.Veth(h.a, "va", h.r, "ra", 1500))
	must(t, rig.Veth(h.b, "vb", h.r, "rb", 1500))
	for _, end := range []struct {
		n       *rig.Namespace
		dev     string
		gateway string
		addr    netip.Prefix
	}{
		{h.a, "va", "ra", outerA}, {h.a, "va", "ra", outerA6}, {h.b, "vb", "rb", outerB}, {h.b, "vb", "rb", outerB6},
	} {
		router := end.addr.Masked().Addr().Next()
		must(t, end.n.AddAddr(end.dev, end.addr))
		must(t, h.r.AddAddr(end.gateway, netip.PrefixFrom(router, end.addr.Bits())))
		all := all4
		if router.Is6() {
			all = all6
		}
		must(t, end.n.AddRoute(all, router, end.dev))
	}
	must(t, h.r.Forward())
	return h
}

var (
	must         = rigtest.Must
	newNamespace = rigtest.Namespace
)

// Configurations of both ends.
func plain(local, remote netip.Prefix, self int, lines ...string) string {
	return config("6in4", local, remote, append(lines, fmt.Sprintf(`address = ["fc00::%d/64"]`, self))...)
}

func config(mode string, local, remote netip.Prefix, lines ...string) string {
	return fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = %q\nlocal = \"%v\"\nremote = \"%v\"\n", mode, local.Addr(), remote.Addr()) +
		strings.Join(lines, "\n") + "\n"
}

// daemon is a running sixfourd, or only the configuration of one.
type daemon struct {
	ns   *rig.Namespace
	path string // of the configuration
	cmd  *exec.Cmd
	log  rig.Log
	done chan struct{} // closed when it has ended
}

// file writes a configuration without starting a daemon.
func file(t *testing.T, ns *rig.Namespace, config string) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := &daemon{ns: ns, path: filepath.Join(dir, "sixfour.toml")}
	config = fmt.Sprintf("[control]\nsocket = %q\n", filepath.Join(dir, "control.sock")) + config
	must(t, os.WriteFile(d.path, []byte(config), 0o600))
	return d
}

// start starts a daemon.
func start(t *testing.T, ns *rig.Namespace, config string, files map[string]string) *daemon {
	t.Helper()
	return file(t, ns, config).start(t, files)
}

// start starts a daemon with the configuration.
func (d *daemon) start(t *testing.T, files map[string]string) *daemon {
	t.Helper()
	ns := d.ns
	d.cmd = exec.Command(sixfourd, "-config", d.path)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	must(t, ns.StartWith(d.cmd, files))
	d.done = make(chan struct{})
	go func() { _ = d.cmd.Wait(); close(d.done) }()
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("log of the daemon in %s:\n%s", ns.Name(), d.log.String())
		}
	})
	return d
}

// kill kills a daemon.
func (d *daemon) kill() {
	_ = d.cmd.Process.Signal(syscall.SIGKILL)
	<-d.done
}

func (d *daemon) ready(t *testing.T) *daemon {
	t.Helper()
	d.says(t, "ready")
	return d
}

func (d *daemon) says(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(d.log.String(), text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in the log of the daemon in %s:\n%s", text, d.ns.Name(), d.log.String())
		}
	}
}

// consult runs doctor in a daemon's namespace with the daemon's configuration.
func (d *daemon) consult(t *testing.T, files map[string]string, args ...string) doctor.Report {
	t.Helper()
	return d.consultWith(t, files, append([]string{"--config", d.path}, args...)...)
}

// consultWith runs doctor with exactly the given arguments.
func (d *daemon) consultWith(t *testing.T, files map[string]string, args ...string) doctor.Report {
	t.Helper()
	return d.run(t, exec.CommandContext(t.Context(), sixfourctl, append([]string{"doctor", "--json"}, args...)...), files)
}

// consultAs is consult as another user.
func (d *daemon) consultAs(t *testing.T, user uint32) doctor.Report {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), sixfourctl, "doctor", "--json", "--config", d.path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	return d.run(t, cmd, nil)
}

func (d *daemon) run(t *testing.T, cmd *exec.Cmd, files map[string]string) doctor.Report {
	t.Helper()
	var out, said rig.Log
	cmd.Stdout, cmd.Stderr = &out, &said
	must(t, d.ns.StartWith(cmd, files))
	err := cmd.Wait()
	var r doctor.Report
	if json.Unmarshal([]byte(out.String()), &r) != nil {
		t.Fatalf("doctor: %v: %s%s", err, out.String(), said.String())
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) != (r.Failed > 0) || exit != nil && exit.ExitCode() != 1 {
		t.Errorf("%d checks fail, and doctor says %v: %s", r.Failed, err, said.String())
	}
	return r
}

// fails checks that exactly these checks fail, and that each has a remedy.
func fails(t *testing.T, r doctor.Report, ids ...string) {
	t.Helper()
	var failed []string
	for _, c := range r.Checks {
		if c.Verdict == finding.Fail {
			failed = append(failed, c.Check)
			if c.Mend == "" {
				t.Errorf("%s has no way out", c.Check)
			}
		}
	}
	slices.Sort(failed)
	slices.Sort(ids)
	if !slices.Equal(failed, ids) {
		t.Errorf("%v fail, want %v", failed, ids)
	}
	for _, c := range r.Checks {
		t.Logf("%s %-16s %s | %s", c.Verdict, c.Check, c.Finding, c.Mend)
	}
}

// verdict checks the result of one check.
func verdict(t *testing.T, r doctor.Report, id string, want finding.Verdict, text string) {
	t.Helper()
	for _, c := range r.Checks {
		if c.Check == id {
			if c.Verdict != want || !strings.Contains(c.Finding+" > "+c.Mend, text) {
				t.Errorf("%s: %s %s > %s; want %s with %q", id, c.Verdict, c.Finding, c.Mend, want, text)
			}
			return
		}
	}
	t.Errorf("no check %s", id)
}

// nft adds rules to a namespace.
func nft(t *testing.T, ns *rig.Namespace, rules string) {
	t.Helper()
	var said rig.Log
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin, cmd.Stderr = strings.NewReader(rules), &said
	must(t, ns.Start(cmd))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("nft: %v: %s", err, said.String())
	}
}
