package tun

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrOther means that descriptors do not belong to the expected interface.
var ErrOther = errors.New("the descriptors are of another interface")

// Adopt makes a Device from the descriptors of all queues of an interface, which another
// process has opened in the same way as Open. That process may have ended. Packets that
// wait in the queues can be read. Adopt works in the network namespace of the calling
// thread, where the interface must be. It does not change the MTU. The caller keeps the
// descriptors and must close them. The error is ErrOther if they do not fit.
func Adopt(fds []int, s Settings) (*Device, error) {
	if len(fds) != s.Queues {
		return nil, fmt.Errorf("%s: %d queues of %d: %w", s.Name, len(fds), s.Queues, ErrOther)
	}
	d := new(Device)
	for _, fd := range fds {
		err := fits(fd, s)
		if err == nil && len(d.queues) == 0 {
			d.offload, err = setOffload(fd, s.Offload)
		}
		if err == nil {
			err = d.queue(fd)
		}
		if err != nil {
			d.Close()
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return d, nil
}

// fits returns an error if a descriptor is not a queue of an interface with these
// settings, in the namespace of the calling thread.
func fits(fd int, s Settings) error {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return fmt.Errorf("ioctl TUNGETIFF: %w: %w", err, ErrOther)
	}
	const shape = unix.IFF_TUN | unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE
	if ifr.Name() != s.Name || ifr.Uint16()&shape != s.flags() {
		return ErrOther
	}
	return isHere(fd)
}

// isHere returns an error if an interface is not in the namespace of the calling thread.
func isHere(fd int) error {
	its, err := namespaceOf(fd, unix.TUNGETDEVNETNS)
	if err != nil {
		return err
	}
	own, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(own)
	ours, err := namespaceOf(own, unix.SIOCGSKNS)
	if err == nil && its != ours {
		err = ErrOther
	}
	return err
}

// namespace identifies a network namespace.
type namespace struct{ device, inode uint64 }

// namespaceOf returns the namespace of a TUN device or of a socket.
func namespaceOf(fd int, request uintptr) (n namespace, err error) {
	ns, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, 0)
	if errno != 0 {
		return n, fmt.Errorf("get the network namespace: %w", errno)
	}
	defer unix.Close(int(ns))
	var st unix.Stat_t
	if err := unix.Fstat(int(ns), &st); err != nil {
		return n, os.NewSyscallError("fstat", err)
	}
	return namespace{st.Dev, st.Ino}, nil
}

// Use calls f with the queue's descriptor, which stays open until f returns.
func (q *Queue) Use(f func(fd int) error) error {
	fd, err := q.fd.Acquire()
	if err != nil {
		return ErrGone
	}
	defer q.fd.Release()
	return f(fd)
}

// Is reports whether a descriptor is a queue of the interface with the given name, in
// the network namespace of the calling thread.
func Is(fd int, name string) bool {
	ifr, err := unix.NewIfreq("")
	return err == nil && unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr) == nil && ifr.Name() == name && isHere(fd) == nil
}
