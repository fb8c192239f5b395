package netcfg

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Device features with which the kernel merges received datagrams (GRO), named as in
// ethtool(8).
const (
	MergesDatagrams = "rx-udp-gro-forwarding"
	MergesLists     = "rx-gro-list"
)

// Features returns, for each of the named features, the devices of the calling thread's
// namespace on which it is on. A feature that a device does not report counts as off.
func Features(names ...string) (map[string][]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("ask for features: %w", err)
	}
	defer unix.Close(fd)
	on := make(map[string][]string)
	var bits map[string]int
	for _, l := range links {
		device := l.Attrs().Name
		if bits == nil { // they are the same for all devices
			bits = featureBits(fd, device)
		}
		active := activeFeatures(fd, device)
		for _, name := range names {
			if bit, ok := bits[name]; ok && bit/32 < len(active) && active[bit/32]>>(bit%32)&1 != 0 {
				on[name] = append(on[name], device)
			}
		}
	}
	return on, nil
}

// Room for features: there are about seventy.
const (
	maxFeatures  = 512
	featureName  = 32 // ETH_GSTRING_LEN of linux/ethtool.h
	featureNames = 4  // ETH_SS_FEATURES
)

// featureBits returns the bit number of each feature (linux/ethtool.h: struct
// ethtool_gstrings).
func featureBits(fd int, device string) map[string]int {
	const head = 12
	b := make([]byte, head+maxFeatures*featureName)
	binary.NativeEndian.PutUint32(b, unix.ETHTOOL_GSTRINGS)
	binary.NativeEndian.PutUint32(b[4:], featureNames)
	if ethtool(fd, device, b) != nil {
		return nil
	}
	bits := make(map[string]int)
	for i := range min(int(binary.NativeEndian.Uint32(b[8:])), maxFeatures) {
		name, _, _ := bytes.Cut(b[head+i*featureName:][:featureName], []byte{0})
		bits[string(name)] = i
	}
	return bits
}

// activeFeatures returns the bits of the features that are on (struct
// ethtool_gfeatures).
func activeFeatures(fd int, device string) (active []uint32) {
	const head, block = 8, 16
	b := make([]byte, head+maxFeatures/32*block)
	binary.NativeEndian.PutUint32(b, unix.ETHTOOL_GFEATURES)
	binary.NativeEndian.PutUint32(b[4:], maxFeatures/32)
	if ethtool(fd, device, b) != nil {
		return nil
	}
	for i := range min(int(binary.NativeEndian.Uint32(b[4:])), maxFeatures/32) {
		active = append(active, binary.NativeEndian.Uint32(b[head+i*block+8:]))
	}
	return active
}

// ethtool makes a request to a device. The answer overwrites the request.
func ethtool(fd int, device string, request []byte) error {
	ifr := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the rest of the union
	}{data: unsafe.Pointer(&request[0])}
	copy(ifr.name[:unix.IFNAMSIZ-1], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr))); errno != 0 {
		return errno
	}
	return nil
}
