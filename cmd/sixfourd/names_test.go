package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sixfour/internal/rig"
	"sixfour/internal/usage"
)

// TestCheckNames: in a namespace without a name server no name can be resolved. -check
// reports the routers that an automatic tunnel needs, except those given by address.
func TestCheckNames(t *testing.T) {
	dir := t.TempDir()
	program, err := rig.Build(dir, "sixfour/cmd/sixfourd")
	if err != nil {
		t.Fatal(err)
	}
	ns, err := rig.New("names")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	file := filepath.Join(dir, "isatap.toml")
	text := "[[tunnel]]\nname = \"is0\"\nmode = \"isatap\"\nlocal = \"192.0.2.1\"\nrouters = [\"192.0.2.7\", \"isatap.invalid\"]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.Command(program, "-check", "-config", file)
	cmd.Stderr = &out
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	var end *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &end) || end.ExitCode() != usage.ExitMisuse {
		t.Errorf("%v", err)
	}
	if got, want := out.String(), file+`:5:11: routers: "isatap.invalid" has no IPv4 address: `; !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 1 {
		t.Errorf("%q, want %q", got, want)
	}
}
