package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sixfour/internal/rig"
)

// What the kernel says of a daemon that carries packets, in each of its threads, is
// what its status says; and a namespace that its interface came from was the only one
// that it can still enter.
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
			if s.Sandbox == nil || strings.Join(s.Sandbox.Capabilities, " ") != c.capabilities || len(s.Sandbox.Missing) > 0 ||
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
			if got := remains(t, from); len(got) > 0 {
				t.Errorf("left: %v", got)
			}
		})
	}
}

// What a reload wants and the daemon has given up is said so, with the way out, and not
// as whatever the kernel answers first.
func TestReloadBeyondSandbox(t *testing.T) {
	h := newHosts(t, 1500)
	inner := newNamespace(t, "inner")
	a := start(t, h.a, configA())
	r := a.reload(t, configA(fmt.Sprintf("netns = %q", inner.Path())))
	if !strings.Contains(r.Error, "the daemon has given up the right to enter another namespace: restart it") {
		t.Errorf("%+v", r)
	}
}
