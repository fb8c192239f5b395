package netcfg

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// NamespaceID tells a namespace from one that was made later and has the same name:
// the kernel gives no other one this number as long as anything is in it. The zero
// value is that of the process's own namespace.
type NamespaceID struct{ device, inode uint64 }

// identify is the identity of the namespace that a descriptor is of.
func identify(fd int) (NamespaceID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return NamespaceID{}, err
	}
	return NamespaceID{uint64(st.Dev), st.Ino}, nil
}

// Identify is the identity of the namespace that a name or a path, as In takes it,
// leads to now. The error is fs.ErrNotExist if there is none.
func Identify(namespace string) (NamespaceID, error) {
	if namespace == "" {
		return NamespaceID{}, nil
	}
	if h, ok := held.Load(namespace); ok {
		h := h.(*holding)
		if h.ended() {
			return NamespaceID{}, explainNamespace(namespace, fs.ErrNotExist)
		}
		return h.id, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(NamespacePath(namespace), &st); err != nil {
		return NamespaceID{}, explainNamespace(namespace, err)
	}
	return NamespaceID{uint64(st.Dev), st.Ino}, nil
}

// held has the namespaces that are held, by what In is given.
var held sync.Map

// holding is a namespace that stays open.
type holding struct {
	fd      int
	process int // a pidfd of the process in the path; -1: there is none
	id      NamespaceID
}

// Hold opens namespaces for every later In. It is for those that are known by a path
// below /proc: a process that has restricted itself can no longer look at others, and
// so not open it again. A namespace that cannot be opened does not hinder the others:
// the error has all of them.
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
	// The process first: should it end, and another one get its number meanwhile, the
	// namespace is that of a process that has ended.
	if pid, err := strconv.Atoi(process(namespace)); err == nil {
		if h.process, err = unix.PidfdOpen(pid, 0); err != nil && !errors.Is(err, unix.ENOSYS) {
			return nil, explainNamespace(namespace, err)
		}
	}
	var err error
	if h.fd, err = openNamespace(namespace); err == nil {
		h.id, err = identify(h.fd)
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// process is the number of the process whose namespace a path below /proc names, or "".
func process(namespace string) string {
	rest, ok := strings.CutPrefix(namespace, "/proc/")
	pid, _, more := strings.Cut(rest, "/")
	if _, err := strconv.Atoi(pid); !ok || !more || err != nil {
		return ""
	}
	return pid
}

// ended reports whether the process is no more by which the namespace is known. Its
// descriptor is readable then (pidfd_open(2)).
func (h *holding) ended() bool {
	if h.process < 0 {
		return false
	}
	n, err := again(func() (int, error) {
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

// openNamespace is a descriptor for the caller.
func openNamespace(namespace string) (fd int, err error) {
	h, ok := held.Load(namespace)
	switch {
	case ok && h.(*holding).ended():
		err = fs.ErrNotExist
	case ok:
		fd, err = unix.FcntlInt(uintptr(h.(*holding).fd), unix.F_DUPFD_CLOEXEC, 0)
	default:
		// A named pipe in its place would be waited for without an end.
		fd, err = unix.Open(NamespacePath(namespace), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, explainNamespace(namespace, err)
	}
	return fd, nil
}
