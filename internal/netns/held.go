package netns

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ID identifies a namespace, also if a later one has the same name: the kernel
// does not reuse the number while the namespace is in use. The zero value means the
// process's own namespace.
type ID struct{ device, inode uint64 }

// identify returns the identity of the namespace of a descriptor.
func identify(fd int) (ID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ID{}, err
	}
	return ID{uint64(st.Dev), st.Ino}, nil
}

// Identify returns the identity of the namespace that a name or a path, given as for In,
// currently refers to. The error is fs.ErrNotExist if there is none.
func Identify(namespace string) (ID, error) {
	if namespace == "" {
		return ID{}, nil
	}
	if h, ok := held.Load(namespace); ok {
		h := h.(*holding)
		if h.ended() {
			return ID{}, explain(namespace, fs.ErrNotExist)
		}
		return h.id, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(Path(namespace), &st); err != nil {
		return ID{}, explain(namespace, err)
	}
	return ID{uint64(st.Dev), st.Ino}, nil
}

// held maps the names and paths given to In to the namespaces that are held.
var held sync.Map

// holding is a namespace that is kept open.
type holding struct {
	fd      int
	process int // a pidfd of the process in the path; -1: none
	id      ID
}

// Hold opens namespaces and keeps them open for later calls of In. It is for namespaces
// with a path in /proc: a process that has dropped its privileges can no longer open the
// files of other processes. A namespace that cannot be opened does not stop the others:
// the errors are joined.
func Hold(namespaces ...string) error {
	var all error
	for _, namespace := range namespaces {
		h, err := hold(namespace)
		if err != nil {
			all = errors.Join(all, err)
			continue
		}
		if _, there := held.LoadOrStore(namespace, h); there {
			h.close()
		}
	}
	return all
}

func hold(namespace string) (*holding, error) {
	h := &holding{fd: -1, process: -1}
	// The process comes first: if it ends, and another process gets its number meanwhile,
	// the namespace counts as that of a process that has ended.
	if pid, err := strconv.Atoi(process(namespace)); err == nil {
		if h.process, err = unix.PidfdOpen(pid, 0); err != nil && !errors.Is(err, unix.ENOSYS) {
			return nil, explain(namespace, err)
		}
	}
	var err error
	if h.fd, err = open(namespace); err == nil {
		h.id, err = identify(h.fd)
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// process returns the number of the process whose namespace a path in /proc names, or
// "".
func process(namespace string) string {
	rest, ok := strings.CutPrefix(namespace, "/proc/")
	pid, _, more := strings.Cut(rest, "/")
	if _, err := strconv.Atoi(pid); !ok || !more || err != nil {
		return ""
	}
	return pid
}

// ended reports whether the process in the namespace's path has ended. Its pidfd is then
// readable (pidfd_open(2)).
func (h *holding) ended() bool {
	if h.process < 0 {
		return false
	}
	n, err := uninterrupted(func() (int, error) {
		return unix.Poll([]unix.PollFd{{Fd: int32(h.process), Events: unix.POLLIN}}, 0)
	})
	return err == nil && n > 0
}

func (h *holding) close() {
	for _, fd := range []int{h.fd, h.process} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// open returns a descriptor, which the caller must close.
func open(namespace string) (fd int, err error) {
	h, ok := held.Load(namespace)
	switch {
	case ok && h.(*holding).ended():
		err = fs.ErrNotExist
	case ok:
		fd, err = unix.FcntlInt(uintptr(h.(*holding).fd), unix.F_DUPFD_CLOEXEC, 0)
	default:
		// O_NONBLOCK: opening a named pipe instead would block forever.
		fd, err = unix.Open(Path(namespace), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, explain(namespace, err)
	}
	return fd, nil
}

// uninterrupted repeats a system call until no signal interrupts it.
func uninterrupted(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// IDs identifies namespaces, each once.
type IDs map[string]identity

type identity struct {
	id  ID
	err error
}

// Identify returns what the function of the same name returned first for a namespace.
func (s IDs) Identify(namespace string) (ID, error) {
	i, ok := s[namespace]
	if !ok {
		i.id, i.err = Identify(namespace)
		s[namespace] = i
	}
	return i.id, i.err
}
