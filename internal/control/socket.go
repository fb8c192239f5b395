package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/internal/trusted"
)

// ErrInUse means that another daemon answers at the socket.
var ErrInUse = errors.New("another sixfourd answers there")

// group is the group whose members may use the socket without being root.
var group = "sixfour"

// socket is a Unix socket together with its file.
type socket struct {
	*net.UnixListener
	path string
	dir  *os.File // its directory
	file *os.File // the socket's file (O_PATH)
}

// listen makes the socket, and its directory if necessary, unless a running daemon has a
// socket there.
func listen(path string, log *zap.Logger) (*socket, error) {
	if max := len(unix.RawSockaddrUnix{}.Path) - 1; len(path) > max {
		return nil, fmt.Errorf("control socket %s: the path has %d bytes, but a socket's path may have only %d: set a shorter one in [control]", path, len(path), max)
	}
	s := &socket{path: path}
	err := s.make(log)
	if err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

func (s *socket) make(log *zap.Logger) error {
	var warning, err error
	// The unit makes the directory for the daemon's user, and members of the group may use the
	// socket anyway.
	if s.dir, warning, err = trusted.OpenAnyDir(filepath.Dir(s.path), true, trusted.OwnersNamed(group)); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	address := s.path
	if warning != nil { // the path may lead to another directory by now
		address = fmt.Sprintf("/proc/self/fd/%d/%s", s.dir.Fd(), s.name())
	}
	err = s.bind(address)
	switch {
	case err != nil && warning != nil: // the other user may have caused it
		return fmt.Errorf("%w; %w", err, warning)
	case err != nil:
		return err
	case warning != nil:
		log.Warn("only root and the daemon's user may use the control socket, because another user could replace it",
			zap.String("socket", s.path), zap.Error(warning))
	default:
		s.open(log)
	}
	return nil
}

// bind makes the socket at an address, which leads to s.path.
func (s *socket) bind(address string) error {
	unlock, err := lock(s.dir, s.name()+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.removeStale(); err != nil {
		return err
	}
	// The file gets the mode that the socket has before bind: only root can use it from
	// the start, whatever the umask is.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }), err)
	}}
	l, err := lc.Listen(context.Background(), "unix", address)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	s.UnixListener = l.(*net.UnixListener)
	s.SetUnlinkOnClose(false) // remove unlinks it, if it is still ours
	return s.find()
}

func (s *socket) name() string { return filepath.Base(s.path) }

// release closes what listen opened, but does not remove the file.
func (s *socket) release() {
	if s.UnixListener != nil {
		s.UnixListener.Close()
	}
	for _, f := range []*os.File{s.dir, s.file} {
		if f != nil {
			f.Close()
		}
	}
}

// lockPatience limits the wait for another daemon that holds the lock.
const lockPatience = 5 * time.Second

// lock takes a lock while the directory is examined and changed: of two daemons that start
// at the same time, one must not mistake the other's new socket for a stale one. The lock is
// on a file that only we can open. The directory itself cannot be used, because any user can
// open and lock it.
func lock(dir *os.File, name string) (unlock func(), err error) {
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(10 * time.Millisecond) {
		locked, fd, err := tryLock(dir, name)
		switch {
		case locked:
			return func() {
				_ = unix.Unlinkat(int(dir.Fd()), name, 0) // a file left behind does no harm
				unix.Close(fd)
			}, nil
		case err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR), time.Now().After(deadline):
			return nil, fmt.Errorf("control socket: lock %s: %w: check that the daemon may write there, and that no other sixfourd is starting", filepath.Join(dir.Name(), name), cmp.Or(err, error(unix.EWOULDBLOCK)))
		}
	}
}

// tryLock takes the lock, unless the previous owner has removed its file.
func tryLock(dir *os.File, name string) (locked bool, fd int, err error) {
	fd, err = unix.Openat(int(dir.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false, -1, err
	}
	var st unix.Stat_t
	if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil || st.Nlink == 0 {
		unix.Close(fd)
		return false, -1, err
	}
	return true, fd, nil
}

// removeStale removes a socket that a dead daemon left behind.
func (s *socket) removeStale() error {
	st, err := s.stat()
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket: %s: %w", s.path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("control socket: %s exists and is not a socket: remove it, or set another socket in [control]", s.path)
	}
	if c, err := net.DialTimeout("unix", s.path, lockPatience); err == nil {
		c.Close()
		return fmt.Errorf("control socket %s: %w: set another socket in [control] for this daemon", s.path, ErrInUse)
	} else if errors.Is(err, unix.EAGAIN) { // a full queue: the socket is in use
		return fmt.Errorf("control socket %s: %w, or will soon: set another socket in [control] for this daemon", s.path, ErrInUse)
	} else if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("control socket: %w", err)
	}
	if err := unix.Unlinkat(int(s.dir.Fd()), s.name(), 0); err != nil {
		return fmt.Errorf("control socket: remove the stale one: %s: %w", s.path, err)
	}
	return nil
}

// stat returns what is at the socket's path. It does not follow links.
func (s *socket) stat() (st unix.Stat_t, err error) {
	err = unix.Fstatat(int(s.dir.Fd()), s.name(), &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

// find opens the file of the new socket. All later changes apply to this file, whatever is
// at the path by then.
func (s *socket) find() error {
	fd, err := unix.Openat(int(s.dir.Fd()), s.name(), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("control socket: open %s: %w", s.path, err)
	}
	s.file = os.NewFile(uintptr(fd), s.path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("control socket: %s: %w", s.path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || st.Uid != uint32(os.Geteuid()) || st.Nlink != 1 {
		return fmt.Errorf("control socket: %s was replaced while it was created: set a socket in [control] in a directory that only root can change", s.path)
	}
	return nil
}

// open gives the group access, if the group exists.
func (s *socket) open(log *zap.Logger) {
	g, err := user.LookupGroup(group)
	if errors.As(err, new(user.UnknownGroupError)) {
		log.Info("only root may use the control socket: there is no group "+group, zap.String("socket", s.path))
		return
	}
	var gid int
	if err == nil {
		gid, err = strconv.Atoi(g.Gid)
	}
	if err == nil {
		err = s.setGroup(gid)
	}
	if err != nil {
		log.Warn("only root may use the control socket", zap.String("socket", s.path), zap.Error(err))
	}
}

// setGroup sets the group and mode of the file by its descriptor. Before Linux 6.6, the mode can
// be changed in this way only through /proc.
func (s *socket) setGroup(gid int) error {
	fd := int(s.file.Fd())
	if err := unix.Fchownat(fd, "", -1, gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("give it to group %s: %w", group, err)
	}
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o660); err != nil {
		return fmt.Errorf("open it for group %s: %w", group, err)
	}
	return nil
}

// isFile reports whether a file is that of the socket. The open descriptor keeps the inode
// number from being reused.
func (s *socket) isFile(st *unix.Stat_t) bool {
	var own unix.Stat_t
	return unix.Fstat(int(s.file.Fd()), &own) == nil && own.Dev == st.Dev && own.Ino == st.Ino
}

// watch checks regularly, until ended is closed, whether the socket still has its file, and
// logs once if it is gone: clients cannot reach the daemon then. The socket is not made
// again, because the daemon has dropped the privilege to make files there.
func (s *socket) watch(every time.Duration, ended <-chan struct{}, log *zap.Logger) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		var st unix.Stat_t
		if err := unix.Lstat(s.path, &st); errors.Is(err, unix.ENOENT) || err == nil && !s.isFile(&st) {
			log.Error("another program has removed the control socket: sixfourctl cannot reach this daemon until it is restarted; tunnels continue, and SIGHUP still reloads", zap.String("socket", s.path))
			return
		}
	}
}

// remove removes the socket's file, unless another file has replaced it. It must be called
// while the socket still listens, so that another daemon starting meanwhile finds it in use
// and does not consider it stale.
func (s *socket) remove() error {
	st, err := s.stat()
	if err == nil && s.isFile(&st) {
		err = unix.Unlinkat(int(s.dir.Fd()), s.name(), 0)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("control socket: remove %s: %w", s.path, err)
	}
	return nil
}
