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
	path := namespace
	if !strings.ContainsRune(path, '/') {
		path = filepath.Join(namespaceDir, namespace)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		done <- func() error {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return explainNamespace(namespace, path, err)
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return explainNamespace(namespace, path, err)
			}
			return f()
		}()
	}()
	return <-done
}

func explainNamespace(namespace, path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("network namespace %s: %s: %w: create it first (ip netns add %s)", namespace, path, err, filepath.Base(namespace))
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("network namespace %s: %w: entering another namespace needs CAP_SYS_ADMIN: run as root, or start the daemon inside it", namespace, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("network namespace %s: %s is not a network namespace", namespace, path)
	}
	return fmt.Errorf("network namespace %s: %w", namespace, err)
}
