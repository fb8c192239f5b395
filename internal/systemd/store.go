package systemd

import (
	"errors"
	"fmt"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Keeps reports whether the manager may keep descriptors for the process that follows
// this one (FileDescriptorStoreMax= in systemd.service(5)). Before version 254 it does
// not say that it does not: it closes what it is sent then.
func (m Manager) Keeps() bool {
	granted, said := os.LookupEnv("FDSTORE")
	return m.socket != "" && (!said || granted != "0")
}

// Store has the manager keep a copy of a descriptor, under a name of at most 255
// printable ASCII characters without a colon. A restarted process is passed it; when
// the service is stopped for good, or the descriptor hangs up, the copy is closed.
func (m Manager) Store(name string, fd int) error {
	return m.send("FDSTORE=1\nFDNAME="+name, unix.UnixRights(fd))
}

// Remove has the manager close the descriptors of a name.
func (m Manager) Remove(name string) error {
	return m.send("FDSTOREREMOVE=1\nFDNAME="+name, nil)
}

// Passed are the descriptors that the process was started with, by their names, of
// which some may be the same. They are the caller's. A second call returns none.
func Passed() (map[string][]int, error) {
	passed := make(map[string][]int)
	var all error
	for _, f := range activation.Files(true) {
		// A copy: the runtime would go on to watch this one.
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
