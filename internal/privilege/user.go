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
	"sixfour/internal/netcfg"
	"sixfour/internal/trusted"
)

// account is the user that packages make for the daemon.
var account = "sixfour"

// User is the user that the process runs as.
type User struct {
	Name string
	Root string // why it is root although it need not be; "": it is not, or shall be
}

// Become makes a process that root has started one of the package's user, with the
// capabilities that it has: root's files, and the Unix sockets of other services, which
// no capability is asked for and no sandbox keeps from root, are out of its reach then. If
// there is no such user, or it could not do what the configuration, which was read from
// file, wants, the process stays root's, and User says why. It must be called once,
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
	if err != nil {
		return User{"root", err.Error()}, nil
	}
	_ = netcfg.Hold(needsOf(cfg, file).processes...) // that user may not look at other users' processes
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

// identity is what the kernel knows of a user.
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

// prepare sees whether the user can do what the daemon has to.
func (id identity) prepare(cfg *config.Config, file string) error {
	have := cap.GetProc()
	for _, c := range []cap.Value{cap.SETUID, cap.SETGID} {
		if ok, err := have.GetFlag(cap.Permitted, c); err != nil || !ok {
			return fmt.Errorf("the process lacks %s, without which it cannot become user %s", c, account)
		}
	}
	if err := id.as(func() error {
		for path, flags := range map[string]int{file: unix.O_RDONLY, "/dev/net/tun": unix.O_RDWR} {
			fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("user %s may not open %s: %w: let it (chgrp %s %[2]s && chmod g+r %[2]s)", account, path, err, account)
			}
			unix.Close(fd)
		}
		return nil
	}); err != nil {
		return err
	}
	// Last, as root could not use a directory of another user.
	dir := filepath.Dir(cfg.Control.Socket)
	if err := id.give(dir, !cfg.Control.Explicit); err != nil {
		return fmt.Errorf("the control socket's directory: %w", err)
	}
	return id.as(func() error {
		if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			return fmt.Errorf("user %s may not make the control socket in %s: %w: give it the directory (chown %[1]s %[2]s)", account, dir, err)
		}
		return nil
	})
}

// give makes a directory the user's if it is not there yet, as the unit's
// RuntimeDirectory is; or if it is ours by its name, and root's from an earlier start.
func (id identity) give(dir string, ours bool) error {
	var st unix.Stat_t
	err := unix.Lstat(dir, &st)
	missing := errors.Is(err, unix.ENOENT)
	if err != nil && !missing || err == nil && (!ours || st.Uid != 0 || st.Mode&unix.S_IFMT != unix.S_IFDIR) {
		return nil // whether it will do, prepare sees
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

// as runs f with the user's rights to files, on a thread that has root's again
// afterwards (setfsuid(2)).
func (id identity) as(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	groups, err := unix.Getgroups()
	if err != nil {
		return os.NewSyscallError("getgroups", err)
	}
	gid := os.Getegid()
	if err := unix.Setgroups(id.groups); err != nil { // of this thread alone
		return os.NewSyscallError("setgroups", err)
	}
	defer func() {
		if err := unix.Setgroups(groups); err != nil {
			panic(err) // root may
		}
	}()
	_ = unix.Setfsgid(id.gid)
	defer func() { _ = unix.Setfsgid(gid) }()
	_ = unix.Setfsuid(id.uid)
	defer func() { _ = unix.Setfsuid(0) }()
	return f()
}

// become makes the whole process the user's. Its capabilities stay.
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
