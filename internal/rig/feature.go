package rig

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Feature turns a device feature that has only a name on or off (linux/ethtool.h:
// ETHTOOL_SFEATURES).
func (n *Namespace) Feature(dev, name string, on bool) error {
	const most, head, length, features = 512, 12, 32, 4 // ETH_GSTRING_LEN, ETH_SS_FEATURES
	names := make([]byte, head+most*length)
	binary.NativeEndian.PutUint32(names, unix.ETHTOOL_GSTRINGS)
	binary.NativeEndian.PutUint32(names[4:], features)
	return n.Do(func() error {
		if err := ethtool(dev, names); err != nil {
			return n.explain("names of features of "+dev, err)
		}
		count := min(int(binary.NativeEndian.Uint32(names[8:])), most)
		for i := range count {
			if is, _, _ := bytes.Cut(names[head+i*length:][:length], []byte{0}); string(is) != name {
				continue
			}
			set := make([]byte, 8+(count+31)/32*8) // for each 32 features: which to change, and their values
			binary.NativeEndian.PutUint32(set, unix.ETHTOOL_SFEATURES)
			binary.NativeEndian.PutUint32(set[4:], uint32(count+31)/32)
			binary.NativeEndian.PutUint32(set[8+i/32*8:], 1<<(i%32))
			if on {
				binary.NativeEndian.PutUint32(set[8+i/32*8+4:], 1<<(i%32))
			}
			if err := ethtool(dev, set); err != nil {
				return n.explain(fmt.Sprintf("switch %s of %s", name, dev), err)
			}
			return nil
		}
		return n.explain("find feature "+name, unix.ENOENT)
	})
}

// ethtool makes a request to a device. The answer overwrites the request.
func ethtool(dev string, request []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var ifr struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(ifr.name[:], dev)
	ifr.data = unsafe.Pointer(&request[0])
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr))); errno != 0 {
		return errno
	}
	return nil
}
