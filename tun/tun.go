// Package tun opens the TUN device and moves batches of inner packets in and
// out of it.
package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"
)

// clonePath is where the kernel hands out TUN devices.
const clonePath = "/dev/net/tun"

// Errors that callers tell apart.
var (
	ErrBusy = errors.New("another process has the interface open")
	ErrGone = errors.New("the interface was deleted")
	ErrDown = errors.New("the interface is down")
)

// Device is an open TUN interface. It vanishes with its last descriptor, and so
// also when the process is killed.
type Device struct {
	queues  []*Queue
	offload Offload
}

// Settings are what an interface is opened with.
type Settings struct {
	Name    string
	MTU     int
	Queues  int // at least 1; how the kernel spreads packets over them is its choice
	Offload Offload
}

// Open makes the interface, or attaches to one that is there and that no
// process has open, and sets its MTU. It works in the network namespace of the
// calling thread; the Device may then be used from any. The error is ErrBusy if
// another process has the interface open.
func Open(s Settings) (*Device, error) {
	flags := s.flags()
	d := new(Device)
	fd, err := attach(s.Name, flags)
	if err != nil {
		return nil, err
	}
	if err := d.open(fd, s); err != nil {
		d.Close()
		return nil, fmt.Errorf("set up %s: %w", s.Name, err)
	}
	for len(d.queues) < s.Queues {
		if err := d.addQueue(s.Name, flags); err != nil {
			d.Close()
			return nil, fmt.Errorf("set up queue %d of %s: %w", len(d.queues), s.Name, err)
		}
	}
	return d, nil
}

// flags are those of TUNSETIFF.
func (s *Settings) flags() uint16 {
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if s.Queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	return flags
}

// open makes the device of its first descriptor, which is closed then: the
// queues have their own.
func (d *Device) open(fd int, s Settings) error {
	// In blocking mode, so that the runtime's poller does not hear of each packet.
	file := os.NewFile(uintptr(fd), clonePath)
	// An interface that outlived its maker was made persistent; once it is
	// ours, it is to go when we go.
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 0); err != nil {
		file.Close()
		return os.NewSyscallError("ioctl TUNSETPERSIST", err)
	}
	dev, err := wgtun.CreateTUNFromFile(file, s.MTU)
	if err != nil {
		file.Close()
		return err
	}
	// It has done its work: to notice changes of the interface it would go on to
	// write to it every second, where netlink tells of them.
	defer dev.Close()
	if d.offload, err = setOffload(fd, s.Offload); err != nil {
		return err
	}
	return d.queue(fd)
}

// queue makes a queue of a descriptor, which remains the caller's.
func (d *Device) queue(fd int) error {
	w, err := duplicate(fd)
	if err != nil {
		return err
	}
	d.queues = append(d.queues, &Queue{fd: w, tso: d.offload >= OffloadTCP, uso: d.offload >= OffloadUDP})
	return nil
}

// addQueue attaches one more descriptor.
func (d *Device) addQueue(name string, flags uint16) error {
	fd, err := attach(name, flags)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return d.queue(fd)
}

// Queues are the interface's queues.
func (d *Device) Queues() []*Queue { return d.queues }

// Offload is the level that the kernel took.
func (d *Device) Offload() Offload { return d.offload }

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

// Close removes the interface and ends every Read that waits.
func (d *Device) Close() error {
	var err error
	for _, q := range d.queues {
		err = errors.Join(err, q.fd.Close())
	}
	return err
}
