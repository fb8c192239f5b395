package control_test

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"sixfour/internal/control"
	"sixfour/internal/control/client"
	"sixfour/internal/trusted"
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

// If another user could replace the socket, only its owner may use it. No socket is made where
// a link of another user leads.
func TestUntrustedDirectories(t *testing.T) {
	g, err := user.LookupGroupId("65534")
	must(t, err)
	defer control.SetGroup(g.Name)()
	directory := func(uid, gid int, mode os.FileMode) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+"/d", 0o755))
			must(t, os.Chown(dir+"/d", uid, gid))
			must(t, os.Chmod(dir+"/d", mode))
		}
	}
	const other = nobody - 1
	for _, c := range []struct {
		name    string
		make    func(t *testing.T, dir string)
		socket  string // below the directory
		warning string // "": the group may use the socket
		err     string // "": the socket is made
	}{
		{"a directory of another user", directory(other, 0, 0o755), "d/s", "/d belongs to user ", ""},
		{"what is missing below it", directory(other, 0, 0o755), "d/run/s", "/d belongs to user ", ""},
		{"a directory for everybody", directory(0, 0, 0o777), "d/s", "/d may be changed by everybody (chmod o-w ", ""},
		{"a directory for another group", directory(0, other, 0o775), "d/s", "/d may be changed by group ", ""},
		{"a directory for the daemon's group", directory(0, nobody, 0o775), "d/s", "", ""},
		{"a directory for the daemon's group alone", directory(0, nobody, 0o770), "d/s", "", ""},
		{"one like /tmp", directory(0, 0, 0o777|os.ModeSticky), "d/s", "", ""},
		{"a link of another user", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+"/to", 0o755))
			must(t, os.Symlink("to", dir+"/d"))
			must(t, os.Lchown(dir+"/d", other, -1))
		}, "d/s", "", "/d is a symbolic link that user "},
		{"a link of root", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+"/to", 0o755))
			must(t, os.Symlink("to", dir+"/d"))
		}, "d/run/s", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := openDir(t)
			c.make(t, dir)
			path := filepath.Join(dir, c.socket)
			core, logs := observer.New(zap.WarnLevel)
			s, err := control.Listen(path, fake{}, zap.New(core))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !errors.As(err, new(*trusted.Untrusted)) {
					t.Fatalf("%v, want %s", err, c.err)
				}
				if left, err := os.ReadDir(dir + "/d"); err != nil || len(left) > 0 {
					t.Errorf("left %v, %v", left, err)
				}
				return
			}
			must(t, err)
			mode, gid := os.FileMode(0o660), uint32(nobody)
			if c.warning != "" {
				mode, gid = 0o600, 0
				if all := logs.All(); len(all) != 1 || !strings.Contains(fmt.Sprint(all[0].ContextMap()["error"]), c.warning) {
					t.Errorf("logged %+v, want %s", all, c.warning)
				}
			} else if logs.Len() > 0 {
				t.Errorf("logged %+v", logs.All())
			}
			info, err := os.Lstat(path)
			must(t, err)
			if got := info.Sys().(*syscall.Stat_t).Gid; info.Mode().Perm() != mode || got != gid {
				t.Errorf("mode %v, group %d, want %v, %d", info.Mode().Perm(), got, mode, gid)
			}
			if _, err := client.Status(t.Context(), path); err != nil {
				t.Error(err)
			}
			must(t, s.Close())
			if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
		})
	}
}

// An error in a directory of another user says that this user may have caused it.
func TestSocketOfAnotherUser(t *testing.T) {
	dir := openDir(t)
	must(t, os.Chown(dir, nobody-1, -1))
	path := filepath.Join(dir, "s")
	must(t, os.WriteFile(path, nil, 0o600))
	if _, err := control.Listen(path, fake{}, zap.NewNop()); !errors.As(err, new(*trusted.Untrusted)) || !strings.Contains(err.Error(), "exists and is not a socket") {
		t.Errorf("%v", err)
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
