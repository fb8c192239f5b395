// Package trusted opens directories and files by path when other users of the host may
// try to redirect the process: by a symbolic link, by a hard link, or by replacing a
// directory between two system calls.
//
// It opens each component of a path relative to the directory before it, and follows
// none without checking its owner.
package trusted

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mode of new directories.
const dirMode = 0o755

// maxLinks is how many symbolic links a path may contain, as in the kernel.
const maxLinks = 40

// Untrusted is the error for a path that another user could redirect.
type Untrusted struct{ reason string }

func (e *Untrusted) Error() string { return e.reason }

func untrusted(format string, args ...any) error { return &Untrusted{fmt.Sprintf(format, args...)} }

// Owners are users and groups that may change directories, in addition to root and the
// process's own user.
type Owners struct{ Users, Groups []int }

// OpenDir opens a directory for use with the system calls that end in "at" (O_PATH). It
// refuses, with an Untrusted, a directory in which a user other than root, the process's own
// and those of also could replace entries, and a path through such a directory. With
// makeMissing it creates the missing directories of the path, with mode 0755.
func OpenDir(path string, makeMissing bool, also Owners) (*os.File, error) {
	w := walk{strict: true, makeMissing: makeMissing, moreOwners: also}
	return w.openFile(path)
}

// OpenAnyDir is OpenDir for a caller that can use a directory in which another user could
// replace entries: it opens such a directory, too, and returns the reason as warning. It
// still follows no link of another user. Directories that it creates below such a directory
// have the mode 0755 less the bits of the umask.
func OpenAnyDir(path string, makeMissing bool, also Owners) (dir *os.File, warning, err error) {
	w := walk{strict: true, warnOnly: true, makeMissing: makeMissing, moreOwners: also}
	dir, err = w.openFile(path)
	return dir, w.warning, err
}

// Create opens a file for writing like os.Create. A new file gets mode 0600. It follows
// only links made by root or by the process's user, and refuses a file that belongs to
// another user or has a second name: another user may have put it there.
func Create(path string) (*os.File, error) {
	abs, err := absolute(path)
	if err != nil {
		return nil, err
	}
	w := walk{invoker: invoker()}
	fd, err := w.create(abs)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// absolute makes a path absolute. Unlike filepath.Abs it does not remove "..", which
// would be wrong after a symbolic link.
func absolute(path string) (string, error) {
	if path == "" {
		return "", errors.New("the path is empty")
	}
	if filepath.IsAbs(path) {
		return path, nil
	}
	wd, err := os.Getwd()
	return wd + "/" + path, err
}

// walk is one walk from the root directory along a path.
type walk struct {
	strict      bool // refuse directories that other users can change
	warnOnly    bool // do not refuse them, but set warning
	makeMissing bool
	moreOwners  Owners
	invoker     int   // user whose links to directories and pipes are trusted, too; 0: none
	links       int   // number of links followed so far
	warning     error // the first Untrusted
}

func (w *walk) openFile(path string) (*os.File, error) {
	abs, err := absolute(path)
	if err != nil {
		return nil, err
	}
	fd, err := w.open(abs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// open opens a directory.
func (w *walk) open(path string) (int, error) {
	dir, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	at := "/" // for messages
	for rest := strings.Split(path, "/"); err == nil && len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		var target string
		if err = w.check(dir, at); err == nil {
			at = filepath.Join(at, name)
			dir, target, err = w.step(dir, name, at)
		}
		if target == "" {
			continue
		}
		rest = append(strings.Split(target, "/"), rest...)
		at = filepath.Dir(at)
		if filepath.IsAbs(target) {
			unix.Close(dir)
			at = "/"
			dir, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
	}
	if err == nil {
		err = w.check(dir, at)
	}
	if err != nil {
		unix.Close(dir)
		return -1, err
	}
	return dir, nil
}

// step opens an entry of a directory. For a directory it closes dir and returns the new
// descriptor. For a symbolic link it returns dir and the target.
func (w *walk) step(dir int, name, at string) (next int, target string, err error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	next, err = unix.Openat(dir, name, flags, 0)
	if errors.Is(err, unix.ENOENT) && w.makeMissing {
		if err := w.mkdir(dir, name); err != nil {
			return dir, "", fmt.Errorf("make %s: %w", at, err)
		}
		next, err = unix.Openat(dir, name, flags, 0)
	}
	if err != nil {
		return dir, "", err
	}
	var st unix.Stat_t
	if err = unix.Fstat(next, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		if w.invoker != 0 && int(st.Uid) == w.invoker {
			st.Uid = 0
		}
		target, err = w.follow(next, &st, at)
		unix.Close(next)
		return dir, target, err
	}
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = fmt.Errorf("%s: %w", at, unix.ENOTDIR)
	}
	if err != nil {
		unix.Close(next)
		return dir, "", err
	}
	unix.Close(dir)
	return next, "", nil
}

// mkdir creates a directory. Its mode does not depend on the umask, unless another user could
// replace the directory before its mode is changed.
func (w *walk) mkdir(dir int, name string) error {
	err := unix.Mkdirat(dir, name, dirMode)
	switch {
	case errors.Is(err, unix.EEXIST): // created by another process in the meantime
		return nil
	case err != nil || w.warning != nil:
		return err
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fchmod(fd, dirMode)
}

// follow reads a symbolic link that the process may follow.
func (w *walk) follow(fd int, st *unix.Stat_t, at string) (string, error) {
	if w.links++; w.links > maxLinks {
		return "", unix.ELOOP
	}
	if !trusted(st.Uid) {
		return "", untrusted("%s is a symbolic link that %s made: name the file that it leads to", at, userName(st.Uid))
	}
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(fd, "", buf[:])
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	if err != nil {
		return "", fmt.Errorf("read link %s: %w", at, err)
	}
	return string(buf[:n]), nil
}

// check refuses a directory in which another user can replace entries. In one with the
// sticky bit, such as /tmp, only the owner of an entry or of the directory can.
func (w *walk) check(dir int, at string) error {
	if !w.strict {
		return nil
	}
	err := w.checkOwner(dir, at)
	if w.warnOnly && errors.As(err, new(*Untrusted)) {
		w.warning = cmp.Or(w.warning, err)
		return nil
	}
	return err
}

func (w *walk) checkOwner(dir int, at string) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	const rootGroup = 0
	switch {
	case !trusted(st.Uid) && !slices.Contains(w.moreOwners.Users, int(st.Uid)):
		return untrusted("%s belongs to %s, who could replace what is in it: use a directory that belongs to root", at, userName(st.Uid))
	case st.Mode&unix.S_ISVTX != 0:
		return nil
	case st.Mode&unix.S_IWOTH != 0:
		return untrusted("%s may be changed by everybody (chmod o-w %s): use a directory that only its owner can change", at, at)
	case st.Mode&unix.S_IWGRP != 0 && st.Gid != rootGroup && !slices.Contains(w.moreOwners.Groups, int(st.Gid)):
		return untrusted("%s may be changed by group %s (chmod g-w %s): use a directory that only its owner can change", at, groupName(st.Gid), at)
	}
	return nil
}

// create opens or makes a regular file, or opens another kind of file that can be
// written to (a pipe, a device).
func (w *walk) create(path string) (int, error) {
	for {
		last := strings.LastIndexByte(path, '/') + 1 // filepath.Dir would remove ".."
		dir, err := w.open(path[:last])
		if err != nil {
			return -1, err
		}
		fd, target, err := w.createIn(dir, path[last:], path)
		unix.Close(dir)
		if target == "" {
			return fd, err
		}
		if !filepath.IsAbs(target) {
			target = path[:last] + target
		}
		path = target
	}
}

func (w *walk) createIn(dir int, name, at string) (fd int, target string, err error) {
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_CLOEXEC | unix.O_NOFOLLOW
	if isProc(dir) { // /dev/stdout, /dev/fd/N: links to the process's own descriptors, without a path as target
		flags &^= unix.O_NOFOLLOW | unix.O_CREAT
	}
	fd, err = unix.Openat(dir, name, flags, 0o600)
	if errors.Is(err, unix.ELOOP) {
		link, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, "", err
		}
		defer unix.Close(link)
		var st unix.Stat_t
		if err = unix.Fstat(link, &st); err != nil {
			return -1, "", err
		}
		target, err = w.follow(link, &st, at)
		return -1, target, err
	}
	if err != nil {
		return -1, "", err
	}
	if err := w.truncate(dir, fd); err != nil {
		unix.Close(fd)
		return -1, "", err
	}
	return fd, "", nil
}

// truncate truncates a regular file, unless it may belong to another user.
func (w *walk) truncate(dir, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	switch {
	case isProc(dir) && kind != unix.S_IFREG:
		return nil // an open descriptor, such as standard output
	case isProc(dir):
		return unix.Ftruncate(fd, 0)
	case kind == unix.S_IFIFO && w.invoker != 0 && int(st.Uid) == w.invoker && !isSticky(dir):
		return nil
	case kind == unix.S_IFCHR:
		return nil // a terminal or /dev/null: only root controls /dev
	case !trusted(st.Uid):
		return fmt.Errorf("it belongs to %s: remove it, or name another file", userName(st.Uid))
	case kind == unix.S_IFREG && st.Nlink > 1:
		return errors.New("it has a second name (a hard link), which would be overwritten, too: remove it, or name another file")
	case kind == unix.S_IFREG:
		return unix.Ftruncate(fd, 0)
	}
	return nil
}

// isSticky reports whether a directory is one in which all users make files, such as /tmp.
func isSticky(dir int) bool {
	var st unix.Stat_t
	return unix.Fstat(dir, &st) != nil || st.Mode&unix.S_ISVTX != 0
}

// invoker returns the user that started this program by sudo(8); 0: none.
func invoker() int {
	uid, err := strconv.Atoi(os.Getenv("SUDO_UID"))
	if os.Geteuid() != 0 || err != nil || uid < 0 {
		return 0
	}
	return uid
}

func isProc(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC
}

// trusted reports whether the process may follow what a user has made: root, the
// process's own user and, in a user namespace without root, the owner of the root
// directory.
func trusted(uid uint32) bool {
	if uid == 0 || uid == uint32(os.Geteuid()) {
		return true
	}
	var st unix.Stat_t
	return unix.Stat("/", &st) == nil && st.Uid == uid
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return "user " + u.Username
	}
	return "user " + id
}

func groupName(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}
