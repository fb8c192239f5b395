package ctl

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// program runs this binary as sixfourctl, optionally as user nobody, and returns its output
// and exit status.
func program(t *testing.T, socket string, nobody bool, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append(args, "--socket", socket)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	if nobody {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
