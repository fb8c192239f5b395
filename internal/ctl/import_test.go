package ctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestImport(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tunnel.sh")
	must(t, os.WriteFile(path, []byte("ip tunnel add six0 mode sit local 203.0.113.10 remote $B\nmodprobe sit\n"), 0o644))
	out, errs, err := ctl(t.Context(), "import --set B=203.0.113.20 "+dir)
	if err != nil || !strings.Contains(out.String(), "remote  = \"203.0.113.20\"\n") || !strings.Contains(out.String(), ":2: modprobe sit\n") {
		t.Errorf("%v: %s%s", err, out, errs)
	}
	out, errs, err = ctl(t.Context(), "import --json --set B=203.0.113.20 "+path)
	if err != nil || !strings.Contains(out.String(), "\"tunnels\": [\n    \"six0\"\n  ]") {
		t.Errorf("%v: %s%s", err, out, errs)
	}
	to := filepath.Join(t.TempDir(), "sixfour.toml")
	out, errs, err = ctl(t.Context(), "import --set B=203.0.113.20 --apply --config "+to+" "+path)
	if written, rerr := os.ReadFile(to); err != nil || rerr != nil || string(written) != out.String() || len(written) == 0 {
		t.Errorf("%v, %v: %s%s", err, rerr, out, errs)
	}
	out, _, err = ctl(t.Context(), "import "+path)
	if exitStatus(err) != 1 || !strings.Contains(out.String(), "--set B=VALUE") {
		t.Errorf("%v: %s", err, out)
	}
	for _, args := range []string{"import /no/such/file", "import --format dhcp " + path, "import " + t.TempDir()} {
		if _, _, err := ctl(t.Context(), args); exitStatus(err) != 1 {
			t.Errorf("%s: %v", args, err)
		}
	}
}
