package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// ErrInUse means that another daemon answers at the socket.
var ErrInUse = errors.New("another sixfourd answers there")

// group is whose members may speak to the daemon without being root.
var group = "sixfour"

// socket is a Unix socket that knows its own file.
type socket struct {
	*net.UnixListener
	path string
	info fs.FileInfo // of the file that was made
}

// listen makes the socket, with its directory if need be, where no living daemon has
// its own.
func listen(path string, log *zap.Logger) (*socket, error) {
	if max := len(unix.RawSockaddrUnix{}.Path) - 1; len(path) > max {
		return nil, fmt.Errorf("control socket %s: the path has %d bytes, a socket's at most %d: name a shorter one in [control]", path, len(path), max)
	}
	unlock, err := ready(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// The file has the mode of the socket before it was bound: root's alone from its
	// first moment, whatever the umask is.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }), err)
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s := &socket{UnixListener: l.(*net.UnixListener), path: path}
	s.SetUnlinkOnClose(false) // remove does, if it still is ours
	if s.info, err = os.Lstat(path); err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s.open(log)
	return s, nil
}

// lockPatience is how long another daemon may take to look at the directory.
const lockPatience = 5 * time.Second

// ready makes the directory, and holds a lock on it: of two daemons that start at the
// same time, one must not take the other's new socket for a stale one.
func ready(dir string) (unlock func(), err error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
		if err := os.Chmod(dir, 0o755); err != nil { // despite the umask
			return nil, fmt.Errorf("control socket: %w", err)
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	for deadline := time.Now().Add(lockPatience); ; {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { d.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(deadline) {
			d.Close()
			return nil, fmt.Errorf("control socket: lock %s: %w", dir, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// removeStale makes room for a new socket where a dead daemon left its own.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("control socket: %s exists and is no socket: remove it, or name another one in [control]", path)
	}
	if c, err := net.DialTimeout("unix", path, lockPatience); err == nil {
		c.Close()
		return fmt.Errorf("control socket %s: %w: give this one another [control] socket", path, ErrInUse)
	} else if errors.Is(err, unix.EAGAIN) { // its queue is full, so somebody has it
		return fmt.Errorf("control socket %s: %w, or is about to: give this one another [control] socket", path, ErrInUse)
	} else if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("control socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("control socket: remove the stale one: %w", err)
	}
	return nil
}

// open lets the group in, if there is one.
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
		err = os.Chown(s.path, -1, gid)
	}
	if err == nil {
		err = os.Chmod(s.path, 0o660)
	}
	if err != nil {
		log.Warn("only root may use the control socket", zap.String("socket", s.path), zap.Error(err))
	}
}

// watch looks now and then, until ended is closed, whether the socket still has its
// file, and says once that it has not: nobody reaches the daemon then. It is not made
// again, because the daemon has given up the right to make files.
func (s *socket) watch(every time.Duration, ended <-chan struct{}, log *zap.Logger) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		if info, err := os.Lstat(s.path); errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, s.info) {
			log.Error("somebody has removed the control socket: sixfourctl does not reach this daemon until it is restarted; tunnels go on, and SIGHUP reloads", zap.String("socket", s.path))
			return
		}
	}
}

// remove removes the socket's file, unless another has taken its place. By now the
// daemon may have given up the right to read the directory, and with it the lock.
func (s *socket) remove() error {
	if unlock, err := ready(filepath.Dir(s.path)); err == nil {
		defer unlock()
	}
	info, err := os.Lstat(s.path)
	if err != nil || !os.SameFile(info, s.info) {
		return err
	}
	return os.Remove(s.path)
}
