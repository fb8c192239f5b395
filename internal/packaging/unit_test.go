package packaging

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sixfour/internal/rig"
)

// patience is how long a machine may take to start, run and end.
const patience = 3 * time.Minute

// start lets systemd run the daemon with a configuration, and returns the lines that
// are printed inside by their first words.
func start(t *testing.T, script, built, config string, dropIns ...string) map[string][]string {
	t.Helper()
	shared := t.TempDir()
	if err := os.WriteFile(filepath.Join(shared, "sixfour.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	args := []string{"--mount", "--pid", "--fork", "--kill-child", "--net", "--cgroup", "--ipc", "--uts", "./boot", script, built, shared, t.TempDir()}
	out, err := exec.CommandContext(ctx, "unshare", append(args, dropIns...)...).CombinedOutput()
	b, _ := os.ReadFile(filepath.Join(shared, "out"))
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, b)
	}
	lines := make(map[string][]string)
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		lines[key] = append(lines[key], strings.Join(strings.Fields(value), " "))
	}
	if _, ok := lines["result"]; !ok {
		t.Fatalf("not finished:\n%s%s", out, b)
	}
	return lines
}

// programs builds both programs, and returns their directory.
func programs(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, program := range []string{"sixfour/cmd/sixfourd", "sixfour/cmd/sixfourctl"} {
		if _, err := rig.Build(dir, program); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// oldHub is a hub that an older version has accepted: no packet goes to 2001:db8:2::/48.
const oldHub = "[[tunnel]]\nname = \"hub0\"\nmode = \"6in4\"\nlocal = \"203.0.113.10\"\naddress = [\"2001:db8:1::1/48\"]\nroutes = [\"2001:db8:3::/48\"]\n" +
	"[[tunnel.peer]]\nname = \"c\"\nremote = \"203.0.113.50\"\nallowed = [\"2001:db8:1:c::/64\", \"2001:db8:2::/48\"]\n"

// With the sample as it is, of whose addresses this host has none, the service starts,
// says what its tunnel waits for, and keeps neither an administrator waiting nor the
// package manager nor a boot; and a process that does nothing any more is replaced, which
// its interfaces outlive.
//
// An upgrade ends no tunnels: the service starts with a file that an older version has
// accepted, and the package keeps the process that runs if the file would be refused.
func TestWaiting(t *testing.T) {
	sample, err := os.ReadFile("../../cmd/sixfourd/dist/sixfour.toml")
	if err != nil {
		t.Fatal(err)
	}
	got := start(t, "waiting", programs(t), string(sample)+"[[tunnel]]\nname = \"in0\"\nmode = \"gre\"\nlocal = \"203.0.113.10\"\nremote = \"203.0.113.21\"\nnetns = \"inner\"\n"+oldHub, "sixfourd-netns.conf")
	for key, want := range map[string]string{
		"started": "0", "state": "active", "jobs": "0", "postinstall": "0", "again": "active",
		"refused": "0, the same process", "old hub": "1",
		"healed": "3 tunnels, ready to carry packets", "namespace": "in0", "hung": "another process", "result": "success",
		"kept": "the same interface",
	} {
		if len(got[key]) != 1 || got[key][0] != want {
			t.Errorf("%s: %q, want %q", key, got[key], want)
		}
	}
	for _, want := range []string{"3 tunnels, waiting: six0 waits for the address 203.0.113.10", "in0 waits for its network namespace inner"} {
		if len(got["status"]) != 1 || !strings.Contains(got["status"][0], want) {
			t.Errorf("%q, want %q in it", got["status"], want)
		}
	}
	if t.Failed() {
		t.Logf("inside:\n%v\nlog:\n%s", got, strings.Join(got["log"], "\n"))
	}
}

// The unit runs the daemon as a user of its own, with only the capabilities that its
// configuration needs. Members of the group may open the socket.
func TestUnit(t *testing.T) {
	built := programs(t)
	const tunnel = "[[tunnel]]\nname = \"six0\"\nmode = \"6in4\"\nlocal = \"203.0.113.10\"\nremote = \"203.0.113.20\"\naddress = [\"fc00::1/64\"]\n"
	for _, c := range []struct {
		name, config string
		dropIns      []string
		capabilities string
		program      string
	}{
		{"as it is", tunnel, nil, "0000000000003000", "none"},
		{"netns", tunnel + "netns = \"inner\"\n", []string{"sixfourd-netns.conf"}, "0000000000203000", "none"},
		{"port", tunnel + "[[tunnel.path]]\nencap = \"fou\"\nlocal_port = 443\n", []string{"sixfourd-port.conf"}, "0000000000003400", "none"},
		{"xdp", tunnel + "io = \"xdp\"\n", []string{"sixfourd-xdp.conf"}, "0000008000007000", "prog/xdp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := start(t, "inside", built, c.config, c.dropIns...)
			for key, want := range map[string]string{
				"CapPrm": c.capabilities, "CapEff": c.capabilities, "CapBnd": c.capabilities,
				"CapInh": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
				"socket": "sixfour:sixfour 660", "state": "active", "program": c.program, "reloaded": "1300 same process", "result": "success",
			} {
				if len(got[key]) != 1 || got[key][0] != want {
					t.Errorf("%s: %q, want %q", key, got[key], want)
				}
			}
			for key, want := range map[string]string{"tunnel": "six0 6in4", "again": "six0 6in4", "member": "six0 6in4", "interface": "six0"} {
				if len(got[key]) != 1 || !strings.Contains(got[key][0], want) {
					t.Errorf("%s: %q, want %q in it", key, got[key], want)
				}
			}
			if nobody := got["nobody"]; len(nobody) != 1 || !strings.Contains(nobody[0], "may not be opened") {
				t.Errorf("who is not in the group: %q", nobody)
			}
			if uid := got["Uid"]; len(uid) != 1 || strings.HasPrefix(uid[0], "0 ") {
				t.Errorf("user %q", uid)
			}
			for _, line := range got["log"] {
				if strings.Contains(line, "cannot restrict") {
					t.Error(line)
				}
			}
			if t.Failed() {
				t.Logf("inside:\n%v\nlog:\n%s", got, strings.Join(got["log"], "\n"))
			}
		})
	}
}
