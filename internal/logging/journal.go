package logging

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// journalSocket is the socket of systemd-journald for entries.
const journalSocket = "/run/systemd/journal/socket"

// journal is a connection to the journal's socket. It is made before the daemon drops
// its privileges, after which the path may not be accessible.
type journal struct {
	path string
	mu   sync.Mutex
	fd   int // -1: closed
}

func openJournal(path string) (*journal, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	j := &journal{path: path, fd: fd}
	if err := j.connect(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return j, nil
}

func (j *journal) connect() error {
	return unix.Connect(j.fd, &unix.SockaddrUnix{Name: j.path})
}

// send sends an entry, and never blocks: EAGAIN means that the journal has no room for
// it. It reconnects to a journal that was restarted.
func (j *journal) send(entry []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.sendOnce(entry)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		if j.connect() == nil {
			err = j.sendOnce(entry)
		}
	}
	return err
}

func (j *journal) sendOnce(entry []byte) error {
	for {
		_, err := unix.SendmsgN(j.fd, entry, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return err
		}
	}
}

func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	unix.Close(j.fd)
	j.fd = -1
}
