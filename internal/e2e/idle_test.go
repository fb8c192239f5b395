package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// An idle daemon sleeps: wake-ups are counted by the kernel. (With an IPv6 address
// the interface is not idle: the kernel solicits routers there.)
func TestIdle(t *testing.T) {
	h := newHosts(t, 1500)
	b := start(t, h.b, configB(`address = ["10.0.0.2/30"]`))
	a := start(t, h.a, configA(`address = ["10.0.0.1/30"]`))
	reachable(t, h.a, inB)
	a.answered(t) // each greets its path
	b.answered(t)
	// Work that the start has caused, in the daemon, its runtime and the kernel, ends after
	// a while; periodic work of a daemon would not.
	const seconds, most, windows = 5, 5, 8
	var counts []int
	for range windows {
		before := wakeups(t, a.cmd.Process.Pid)
		time.Sleep(seconds * time.Second)
		n := wakeups(t, a.cmd.Process.Pid) - before
		if n <= seconds*most {
			return
		}
		counts = append(counts, n)
	}
	t.Errorf("never at rest: %v wake-ups in windows of %d seconds", counts, seconds)
}

// wakeups returns how often the threads of a process went to sleep voluntarily.
func wakeups(t *testing.T, pid int) (n int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	must(t, err)
	for _, task := range tasks {
		n += field(t, task, "voluntary_ctxt_switches")
	}
	return n
}

// resident returns a process's memory in KiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	return field(t, fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
}

// field returns a number from a status file of /proc.
func field(t *testing.T, file, name string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	_, rest, _ := strings.Cut(string(b), "\n"+name+":")
	line, _, _ := strings.Cut(rest, "\n")
	v, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(line, "kB")))
	must(t, err)
	return v
}
