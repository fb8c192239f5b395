package privilege

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"sixfour/internal/config"
	"sixfour/internal/netns"
	"sixfour/internal/trusted"
)

// account is the user that packages create for the daemon.
var account = "sixfour"

// passwd is the list of users. Tests replace it.
var passwd = "/etc/passwd"

// User is the user of the process.
type User struct {
	Name string
	Root string // why the process is still root although it need not be; "": it is not root, or must be
}

// Become changes the user of a process that root has started to the package's user, and
// keeps the capabilities. Then it has no access to root's files and to Unix sockets of
// other services, which neither capabilities nor the sandbox protect from root. If there
// is no such user, or if it could not do what the configuration, read from file,
// requires, the process stays root, and User says why. Become must be called once,
// before Enter and before the control socket is made.
func Become(cfg *config.Config, file string) (User, error) {
	if os.Geteuid() != 0 {
		return User{Name: nameOf(os.Geteuid())}, nil
	}
	if cfg.Security.NoSandbox {
		return User{Name: "root"}, nil
	}
	to, err := lookUp(account)
	if err == nil {
		err = to.prepare(cfg, file)
	}
	if _, none := os.Stat(passwd); err != nil && errors.Is(none, os.ErrNotExist) {
		return User{Name: "root"}, nil // an image without users, in which nothing else runs
	}
	if err != nil {
		return User{"root", err.Error()}, nil
	}
	_ = netns.Hold(needsOf(cfg, file).processes...) // the user has no access to other users' processes
	if err := to.become(); err != nil {
		return User{}, fmt.Errorf("become user %s: %w", account, err)
	}
	return User{Name: account}, nil
}

func nameOf(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

// identity holds the IDs of a user.
type identity struct {
	uid, gid int
	groups   []int
}

func lookUp(name string) (id identity, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return id, fmt.Errorf("there is no user %s: make it (systemd-sysusers, with the package's sixfour.conf)", name)
	}
	list, err := u.GroupIds()
	if err != nil {
		return id, err
	}
	for _, g := range append([]string{u.Uid, u.Gid}, list...) {
		n, err := strconv.Atoi(g)
		if err != nil {
			return id, err
		}
		id.groups = append(id.groups, n)
	}
	id.uid, id.gid, id.groups = id.groups[0], id.groups[1], id.groups[2:]
	return id, nil
}

// prepare checks whether the user can do what the daemon must do.
func (id identity) prepare(cfg *config.Config, file string) error {
	have := cap.GetProc()
	for _, c := range []cap.Value{cap.SETUID, cap.SETGID} {
		if ok, err := have.GetFlag(cap.Permitted, c); err != nil || !ok {
			return fmt.Errorf("the process lacks %s, without which it cannot become user %s", c, account)
		}
	}
	if err := id.withFileRights(func() error {
		needed := map[string]int{file: unix.O_RDONLY, "/dev/net/tun": unix.O_RDWR}
		for i := range cfg.Tunnels {
			for _, f := range cfg.Tunnels[i].Files() {
				needed[f] = unix.O_RDONLY
			}
		}
		for path, flags := range needed {
			fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("user %s may not open %s: %w: give it access (chgrp %s %[2]s && chmod g+r %[2]s; a file with a secret: chown %[1]s %[2]s)", account, path, err, account)
			}
			unix.Close(fd)
		}
		return nil
	}); err != nil {
		return err
	}
	// This comes last, because root could not use a directory of another user.
	dir := filepath.Dir(cfg.Control.Socket)
	if err := id.giveDirectory(dir, !cfg.Control.Explicit); err != nil {
		return fmt.Errorf("the control socket's directory: %w", err)
	}
	return id.withFileRights(func() error {
		if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			return fmt.Errorf("user %s may not make the control socket in %s: %w: give it the directory (chown %[1]s %[2]s)", account, dir, err)
		}
		return nil
	})
}

// giveDirectory gives a directory to the user if it does not exist yet, like the unit's
// RuntimeDirectory; or if ours is set, from its name, and it is root's from an earlier
// start.
func (id identity) giveDirectory(dir string, ours bool) error {
	var st unix.Stat_t
	err := unix.Lstat(dir, &st)
	missing := errors.Is(err, unix.ENOENT)
	if err != nil && !missing || err == nil && (!ours || st.Uid != 0 || st.Mode&unix.S_IFMT != unix.S_IFDIR) {
		return nil // prepare checks whether the directory can be used
	}
	f, err := trusted.OpenDir(dir, true, trusted.Owners{})
	if !missing && errors.As(err, new(*trusted.Untrusted)) {
		return nil // such as one that the daemon's group may change, which prepare may find good enough
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fchownat(int(f.Fd()), "", id.uid, id.gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("chown %s: %w", dir, err)
	}
	return nil
}

// withFileRights runs f with the user's rights to files, on a thread that afterwards has root's
// again (setfsuid(2)).
func (id identity) withFileRights(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	groups, err := unix.Getgroups()
	if err != nil {
		return os.NewSyscallError("getgroups", err)
	}
	gid := os.Getegid()
	if err := unix.Setgroups(id.groups); err != nil { // for this thread only
		return os.NewSyscallError("setgroups", err)
	}
	defer func() {
		if err := unix.Setgroups(groups); err != nil {
			panic(err) // root may do that
		}
	}()
	_ = unix.Setfsgid(id.gid)
	defer func() { _ = unix.Setfsgid(gid) }()
	_ = unix.Setfsuid(id.uid)
	defer func() { _ = unix.Setfsuid(0) }()
	return f()
}

// become changes the user of the whole process. It keeps the capabilities.
func (id identity) become() error {
	have := cap.GetProc()
	if err := cap.SetGroups(id.gid, id.groups...); err != nil {
		return err
	}
	if err := cap.SetUID(id.uid); err != nil {
		return err
	}
	return have.SetProc()
}
