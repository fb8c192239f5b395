package privilege_test

import (
	"os/exec"
	"regexp"
	"testing"

	"sixfour/internal/rig"
)

// TestCheck: the error names what is missing, and every way to grant it, before anything
// is made.
func TestCheck(t *testing.T) {
	program, err := rig.Build(t.TempDir(), "sixfour/cmd/sixfourd")
	if err != nil {
		t.Fatal(err)
	}
	const config = "../../cmd/sixfourd/dist/sixfour.toml"
	for _, c := range []struct{ drop, missing string }{
		{"-net_raw", "CAP_NET_RAW"},
		{"-net_admin,-net_raw", "CAP_NET_ADMIN and CAP_NET_RAW"},
	} {
		ns, err := rig.New("check")
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		cmd := exec.Command("setpriv", "--bounding-set", c.drop, "--inh-caps", c.drop, program, "-config", config)
		var log rig.Log
		cmd.Stderr = &log
		if err := ns.Start(cmd); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		want := regexp.MustCompile(`the process lacks ` + c.missing + `: run as root; or give it the capabilities, in a unit with ` +
			`AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW, to the program with setcap cap_net_admin,cap_net_raw\+ep ` +
			regexp.QuoteMeta(program) + `, to a container with --cap-add NET_ADMIN --cap-add NET_RAW`)
		if code := cmd.ProcessState.ExitCode(); code != 1 || !want.MatchString(log.String()) {
			t.Errorf("without %s: exit status %d\n%s", c.missing, code, log.String())
		}
	}
}
