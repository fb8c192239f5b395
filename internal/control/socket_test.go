package control_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"sixfour/internal/control"
	"sixfour/internal/control/client"
)

// asClient is the environment variable with the socket that the test binary queries instead
// of running tests.
const asClient = "SIXFOUR_CONTROL_TEST"

func TestMain(m *testing.M) {
	if socket := os.Getenv(asClient); socket != "" {
		c, err := net.Dial("unix", socket)
		switch {
		case err == nil:
			c.Close()
			os.Exit(0)
		case errors.Is(err, unix.EACCES):
			os.Exit(13)
		}
		os.Exit(1)
	}
	if socket := os.Getenv(asFlood); socket != "" {
		os.Exit(floodUntilClosed(socket))
	}
	goleak.VerifyTestMain(m)
}

// stale leaves a socket behind, as a killed daemon does.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestSocketPathThatExists(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T, path string)
		err  string // "": the socket is made
	}{
		{"nothing", func(*testing.T, string) {}, ""},
		{"a stale socket", stale, ""},
		{"a file", func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte("precious"), 0o600)) }, "exists and is not a socket: remove it, or set another socket"},
		{"a directory", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, "exists and is not a socket"},
		{"a link to nothing", func(t *testing.T, path string) { must(t, os.Symlink("nowhere", path)) }, "exists and is not a socket"},
		{"a living daemon", func(t *testing.T, path string) {
			s, err := control.Listen(path, fake{}, zap.NewNop())
			must(t, err)
			t.Cleanup(func() { s.Close() })
		}, "another sixfourd answers there: set another socket in [control] for this daemon"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			c.make(t, path)
			before, _ := os.Lstat(path)
			s, err := control.Listen(path, fake{}, zap.NewNop())
			if c.err == "" {
				must(t, err)
				if _, err := client.Status(t.Context(), path); err != nil {
					t.Error(err)
				}
				must(t, s.Close())
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, want %s", err, c.err)
			}
			after, err := os.Lstat(path)
			if err != nil || !os.SameFile(before, after) || before.Size() != after.Size() {
				t.Errorf("it was touched: %v", err)
			}
		})
	}
}

func TestSocketPaths(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	for path, want := range map[string]string{
		filepath.Join(dir, strings.Repeat("x", 200)): "but a socket's path may have only 107: set a shorter one in [control]",
		filepath.Join(dir, "file", "s"):              "not a directory",
	} {
		if _, err := control.Listen(path, fake{}, zap.NewNop()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Of several daemons that start together and find a stale socket, exactly one gets the socket.
func TestConcurrentStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stale(t, path)
	const n = 16
	servers := make([]*control.Server, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			s, err := control.Listen(path, fake{}, zap.NewNop())
			if err != nil && !errors.Is(err, control.ErrInUse) {
				t.Error(err)
			}
			servers[i] = s
		})
	}
	all.Wait()
	if _, err := client.Status(t.Context(), path); err != nil {
		t.Error(err)
	}
	won := 0
	for _, s := range servers {
		if s != nil {
			won++
			must(t, s.Close())
		}
	}
	if won != 1 {
		t.Errorf("%d have the socket", won)
	}
}

// A daemon does not remove the socket of another one that replaced it.
func TestCloseKeepsForeignSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := control.Listen(path, fake{}, zap.NewNop())
	must(t, err)
	must(t, os.Remove(path))
	second, err := control.Listen(path, fake{}, zap.NewNop())
	must(t, err)
	defer second.Close()
	must(t, first.Close())
	if _, err := client.Status(t.Context(), path); err != nil {
		t.Error(err)
	}
}

// The removal of the socket is logged once.
func TestRemovedSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	core, logs := observer.New(zap.ErrorLevel)
	s, err := control.ListenImpatient(path, fake{}, time.Millisecond, zap.New(core))
	must(t, err)
	defer s.Close()
	must(t, os.Remove(path))
	for deadline := time.Now().Add(10 * time.Second); logs.Len() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is said")
		}
	}
	if got := logs.All(); len(got) != 1 || !strings.HasPrefix(got[0].Message, "another program has removed the control socket") {
		t.Errorf("logged %+v", got)
	}
}

// The group may use the socket, others may not.
func TestSocketPermissions(t *testing.T) {
	g, err := user.LookupGroupId("65534")
	must(t, err)
	gid, err := strconv.Atoi(g.Gid)
	must(t, err)
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for _, c := range []struct {
		group string
		mode  os.FileMode
		inIt  int // exit status of a user in the group
		log   string
	}{
		{g.Name, 0o660, 0, ""},
		{"no-such-group", 0o600, 13, "only root may use the control socket: there is no group no-such-group"},
	} {
		defer control.SetGroup(c.group)()
		dir, err := os.MkdirTemp("", "control")
		must(t, err)
		defer os.RemoveAll(dir)
		must(t, os.Chmod(dir, 0o755))
		path := filepath.Join(dir, "run", "control.sock")
		core, logs := observer.New(zap.InfoLevel)
		s, err := control.Listen(path, fake{}, zap.New(core))
		must(t, err)
		defer s.Close()
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != c.mode {
			t.Errorf("%s: %v, %v", c.group, info.Mode(), err)
		}
		if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: the directory: %v, %v", c.group, info.Mode(), err)
		}
		if got := logs.All(); c.log == "" && len(got) > 0 || c.log != "" && (len(got) != 1 || got[0].Message != c.log) {
			t.Errorf("%s: logged %+v", c.group, got)
		}
		for _, who := range []struct {
			gid  int
			want int
		}{{gid, c.inIt}, {gid - 1, 13}} {
			if got := exitAs(t, path, who.gid); got != who.want {
				t.Errorf("%s: a user of group %d: exit status %d, want %d", c.group, who.gid, got, who.want)
			}
		}
	}
}

// exitAs runs the test binary as a client with another user and group, and returns its exit
// status.
func exitAs(t *testing.T, socket string, gid int) int {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{asClient + "=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: uint32(gid)}}
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}
