package tun

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixfour/transport/wait"
)

// Queue is one descriptor of the interface. One goroutine at a time may read,
// and any may write.
type Queue struct {
	fd  *wait.FD
	tso bool // TCP may be written as super-packets
	uso bool // and UDP
}

// MaxRead is how much room Read needs: the largest packet, and the virtio header.
const MaxRead = VirtioLen + maxSuper

// Wait waits until there is a packet to read, or Read has an error to tell. After
// Close the error is ErrGone.
func (q *Queue) Wait() error {
	if _, err := q.fd.Acquire(); err != nil {
		return ErrGone
	}
	defer q.fd.Release()
	if q.fd.Wait(unix.POLLIN) != nil {
		return ErrGone
	}
	return nil
}

// Read reads one packet into b, which should have room for MaxRead bytes, and
// returns its length; ParseSuper says what it is. If there is none now, the error
// is ErrEmpty. After Close, or when the interface is deleted, it is ErrGone;
// after other errors it may be called again.
func (q *Queue) Read(b []byte) (int, error) {
	fd, err := q.fd.Acquire()
	if err != nil {
		return 0, ErrGone
	}
	defer q.fd.Release()
	for {
		n, _, errno := unix.Syscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, ErrEmpty
		case unix.EBADFD, unix.EBADF: // the latter if somebody closed our descriptor
			return 0, ErrGone
		default:
			return 0, os.NewSyscallError("read", errno)
		}
	}
}

// gathers reports whether the kernel takes super-packets of a kind.
func (q *Queue) gathers(kind byte) bool {
	if kind == unix.VIRTIO_NET_HDR_GSO_UDP_L4 {
		return q.uso
	}
	return q.tso
}

// writev writes one packet.
func (q *Queue) writev(iovs []unix.Iovec) error {
	fd, err := q.fd.Acquire()
	if err != nil {
		return ErrGone
	}
	defer q.fd.Release()
	for {
		_, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iovs))), uintptr(len(iovs)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		case unix.EBADFD, unix.EBADF:
			return ErrGone
		case unix.EIO:
			return ErrDown
		default:
			return errno
		}
	}
}

// Offload says which work the kernel leaves to us, and takes from us: the more,
// the fewer system calls.
type Offload int

// Every level holds those before it. Kernels before 6.2 have no OffloadUDP.
const (
	OffloadNone     Offload = iota
	OffloadChecksum         // checksums
	OffloadTCP              // TCP segmentation (TSO)
	OffloadUDP              // UDP segmentation (USO)
)

func (o Offload) String() string {
	return [...]string{"none", "checksum", "checksum, TCP", "checksum, TCP, UDP"}[o]
}

// offloadFlags are the levels as TUNSETOFFLOAD knows them. ECN goes with TCP: we
// know what to do with CWR.
var offloadFlags = [...]int{
	OffloadNone:     0,
	OffloadChecksum: unix.TUN_F_CSUM,
	OffloadTCP:      unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN,
	OffloadUDP:      unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6,
}

// setOffload sets the highest level up to limit that the kernel takes.
func setOffload(fd int, limit Offload) (Offload, error) {
	for o := limit; ; o-- {
		err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadFlags[o])
		if err == nil {
			return o, nil
		}
		if o == OffloadNone {
			return 0, os.NewSyscallError("ioctl TUNSETOFFLOAD", err)
		}
	}
}

// attach opens a descriptor for the interface, which it makes if it is not
// there.
func attach(name string, flags uint16) (int, error) {
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, explainOpen(err)
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("interface name %q: %w", name, err)
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return -1, explainAttach(name, err)
	}
	return fd, nil
}

// duplicate makes a queue of a descriptor that remains the caller's.
func duplicate(fd int) (*wait.FD, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	w, err := wait.New(own)
	if err != nil {
		unix.Close(own)
	}
	return w, err
}

// ErrEmpty means that there is no packet to read now.
var ErrEmpty = errors.New("no packet")
