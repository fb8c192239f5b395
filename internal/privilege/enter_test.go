package privilege_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sixfour/internal/configfile"
	"sixfour/internal/privilege"
	"sixfour/internal/rig"
)

// The test's program is also the restricted process: if these variables are set, it
// enters the sandbox of a configuration, makes all attempts, and prints the results.
const (
	fileKey   = "SIXFOUR_PRIVILEGE_FILE"
	parentKey = "SIXFOUR_PRIVILEGE_PARENT" // a process that it must not access
	inside    = "inside"                   // printed when it is restricted
	replaced  = "six1"                     // the tunnel of the configuration that replaces the first one
)

func TestMain(m *testing.M) {
	if file := os.Getenv(fileKey); file != "" {
		if err := restricted(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// outcome is the output of a restricted process.
type outcome struct {
	State   privilege.State
	Threads []map[string]string // /proc/self/task/*/status
	Tried   map[string]string   // errors; "" means none
}

func restricted(file string) error {
	cfg, err := configfile.Load(file)
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", cfg.Control.Socket)
	if err != nil {
		return err
	}
	defer l.Close()
	p := place{dir: filepath.Dir(file), config: file, socket: cfg.Control.Socket, parent: os.Getenv(parentKey)}
	if p.outside, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		return err
	}
	box, err := privilege.Enter(cfg, file, privilege.User{Name: "root"})
	if err != nil {
		return err
	}
	// Now the test may replace the configuration file.
	fmt.Println(inside)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	o := outcome{State: box.State(), Tried: make(map[string]string)}
	for _, a := range attempts {
		o.Tried[a.what] = ""
		if err := a.try(p); err != nil {
			o.Tried[a.what] = err.Error()
			var errno syscall.Errno
			if errors.As(err, &errno) {
				o.Tried[a.what] = errno.Error()
			}
		}
	}
	if o.Threads, err = threads(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(o)
}

// threads returns the kernel's status of each thread of this process.
func threads() (all []map[string]string, err error) {
	tasks, err := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
		if err != nil {
			return nil, err
		}
		one := make(map[string]string)
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			one[key] = strings.TrimSpace(value)
		}
		all = append(all, one)
	}
	return all, err
}

// tunnel returns a configuration with lines for its only tunnel and whole tables before
// it.
func tunnel(socket, tables string, lines ...string) string {
	return fmt.Sprintf("[control]\nsocket = %q\n%s\n[[tunnel]]\nname = \"six0\"\nmode = \"6in4\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n%s\n",
		socket, tables, strings.Join(lines, "\n"))
}

// enter runs a restricted process in a namespace of its own.
func enter(t *testing.T, tables string, lines ...string) outcome {
	t.Helper()
	ns, err := rig.New("restricted")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	dir := t.TempDir()
	for _, sub := range []string{"etc", "run"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "etc", "sixfour.toml")
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(tunnel(filepath.Join(dir, "run", "control.sock"), tables, lines...), "NAMESPACE", ns.Path())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fileKey+"="+file, fmt.Sprintf("%s=%d", parentKey, os.Getpid()))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	stdout := bufio.NewReader(out)
	if line, err := stdout.ReadString('\n'); err != nil || line != inside+"\n" {
		t.Fatalf("%q, %v, %v\n%s", line, err, cmd.Wait(), stderr.String())
	}
	if err := os.WriteFile(file+".new", []byte(strings.ReplaceAll(text, "six0", replaced)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	answer, err := io.ReadAll(stdout)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var o outcome
	if err := json.Unmarshal(answer, &o); err != nil {
		t.Fatalf("%v\n%s", err, answer)
	}
	return o
}

// TestEnter: forbidden operations fail in all threads, and needed ones work. A
// configuration that needs more gets only that in addition.
func TestEnter(t *testing.T) {
	for _, c := range []struct {
		role         role
		tables       string
		lines        []string
		capabilities []string
		mask         string // of CapPrm
	}{
		{plain, "", nil, []string{"cap_net_admin", "cap_net_raw"}, "0000000000003000"},
		{netns, "", []string{`netns = "NAMESPACE"`}, []string{"cap_net_admin", "cap_net_raw", "cap_sys_admin"}, "0000000000203000"},
		{xdp, "", []string{`io = "auto"`}, []string{"cap_net_admin", "cap_net_raw", "cap_bpf", "cap_ipc_lock"}, "0000008000007000"},
		{bpf, "", []string{`io = "kernel"`}, []string{"cap_net_admin", "cap_net_raw"}, "0000000000003000"},
		{plain, "[metrics]\nlisten = \"127.0.0.1:80\"", nil, []string{"cap_net_admin", "cap_net_raw", "cap_net_bind_service"}, "0000000000003400"},
		{rules, "[security]\npacket_filter = \"on\"", nil, []string{"cap_net_admin", "cap_net_raw"}, "0000000000003000"},
		{rules, "[gateway]\nmasquerade = \"eth0\"", []string{`address = ["fc00::1/64"]`}, []string{"cap_net_admin", "cap_net_raw"}, "0000000000003000"},
		{open, "[security]\nsandbox = \"off\"", nil, []string{"cap_net_admin", "cap_net_raw"}, "0000000000003000"},
	} {
		t.Run(string(c.role), func(t *testing.T) {
			o := enter(t, c.tables, c.lines...)
			want := privilege.State{User: "root", Capabilities: c.capabilities, Landlock: o.State.Landlock, Seccomp: "on"}
			seccomp := "2"
			if c.role == open {
				want.Landlock, want.Seccomp, seccomp = "off", "off", "0"
			} else if !strings.HasPrefix(o.State.Landlock, "ABI ") {
				t.Errorf("landlock %q", o.State.Landlock)
			}
			if !reflect.DeepEqual(o.State, want) {
				t.Errorf("state %+v, want %+v", o.State, want)
			}
			if len(o.Threads) < 2 {
				t.Errorf("%d threads", len(o.Threads))
			}
			for _, thread := range o.Threads {
				for key, want := range map[string]string{
					"CapPrm": c.mask, "CapEff": c.mask, "CapBnd": c.mask, "CapInh": "0000000000000000", "CapAmb": "0000000000000000",
					"NoNewPrivs": "1", "Seccomp": seccomp,
				} {
					if got := thread[key]; got != want {
						t.Errorf("thread %s: %s %s, want %s", thread["Pid"], key, got, want)
					}
				}
			}
			for _, a := range attempts {
				want := a.fails
				switch {
				case slices.Contains(a.worksIn, c.role):
					want = 0
				case c.role == open && want != 0 && !a.anyhow:
					continue // not checked
				}
				text := ""
				if want != 0 {
					text = want.Error()
				}
				if got := o.Tried[a.what]; got != text {
					t.Errorf("%s: %q, want %q", a.what, got, text)
				}
			}
		})
	}
}
