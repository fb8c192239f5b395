package systemd

import (
	"errors"
	"fmt"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Keeps reports whether the service manager may keep descriptors for the next process of
// this service (FileDescriptorStoreMax= in systemd.service(5)). systemd before version
// 254 does not report that: if the store is off, it closes the descriptors that it gets.
func (m Manager) Keeps() bool {
	granted, said := os.LookupEnv("FDSTORE")
	return m.socket != "" && (!said || granted != "0")
}

// Store gives the manager a copy of a descriptor, under a name of at most 255 printable
// ASCII characters without a colon. A restarted process gets it. The manager closes the
// copy when the service is stopped, or when the descriptor hangs up.
func (m Manager) Store(name string, fd int) error {
	return m.send("FDSTORE=1\nFDNAME="+name, unix.UnixRights(fd))
}

// Remove makes the manager close the descriptors with a name.
func (m Manager) Remove(name string) error {
	return m.send("FDSTOREREMOVE=1\nFDNAME="+name, nil)
}

// Passed returns the descriptors that the process was started with, by name; several may
// have the same name. The caller owns them. A second call returns none.
func Passed() (map[string][]int, error) {
	passed := make(map[string][]int)
	var all error
	for _, f := range activation.Files(true) {
		// A copy, because the runtime would keep watching the original.
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		f.Close()
		if err != nil {
			all = errors.Join(all, fmt.Errorf("descriptor %s: %w", f.Name(), err))
			continue
		}
		passed[f.Name()] = append(passed[f.Name()], fd)
	}
	return passed, all
}
