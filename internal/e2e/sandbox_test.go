package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

// The status shows the restrictions that the kernel reports for each thread of a daemon
// that carries packets. The daemon can enter only the namespace of its interface.
func TestRestricted(t *testing.T) {
	for _, c := range []struct {
		name, line         string
		capabilities, mask string
		seccomp            string
	}{
		{"as it is", "", "cap_net_admin cap_net_raw", "0000000000003000", "2"},
		{"netns", `netns = "INNER"`, "cap_net_admin cap_net_raw cap_sys_admin", "0000000000203000", "2"},
		{"xdp", `io = "xdp"`, "cap_net_admin cap_net_raw cap_bpf cap_ipc_lock", "0000008000007000", "2"},
		{"off", "", "cap_net_admin cap_net_raw", "0000000000003000", "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts(t, 1500)
			from := h.a
			if strings.Contains(c.line, "INNER") {
				from = newNamespace(t, "inner")
			}
			text := configA(strings.Replace(c.line, "INNER", from.Path(), 1))
			if c.seccomp == "0" {
				text = "[security]\nsandbox = \"off\"\n" + text
			}
			a := start(t, h.a, text)
			start(t, h.b, configB())
			reachable(t, from, inB)
			s, _ := a.status(t)
			if s.Sandbox == nil || strings.Join(s.Sandbox.Capabilities, " ") != c.capabilities || s.Sandbox.User != "root" || len(s.Sandbox.Missing) > 1 || strings.Contains(strings.Join(s.Sandbox.Missing, ""), "user: ") != (c.seccomp == "2") ||
				(s.Sandbox.Seccomp == "on") != (c.seccomp == "2") || (s.Sandbox.Landlock == "off") != (c.seccomp == "0") {
				t.Errorf("status: %+v", s.Sandbox)
			}
			tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", a.cmd.Process.Pid))
			must(t, err)
			if len(tasks) < 3 {
				t.Errorf("threads: %v", tasks)
			}
			for _, task := range tasks {
				b, err := os.ReadFile(task)
				if os.IsNotExist(err) || strings.Contains(string(b), "State:\tX") {
					continue // it ended meanwhile
				}
				must(t, err)
				for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t" + c.mask, "CapEff:\t" + c.mask, "CapBnd:\t" + c.mask,
					"CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t" + c.seccomp} {
					if !strings.Contains(string(b), want+"\n") {
						t.Errorf("%s lacks %q:\n%s", task, want, b)
					}
				}
			}
			pings(t, from, inB, rig.PingOptions{})
			if code := a.end(t, syscall.SIGTERM); code != 0 {
				t.Errorf("exit status %d", code)
			}
			if got := leftovers(t, from); len(got) > 0 {
				t.Errorf("left: %v", got)
			}
		})
	}
}

// A daemon that root has started, by hand or in a script, becomes the package's user if
// there is one that has the needed access, and otherwise reports why not.
func TestDropsRoot(t *testing.T) {
	t.Parallel()
	const uid = 64321
	h := newHosts(t, 1500)
	start(t, h.b, configB())
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755)) // others may pass
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	tun := filepath.Join(dir, "tun")
	must(t, unix.Mknod(tun, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))))
	must(t, os.Chmod(tun, 0o666)) // as udev makes it
	users := map[string]string{
		"/etc/passwd":  file("passwd", fmt.Sprintf("root:x:0:0::/:/bin/sh\nsixfour:x:%d:%d::/:/bin/false\n", uid, uid)),
		"/etc/group":   file("group", fmt.Sprintf("root:x:0:\nsixfour:x:%d:\n", uid)),
		"/dev/net/tun": tun,
	}
	run := filepath.Join(dir, "run")
	d := &daemon{socket: filepath.Join(run, "control.sock"), config: filepath.Join(dir, "sixfour.toml")}
	launch := func() {
		t.Helper()
		d.log, d.done = rig.Log{}, make(chan error, 1)
		d.cmd = exec.Command(program, "-config", d.config)
		d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
		must(t, h.a.StartWith(d.cmd, users))
		cmd, done := d.cmd, d.done
		go func() { done <- cmd.Wait() }()
		d.wait(t, "ready")
	}
	t.Cleanup(func() { d.end(t, syscall.SIGKILL) })
	is := func(user, missing string) {
		t.Helper()
		reachable(t, h.a, inB)
		s, _ := d.status(t)
		if got := strings.Join(s.Sandbox.Missing, "\n"); s.Sandbox.User != user || (got == "") != (missing == "") || !strings.Contains(got, missing) {
			t.Errorf("%+v, want user %s, missing %q", s.Sandbox, user, missing)
		}
		want := "Uid:\t0\t0\t0\t0\n"
		if user != "root" {
			want = strings.ReplaceAll(want, "0", fmt.Sprint(uid))
		}
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", d.cmd.Process.Pid))
		must(t, err)
		for _, task := range tasks {
			if b, err := os.ReadFile(task); err == nil && !strings.Contains(string(b), want) {
				t.Errorf("%s: not %q in\n%s", task, want, b)
			}
		}
	}

	d.write(t, configA()) // which only root may read
	launch()
	is("root", "user sixfour may not open "+d.config)
	d.end(t, syscall.SIGTERM)

	must(t, os.Chown(run, uid, uid)) // it was made by the first daemon, as root
	must(t, os.Chown(d.config, 0, uid))
	must(t, os.Chmod(d.config, 0o640))
	launch()
	is("sixfour", "")
	must(t, os.Chmod(d.config, 0o644))
	pings(t, h.a, inB, rig.PingOptions{})
	if code := d.end(t, syscall.SIGTERM); code != 0 || len(leftovers(t, h.a)) > 0 {
		t.Errorf("exit status %d, left: %v", code, leftovers(t, h.a))
	}
	if _, err := os.Stat(d.socket); !os.IsNotExist(err) {
		t.Errorf("the control socket stays: %v", err)
	}

	must(t, os.Remove(run)) // then it is created, for that user
	launch()
	is("sixfour", "")
	d.end(t, syscall.SIGTERM)
	delete(users, "/etc/passwd")
	must(t, os.Chown(run, 0, 0))
	launch()
	is("root", "there is no user sixfour")
	d.end(t, syscall.SIGTERM)
}

// If a reload needs a right that the daemon has given up, the error says so, and what to
// do; it is not just an error of the kernel.
func TestReloadBeyondSandbox(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	inner := newNamespace(t, "inner")
	a := start(t, h.a, configA())
	r := a.reload(t, configA(fmt.Sprintf("netns = %q", inner.Path())))
	if !strings.Contains(r.Error, "the daemon has given up the right to enter another namespace: restart it") {
		t.Errorf("%+v", r)
	}
}
