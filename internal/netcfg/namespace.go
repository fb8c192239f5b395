// Package netcfg configures interfaces, addresses and routes in the kernel, and queries
// routes, through netlink.
package netcfg

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// namespaceDir is the directory in which iproute2 keeps named network namespaces.
const namespaceDir = "/run/netns"

// In runs f in a network namespace, given by its iproute2 name or by a path; the empty
// string is the process's own. A namespace belongs to a thread: f runs on a thread of
// its own, which ends afterwards, so that no other goroutine ever runs in the wrong
// namespace. Goroutines that f starts are not in the namespace; descriptors that f opens
// stay in it.
func In(namespace string, f func() error) error {
	return in(namespace, func(NamespaceID) error { return f() })
}

// in is In for a function that needs the identity of its namespace.
func in(namespace string, f func(NamespaceID) error) error {
	if namespace == "" {
		return f(NamespaceID{})
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
			id, err := identify(fd)
			if err == nil {
				err = unix.Setns(fd, unix.CLONE_NEWNET)
			}
			if err != nil {
				return explainNamespace(namespace, err)
			}
			return f(id)
		}()
	}()
	return <-done
}

// NamespacePath returns the file of a namespace, given as for In.
func NamespacePath(namespace string) string {
	if strings.ContainsRune(namespace, '/') {
		return namespace
	}
	return filepath.Join(namespaceDir, namespace)
}

// NamespaceError says that a namespace cannot be entered, and how to fix that.
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
		if process(namespace) != "" {
			hint = "the process does not run: write the number of one that does, or name the namespace (ip netns attach NAME PID)"
		}
	case errors.Is(err, fs.ErrPermission) && process(namespace) != "":
		hint = "the daemon has given up the right to look at other processes: restart it, or name the namespace (ip netns attach NAME PID)"
	case errors.Is(err, unix.EPERM):
		hint = "entering another namespace needs CAP_SYS_ADMIN: run as root, or start the daemon inside it"
	}
	return &NamespaceError{namespace, hint, err}
}
