package tun

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixfour/transport/wait"
)

// Queue is one descriptor of the interface. Only one goroutine at a time may read; any
// number may write.
type Queue struct {
	fd  *wait.FD
	tso bool // TCP may be written as super-packets
	uso bool // UDP may be written as super-packets
}

// MaxRead is how much room in bytes Read needs: the largest packet and the virtio
// header.
const MaxRead = VirtioLen + maxSuper

// Wait waits until there is a packet to read, or an error that Read will return. After
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

// Read reads one packet into b, which should have room for MaxRead bytes, and returns
// its length. Parse it with ParseSuper. If there is no packet now, the error is
// ErrEmpty. After Close, or when the interface is deleted, it is ErrGone; after other
// errors Read may be called again.
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
		case unix.EBADFD, unix.EBADF: // the latter if our descriptor was closed
			return 0, ErrGone
		default:
			return 0, os.NewSyscallError("read", errno)
		}
	}
}

// gathers reports whether the kernel accepts super-packets of a kind.
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

// Offload says which work the kernel leaves to us and accepts from us. A higher level
// saves more system calls.
type Offload int

// Every level includes the lower ones. Kernels before 6.2 have no OffloadUDP.
const (
	OffloadNone     Offload = iota
	OffloadChecksum         // checksums
	OffloadTCP              // TCP segmentation (TSO)
	OffloadUDP              // UDP segmentation (USO)
)

func (o Offload) String() string {
	return [...]string{"none", "checksum", "checksum, TCP", "checksum, TCP, UDP"}[o]
}

// offloadFlags are the flags of TUNSETOFFLOAD for each level. TCP includes ECN, because
// Segment handles CWR.
var offloadFlags = [...]int{
	OffloadNone:     0,
	OffloadChecksum: unix.TUN_F_CSUM,
	OffloadTCP:      unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN,
	OffloadUDP:      unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6,
}

// setOffload sets the highest level up to limit that the kernel accepts.
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

// attach opens a descriptor for the interface, and creates the interface if it does not
// exist.
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

// duplicate makes a queue from a copy of a descriptor. The caller keeps the descriptor.
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
