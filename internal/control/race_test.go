package control_test

import (
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/internal/control"
)

// nobody is a user without privileges.
const nobody = 65534

// openDir makes a directory that every user may list.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "control")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}

// If a socket is replaced by a link after it was made, the link's target does not change: owner
// and mode are set on the socket that was made.
func TestSwappedSocket(t *testing.T) {
	dir := openDir(t)
	path, victim := filepath.Join(dir, "s"), filepath.Join(dir, "victim")
	must(t, os.WriteFile(victim, []byte("secret"), 0o600))
	must(t, control.GiveAfter(path, nobody, func() {
		must(t, os.Rename(path, path+".moved"))
		must(t, os.Symlink(victim, path))
	}))
	for file, want := range map[string]struct {
		gid  uint32
		mode os.FileMode
	}{victim: {0, 0o600}, path + ".moved": {nobody, 0o660}} {
		info, err := os.Lstat(file)
		must(t, err)
		if gid := info.Sys().(*syscall.Stat_t).Gid; gid != want.gid || info.Mode().Perm() != want.mode {
			t.Errorf("%s: group %d, mode %v", file, gid, info.Mode())
		}
	}
}

// If another user could replace the socket, neither a socket nor anything else is made.
func TestDirectoriesOfOthers(t *testing.T) {
	for _, c := range []struct {
		name   string
		make   func(t *testing.T, dir string)
		socket string // below the directory
		err    string // "": the socket is made
	}{
		{"a directory of nobody", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+"/d", 0o755))
			must(t, os.Chown(dir+"/d", nobody, -1))
		}, "d/s", "/d belongs to user "},
		{"what is missing below it", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+"/d", 0o755))
			must(t, os.Chown(dir+"/d", nobody, -1))
		}, "d/run/s", "/d belongs to user "},
		{"a directory for everybody", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+"/d", 0o755))
			must(t, os.Chmod(dir+"/d", 0o777))
		}, "d/s", "/d may be changed by everybody (chmod o-w "},
		{"a directory for a group", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+"/d", 0o755))
			must(t, os.Chown(dir+"/d", -1, nobody))
			must(t, os.Chmod(dir+"/d", 0o775))
		}, "d/s", "/d may be changed by group "},
		{"one like /tmp", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+"/d", 0o755))
			must(t, os.Chmod(dir+"/d", 0o777|os.ModeSticky))
		}, "d/s", ""},
		{"a link of nobody", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+"/to", 0o755))
			must(t, os.Symlink("to", dir+"/d"))
			must(t, os.Lchown(dir+"/d", nobody, -1))
		}, "d/s", "/d is a link that user "},
		{"a link of root", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+"/to", 0o755))
			must(t, os.Symlink("to", dir+"/d"))
		}, "d/run/s", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := openDir(t)
			c.make(t, dir)
			s, err := control.Listen(filepath.Join(dir, c.socket), fake{}, zap.NewNop())
			if c.err == "" {
				must(t, err)
				must(t, s.Close())
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Fatalf("%v, want %s", err, c.err)
			}
			if left, err := os.ReadDir(dir + "/d"); err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
		})
	}
}

// Root may use the directory that the unit made for the daemon's user.
func TestDirectoryOfTheDaemonsUser(t *testing.T) {
	u, err := user.LookupId("65534")
	must(t, err)
	defer control.SetGroup(u.Username)()
	dir := openDir(t)
	must(t, os.Chown(dir, nobody, -1))
	s, err := control.Listen(filepath.Join(dir, "s"), fake{}, zap.NewNop())
	must(t, err)
	must(t, s.Close())
}

// Any user can open the socket's directory and lock it: this does not prevent a daemon from
// making its socket.
func TestLockedDirectory(t *testing.T) {
	dir := openDir(t)
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	must(t, unix.Flock(int(d.Fd()), unix.LOCK_EX))
	s, err := control.Listen(filepath.Join(dir, "s"), fake{}, zap.NewNop())
	must(t, err)
	must(t, s.Close())
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
