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

// An idle daemon sleeps: wake-ups are counted by the kernel.
func TestIdle(t *testing.T) {
	h := newHosts(t, 1500)
	start(t, h.b, configB())
	a := start(t, h.a, configA())
	reachable(t, h.a, inB)
	time.Sleep(2 * time.Second) // what the start has set off comes to rest
	const seconds, most = 5, 5
	before := wakeups(t, a.cmd.Process.Pid)
	time.Sleep(seconds * time.Second)
	if n := wakeups(t, a.cmd.Process.Pid) - before; n > seconds*most {
		t.Errorf("%d wake-ups in %d seconds", n, seconds)
	}
}

// wakeups is how often the threads of a process went to sleep of their own will.
func wakeups(t *testing.T, pid int) (n int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	must(t, err)
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		must(t, err)
		_, rest, _ := strings.Cut(string(b), "\nvoluntary_ctxt_switches:")
		count, _, _ := strings.Cut(rest, "\n")
		v, err := strconv.Atoi(strings.TrimSpace(count))
		must(t, err)
		n += v
	}
	return n
}
