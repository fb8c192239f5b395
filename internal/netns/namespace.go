// Package netns runs code in other network namespaces (network_namespaces(7)).
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// dir is the directory in which iproute2 keeps named network namespaces.
const dir = "/run/netns"

// In runs f in a network namespace, given by its iproute2 name or by a path; the empty
// string is the process's own. A namespace belongs to a thread: f runs on a thread of
// its own, which ends afterwards, so that no other goroutine ever runs in the wrong
// namespace. Goroutines that f starts are not in the namespace; descriptors that f opens
// stay in it.
func In(namespace string, f func() error) error {
	return Do(namespace, func(ID) error { return f() })
}

// Do is In for a function that needs the identity of its namespace.
func Do(namespace string, f func(ID) error) error {
	if namespace == "" {
		return f(ID{})
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		done <- func() error {
			fd, err := open(namespace)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			id, err := identify(fd)
			if err == nil {
				err = unix.Setns(fd, unix.CLONE_NEWNET)
			}
			if err != nil {
				return explain(namespace, err)
			}
			return f(id)
		}()
	}()
	return <-done
}

// Path returns the file of a namespace, given as for In.
func Path(namespace string) string {
	if strings.ContainsRune(namespace, '/') {
		return namespace
	}
	return filepath.Join(dir, namespace)
}

// Error says that a namespace cannot be entered, and how to fix that.
type Error struct {
	Namespace string
	Hint      string
	Err       error
}

// Error returns the namespace, the error and the hint.
func (e *Error) Error() string {
	return fmt.Sprintf("network namespace %s: %v: %s", e.Namespace, e.Err, e.Hint)
}

// Unwrap returns the error without the namespace and the hint.
func (e *Error) Unwrap() error { return e.Err }

func explain(namespace string, err error) error {
	hint := "check that " + Path(namespace) + " is a network namespace"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = "create it first (ip netns add " + filepath.Base(namespace) + ")"
		if process(namespace) != "" {
			hint = "the process is not running: use the number of a process that is, or give the namespace a name (ip netns attach NAME PID)"
		}
	case errors.Is(err, fs.ErrPermission) && process(namespace) != "":
		hint = "the daemon has dropped the right to inspect other processes: restart it, or give the namespace a name (ip netns attach NAME PID)"
	case errors.Is(err, unix.EPERM):
		hint = "entering another namespace needs CAP_SYS_ADMIN: run as root, or start the daemon inside it"
	}
	return &Error{namespace, hint, err}
}
