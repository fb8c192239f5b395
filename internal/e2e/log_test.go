package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"sixfour/internal/rig"
)

// A daemon whose log cannot be written continues: on a full disk, and after the reader of
// its pipe has ended.
func TestLogCannotBeWritten(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.b, configB())
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	defer full.Close()
	gone, broken, err := os.Pipe()
	must(t, err)
	gone.Close()
	defer broken.Close()
	for name, stderr := range map[string]*os.File{"full disk": full, "broken pipe": broken} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sixfour.toml")
			must(t, os.WriteFile(path, []byte("[control]\nsocket = \""+filepath.Join(t.TempDir(), "s")+"\"\n"+configA()), 0o600))
			cmd := exec.Command(program, "-config", path, "-log-level", "debug")
			cmd.Stderr = stderr
			must(t, h.a.StartWith(cmd, nil))
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			d := &daemon{cmd: cmd, done: done}
			t.Cleanup(func() { d.end(t, syscall.SIGKILL) })
			reachable(t, h.a, inB)
			pings(t, h.a, inB, rig.PingOptions{})
			if code := d.end(t, syscall.SIGTERM); code != 0 {
				t.Errorf("exit status %d", code)
			}
		})
	}
}
