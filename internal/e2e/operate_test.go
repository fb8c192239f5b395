package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sixfour/internal/rig"
)

// operator is a built sixfourctl.
type operator string

func newOperator(t *testing.T) operator {
	t.Helper()
	o, err := rig.Build(t.TempDir(), "sixfour/cmd/sixfourctl")
	must(t, err)
	return operator(o)
}

// run runs a command against a daemon, and returns its output and its exit status.
func (o operator) run(t *testing.T, d *daemon, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(string(o), append(args, "--socket", d.socket)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// Commands of an operator against a running daemon.
func TestOperate(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	b, a := start(t, h.b, configB()), start(t, h.a, configA())
	reachable(t, h.a, inB)
	o := newOperator(t)
	expect := func(args string, code int, want ...string) {
		t.Helper()
		out, got := o.run(t, a, strings.Fields(args)...)
		for _, w := range want {
			if got != code || !strings.Contains(out, w) {
				t.Errorf("%s: exit status %d, want %d and %q:\n%s", args, got, code, w, out)
			}
		}
	}
	expect("status", 0, "six0  4in6in4  up for ", "203.0.113.10 > 203.0.113.20, path MTU 1500", "fc00::1 > fc00::2", "RTT ")
	expect("status --json six0", 0, `"name": "six0"`)
	expect("ping six0 -c 3 -i 10ms -W 10s", 0, "answer from six0: seq=1 time=", "3 sent, 3 answered, 0% lost")
	expect("ping six0 -c 1 -s 1500 -W 10s", 0, "1 sent, 1 answered")
	expect("ping six0 -c 1 -s 1501", 1, "1 sent, 0 answered")
	expect("ping six1 -c 1", 1, `there is no peer "six1": choose six0`)
	expect("ping six0 -c 1 -i 1ms", 1, "interval is 1ms: it must be from 10ms")
	expect("mtu six0", 0, " 1500 bytes: answered\npath MTU 1500 (found by probes), tunnel MTU 1440")

	expect("reload", 0, "unchanged six0\n")
	file := a.cmd.Args[2]
	good, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, append(good, "ttl = 17\n"...), 0o600))
	expect("reload", 0, "changed   six0: ttl\n")
	must(t, os.WriteFile(file, append(good, "ttl = 1700\nfrob = 1\n"...), 0o600))
	expect("reload", 1, ": ttl is 1700", `: unknown key "frob"`)
	expect("status --json", 0, `"succeeded": 2`, `"failed": 1`)

	cmd := exec.Command(string(o), "watch", "--socket", a.socket)
	var said rig.Log
	cmd.Stdout, cmd.Stderr = &said, &said
	must(t, cmd.Start())
	eventually(t, "the events are told", func() error {
		if !strings.Contains(said.String(), "six0 state: up") {
			return errors.New(said.String())
		}
		return nil
	})
	must(t, cmd.Process.Signal(syscall.SIGINT))
	must(t, cmd.Wait())

	b.end(t, syscall.SIGTERM)
	expect("ping six0 -c 2 -i 10ms", 1, "2 sent, 0 answered, 100% lost")
	expect("mtu six0", 1, "six0 answers no probes")
	a.end(t, syscall.SIGTERM)
	expect("status", 1, "no sixfourd answers at "+a.socket)
	if _, err := os.Lstat(a.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket after the end: %v", err)
	}
}

// A second daemon with the same configuration ends with an error; the first one and its
// socket stay.
func TestSecondDaemonAtTheSameSocket(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	first := start(t, h.a, configA())
	cmd := exec.Command(program, first.cmd.Args[1:]...) // elsewhere, so that only the socket is the same
	var said rig.Log
	cmd.Stderr = &said
	must(t, h.b.Start(cmd))
	_ = cmd.Wait() // the status says it
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(said.String(), "another sixfourd answers there: set another socket in [control] for this daemon") {
		t.Errorf("exit status %d\n%s", code, said.String())
	}
	if _, s := first.status(t); s.Name != "six0" {
		t.Errorf("%+v", s)
	}
}

// A daemon whose file has a control socket in a directory of another user runs, and only
// the daemon's user may open the socket. If the path contains a link of another user, it
// runs without a socket.
func TestSocketInDirectoryOfAnotherUser(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.b, configB())
	const other = 65534
	dir := t.TempDir()
	must(t, os.Chown(dir, other, -1))
	must(t, os.Mkdir(filepath.Join(dir, "to"), 0o755))
	must(t, os.Symlink("to", filepath.Join(dir, "link")))
	must(t, os.Lchown(filepath.Join(dir, "link"), other, -1))
	for socket, want := range map[string]string{
		filepath.Join(dir, "s"):         "because another user could replace it",
		filepath.Join(dir, "link", "s"): "cannot open the control socket: sixfourctl cannot reach this daemon",
	} {
		d := &daemon{socket: socket, config: filepath.Join(t.TempDir(), "sixfour.toml"), done: make(chan error, 1)}
		d.write(t, configA())
		d.cmd = exec.Command(program, "-config", d.config)
		d.cmd.Stderr = &d.log
		must(t, h.a.StartWith(d.cmd, nil))
		go func() { d.done <- d.cmd.Wait() }()
		t.Cleanup(func() { d.end(t, syscall.SIGKILL) })
		d.wait(t, want)
		reachable(t, h.a, inB)
		info, err := os.Lstat(socket)
		if made := err == nil; made != (filepath.Dir(socket) == dir) || made && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", socket, info, err)
		}
		if code := d.end(t, syscall.SIGTERM); code != 0 {
			t.Errorf("%s: exit status %d", socket, code)
		}
	}
}
