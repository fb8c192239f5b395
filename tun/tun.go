// Package tun opens the TUN device and moves batches of inner packets in and
// out of it.
package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"
)

// clonePath is where the kernel hands out TUN devices.
const clonePath = "/dev/net/tun"

// WriteRoom is the number of bytes that Write needs in front of each packet:
// the device's own header (struct virtio_net_hdr) is put there.
const WriteRoom = 10

// Errors that callers tell apart.
var (
	ErrBusy = errors.New("another process has the interface open")
	ErrGone = errors.New("the interface was deleted")
	ErrDown = errors.New("the interface is down")
)

// Device is an open TUN interface. It vanishes with its last descriptor, and so
// also when the process is killed.
type Device struct {
	dev  wgtun.Device
	file *os.File // the same descriptor
}

// Open makes the interface, or attaches to one that is there and that no
// process has open, and sets its MTU. It works in the network namespace of the
// calling thread; the Device may then be used from any. The error is ErrBusy if
// another process has the interface open.
func Open(name string, mtu int) (*Device, error) {
	file, err := openQueue(name)
	if err != nil {
		return nil, err
	}
	dev, err := wgtun.CreateTUNFromFile(file, mtu)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("set up %s: %w", name, err)
	}
	return &Device{dev, file}, nil
}

// openQueue is a descriptor for the interface, of packets without link header
// but with the virtio header, by which the kernel leaves segmentation and
// checksums to us and takes coalesced packets back.
func openQueue(name string) (*os.File, error) {
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, explainOpen(err)
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("interface name %q: %w", name, err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return nil, explainAttach(name, err)
	}
	// An interface that outlived its maker was made persistent; once it is
	// ours, it is to go when we go.
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 0); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("ioctl TUNSETPERSIST", err)
	}
	return os.NewFile(uintptr(fd), clonePath), nil
}

func explainOpen(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("open %s: %w: load the tun module (modprobe tun) or create the node (mkdir -p /dev/net && mknod %s c 10 200)", clonePath, err, clonePath)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("open %s: %w: run as root, or let this user read and write %s", clonePath, err, clonePath)
	}
	return fmt.Errorf("open %s: %w", clonePath, err)
}

func explainAttach(name string, err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s: %w", name, ErrBusy)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("make interface %s: %w: run as root, or give the program CAP_NET_ADMIN (setcap cap_net_raw,cap_net_admin+ep)", name, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("make interface %s: %w: an interface of that name exists and is no TUN interface, or the name is not allowed", name, err)
	}
	return fmt.Errorf("make interface %s: %w", name, err)
}

// BatchSize is the number of buffers that Read wants.
func (d *Device) BatchSize() int { return d.dev.BatchSize() }

// Read waits for packets from the kernel and puts each into a buffer of bufs,
// from offset on, and its length into sizes at the same index; it returns how
// many there are. What the kernel hands over as one large packet comes as
// segments of the interface's MTU, with their checksums. One goroutine at a
// time may call it. After Close, or when the interface is deleted, the error is
// ErrGone; after other errors, which each stand for one lost packet, it may be
// called again.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := d.dev.Read(bufs, sizes, offset)
	switch {
	case err == nil, errors.Is(err, wgtun.ErrTooManySegments):
		return n, err
	case d.gone():
		return 0, ErrGone
	}
	return 0, err
}

// gone asks the kernel whether the descriptor still has an interface. The error
// of a Read does not say so reliably: if the poller hears of the deletion first,
// it is one that the runtime keeps to itself.
func (d *Device) gone() bool {
	conn, err := d.file.SyscallConn()
	if err != nil {
		return true
	}
	var gone bool
	err = conn.Control(func(fd uintptr) {
		var ifr unix.Ifreq
		gone = errors.Is(unix.IoctlIfreq(int(fd), unix.TUNGETIFF, &ifr), unix.EBADFD)
	})
	return gone || err != nil // the error is that it was closed
}

// Write hands packets to the kernel: bufs[i][offset:] each. The WriteRoom bytes
// in front of a packet are overwritten, so that offset is at least WriteRoom;
// the packets themselves may be changed too, and extended up to their buffers'
// capacity, because segments of one flow are put together. It returns how many
// packets were refused, and why the last of them was: ErrGone, ErrDown, or the
// kernel's error. One goroutine at a time may call it.
func (d *Device) Write(bufs [][]byte, offset int) (refused int, err error) {
	if len(bufs) == 0 {
		return 0, nil
	}
	_, err = d.dev.Write(bufs, offset)
	if err == nil {
		return 0, nil
	}
	refused = 1
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		refused, err = count(joined.Unwrap())
	}
	return refused, writeError(err)
}

func writeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrClosed), errors.Is(err, syscall.EBADFD):
		return ErrGone
	case errors.Is(err, syscall.EIO):
		return ErrDown
	}
	return err
}

// count adds up errors that were joined one by one, and returns the last.
func count(errs []error) (int, error) {
	n := 0
	var last error
	for _, e := range errs {
		if joined, ok := e.(interface{ Unwrap() []error }); ok {
			m, err := count(joined.Unwrap())
			n, last = n+m, err
			continue
		}
		n, last = n+1, e
	}
	return n, last
}

// Events tells of changes of the interface; it must be read, and is closed by
// Close.
func (d *Device) Events() <-chan wgtun.Event { return d.dev.Events() }

// Close removes the interface and ends a Read that waits.
func (d *Device) Close() error { return d.dev.Close() }
