package e2e

import (
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

func replaceAll(s, from, to string) string { return strings.ReplaceAll(s, from, to) }

// ethtool switches a feature of a device (ethtool.h: struct ethtool_value).
func ethtool(ns *rig.Namespace, dev string, cmd, value uint32) error {
	return ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		arg := [2]uint32{cmd, value}
		var ifr struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(ifr.name[:], dev)
		ifr.data = unsafe.Pointer(&arg)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr))); errno != 0 {
			return os.NewSyscallError("ioctl SIOCETHTOOL", errno)
		}
		return nil
	})
}
