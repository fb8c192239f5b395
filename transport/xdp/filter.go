package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Filter is an XDP program on a device. It takes received packets with given pairs of
// addresses and IP protocols and delivers them to ports. All other packets pass to the
// kernel unchanged, including fragments and packets with IPv4 options or IPv6 extension
// headers.
type Filter struct {
	pairs4 *ebpf.Map // by key
	pairs6 *ebpf.Map
	ports  *ebpf.Map // by the device's receive queue
	prog   *ebpf.Program
	link   link.Link
}

// Limits of a Filter.
const (
	maxPairs  = 1 << 17
	maxQueues = 64
)

// Attach attaches a filter to a device, for packets of up to mtu bytes. The filter is
// removed by Close, or when the process ends.
func Attach(device, mtu int) (*Filter, error) {
	f := new(Filter)
	if err := f.attach(device, mtu); err != nil {
		f.Close()
		switch {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
			err = fmt.Errorf("%w: run as root, or give the program CAP_BPF", err)
		case errors.Is(err, unix.EBUSY):
			err = fmt.Errorf("%w: the device has the XDP program of another process (ip link shows it)", err)
		}
		return nil, fmt.Errorf("attach XDP program: %w", err)
	}
	return f, nil
}

func (f *Filter) attach(device, mtu int) (err error) {
	if f.pairs4, err = newPairs("sixfour_pairs4", key4Len); err != nil {
		return err
	}
	if f.pairs6, err = newPairs("sixfour_pairs6", key6Len); err != nil {
		return err
	}
	if f.ports, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "sixfour_ports", Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: maxQueues,
	}); err != nil {
		return err
	}
	if f.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "sixfour", Type: ebpf.XDP, License: "MIT", Instructions: program(f.pairs4.FD(), f.pairs6.FD(), f.ports.FD(), mtu),
	}); err != nil {
		return err
	}
	// In the driver if it supports that, otherwise after the driver.
	f.link, err = link.AttachXDP(link.XDPOptions{Program: f.prog, Interface: device, Flags: link.XDPDriverMode})
	if err != nil {
		f.link, err = link.AttachXDP(link.XDPOptions{Program: f.prog, Interface: device, Flags: link.XDPGenericMode})
	}
	return err
}

func newPairs(name string, keySize uint32) (*ebpf.Map, error) {
	return ebpf.NewMap(&ebpf.MapSpec{
		Name: name, Type: ebpf.Hash, KeySize: keySize, ValueSize: 4, MaxEntries: maxPairs,
		Flags: 1, // BPF_F_NO_PREALLOC: allocate memory only for pairs in use
	})
}

// Lengths of the keys of pairs.
const (
	key4Len = 2*4 + 4
	key6Len = 2*16 + 4
)

// key returns a key: both addresses as in a packet, and the protocol in a word of its
// own.
func key(source, dest netip.Addr, protocol byte) []byte {
	key := append(source.AsSlice(), dest.AsSlice()...)
	return binary.NativeEndian.AppendUint32(key, uint32(protocol))
}

// pairs returns the map for the IP version of two addresses.
func (f *Filter) pairs(source, dest netip.Addr) (*ebpf.Map, error) {
	switch {
	case source.Is4() && dest.Is4():
		return f.pairs4, nil
	case source.Is6() && dest.Is6():
		return f.pairs6, nil
	}
	return nil, fmt.Errorf("%v and %v are not of one IP version", source, dest)
}

// Take makes the filter take the packets of an IP protocol from a remote address to a
// local one.
func (f *Filter) Take(remote, local netip.Addr, protocol byte) error {
	pairs, err := f.pairs(remote, local)
	if err == nil {
		err = pairs.Put(key(remote, local, protocol), uint32(1))
	}
	if err != nil {
		return fmt.Errorf("XDP filter for packets from %v: %w", remote, err)
	}
	return nil
}

// Pass undoes Take.
func (f *Filter) Pass(remote, local netip.Addr, protocol byte) {
	if pairs, err := f.pairs(remote, local); err == nil {
		_ = pairs.Delete(key(remote, local, protocol)) // it is no error if there is no such key
	}
}

// Serve delivers the packets that the filter takes on one receive queue to a port.
func (f *Filter) Serve(queue int, p *Port) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var key, value [4]byte
	binary.NativeEndian.PutUint32(key[:], uint32(queue))
	binary.NativeEndian.PutUint32(value[:], uint32(p.fd))
	if err := f.ports.Put(key[:], value[:]); err != nil {
		return fmt.Errorf("XDP filter for queue %d: %w", queue, err)
	}
	return nil
}

// Close removes the program from the device.
func (f *Filter) Close() error {
	var err error
	if f.link != nil {
		err = f.link.Close()
	}
	for _, m := range []*ebpf.Map{f.pairs4, f.pairs6, f.ports} {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
	}
	if f.prog != nil {
		err = errors.Join(err, f.prog.Close())
	}
	return err
}
