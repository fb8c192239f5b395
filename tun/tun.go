// Package tun opens the TUN device and reads and writes batches of inner packets.
package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"
)

// clonePath is the device node from which TUN devices are opened.
const clonePath = "/dev/net/tun"

// Errors that callers may test for.
var (
	ErrBusy = errors.New("another process has the interface open")
	ErrGone = errors.New("the interface was deleted")
	ErrDown = errors.New("the interface is down")
)

// Device is an open TUN interface. The kernel deletes it when its last descriptor is
// closed, so also when the process is killed.
type Device struct {
	queues  []*Queue
	offload Offload
}

// Settings are the parameters of an interface.
type Settings struct {
	Name    string
	MTU     int
	Queues  int // at least 1; the kernel chooses the queue for each packet
	Offload Offload
}

// Open creates the interface, or attaches to an existing one that no process has open,
// and sets its MTU. It works in the network namespace of the calling thread; the Device
// may then be used from any. The error is ErrBusy if another process has the interface
// open.
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

// flags returns the flags for TUNSETIFF.
func (s *Settings) flags() uint16 {
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if s.Queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	return flags
}

// open makes the device from its first descriptor, which it closes: the queues have
// descriptors of their own.
func (d *Device) open(fd int, s Settings) error {
	// The descriptor stays in blocking mode, so that the runtime's poller does not wake
	// for each packet.
	file := os.NewFile(uintptr(fd), clonePath)
	// An interface that outlived the process that created it was made persistent. Now it
	// must be deleted with our descriptors.
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 0); err != nil {
		file.Close()
		return os.NewSyscallError("ioctl TUNSETPERSIST", err)
	}
	dev, err := wgtun.CreateTUNFromFile(file, s.MTU)
	if err != nil {
		file.Close()
		return err
	}
	// dev is not needed any more. If it stayed open, it would write to the interface
	// every second to detect changes, which netlink reports.
	defer dev.Close()
	if d.offload, err = setOffload(fd, s.Offload); err != nil {
		return err
	}
	return d.queue(fd)
}

// queue adds a queue for a descriptor, which the caller keeps.
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

// Queues returns the interface's queues.
func (d *Device) Queues() []*Queue { return d.queues }

// Offload returns the level that the kernel accepted.
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
		return fmt.Errorf("make interface %s: %w: an interface of that name exists and is not a TUN interface, or the name is not allowed", name, err)
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
