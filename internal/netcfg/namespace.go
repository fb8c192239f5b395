// Package netcfg puts interfaces, addresses and routes into the kernel, and
// asks it for routes, through netlink.
package netcfg

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// namespaceDir is where iproute2 keeps named network namespaces.
const namespaceDir = "/run/netns"

// In runs f in a network namespace, given by its iproute2 name or by a path;
// the empty string is the process's own. A namespace belongs to a thread: f
// runs on one of its own, which is thrown away afterwards, so that no other
// goroutine ever finds itself in the wrong namespace. Goroutines that f starts
// are not in it; descriptors that f opens stay there.
func In(namespace string, f func() error) error {
	if namespace == "" {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		done <- func() error {
			fd, err := openNamespace(namespace)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return explainNamespace(namespace, err)
			}
			return f()
		}()
	}()
	return <-done
}

// NamespacePath is the file of a namespace that is given as In takes it.
func NamespacePath(namespace string) string {
	if strings.ContainsRune(namespace, '/') {
		return namespace
	}
	return filepath.Join(namespaceDir, namespace)
}

// held are descriptors of namespaces, by what In is given.
var held sync.Map

// Hold opens namespaces for every later In. It is for those that are known by a
// path below /proc: a process that has restricted itself can no longer look at
// others, and so not open it again.
func Hold(namespaces ...string) error {
	for _, namespace := range namespaces {
		fd, err := openNamespace(namespace)
		if err != nil {
			return err
		}
		if _, there := held.LoadOrStore(namespace, fd); there {
			unix.Close(fd)
		}
	}
	return nil
}

// openNamespace is a descriptor for the caller.
func openNamespace(namespace string) (fd int, err error) {
	if h, ok := held.Load(namespace); ok {
		fd, err = unix.FcntlInt(uintptr(h.(int)), unix.F_DUPFD_CLOEXEC, 0)
	} else {
		// A named pipe in its place would be waited for without an end.
		fd, err = unix.Open(NamespacePath(namespace), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, explainNamespace(namespace, err)
	}
	return fd, nil
}

// NamespaceError says that a namespace cannot be entered, and the way out.
type NamespaceError struct {
	Namespace string
	Hint      string
	Err       error
}

func (e *NamespaceError) Error() string {
	return fmt.Sprintf("network namespace %s: %v: %s", e.Namespace, e.Err, e.Hint)
}

func (e *NamespaceError) Unwrap() error { return e.Err }

func explainNamespace(namespace string, err error) error {
	hint := "check that " + NamespacePath(namespace) + " is a network namespace"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = "create it first (ip netns add " + filepath.Base(namespace) + ")"
	case errors.Is(err, unix.EPERM):
		hint = "entering another namespace needs CAP_SYS_ADMIN: run as root, or start the daemon inside it"
	}
	return &NamespaceError{namespace, hint, err}
}
