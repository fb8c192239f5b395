package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// XDPFilter is a program at a device that takes the packets of given pairs of
// addresses out of what the device receives, and hands them to ports. Everything
// else it passes on untouched: fragments and options, too, are for the kernel.
type XDPFilter struct {
	pairs *ebpf.Map // source and destination address
	ports *ebpf.Map // by the device's receive queue
	prog  *ebpf.Program
	link  link.Link
}

// Limits of an XDPFilter.
const (
	maxXDPPairs  = 1 << 17
	maxXDPQueues = 64
)

// AttachXDP puts a filter at a device, for packets of one IP protocol and up to
// mtu bytes. It goes when it is closed, or with the process.
func AttachXDP(device, mtu int, protocol byte) (*XDPFilter, error) {
	f := new(XDPFilter)
	if err := f.attach(device, mtu, protocol); err != nil {
		f.Close()
		switch {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
			err = fmt.Errorf("%w: run as root, or give the program CAP_BPF", err)
		case errors.Is(err, unix.EBUSY):
			err = fmt.Errorf("%w: the device has an XDP program of somebody else (ip link shows it)", err)
		}
		return nil, fmt.Errorf("attach XDP program: %w", err)
	}
	return f, nil
}

func (f *XDPFilter) attach(device, mtu int, protocol byte) (err error) {
	if f.pairs, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "sixfour_pairs", Type: ebpf.Hash, KeySize: 8, ValueSize: 4, MaxEntries: maxXDPPairs,
		Flags: 1, // BPF_F_NO_PREALLOC: memory only for pairs that there are
	}); err != nil {
		return err
	}
	if f.ports, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "sixfour_ports", Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: maxXDPQueues,
	}); err != nil {
		return err
	}
	if f.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "sixfour", Type: ebpf.XDP, License: "MIT", Instructions: xdpProgram(f.pairs.FD(), f.ports.FD(), mtu, protocol),
	}); err != nil {
		return err
	}
	// In the driver if it can do it, else behind it.
	f.link, err = link.AttachXDP(link.XDPOptions{Program: f.prog, Interface: device, Flags: link.XDPDriverMode})
	if err != nil {
		f.link, err = link.AttachXDP(link.XDPOptions{Program: f.prog, Interface: device, Flags: link.XDPGenericMode})
	}
	return err
}

// xdpProgram is the filter. What it hands over has an IPv4 header without
// options, is no fragment, and is not larger than a frame takes.
func xdpProgram(pairs, ports, mtu int, protocol byte) asm.Instructions {
	const (
		ip      = ethernetLen
		pass    = 2 // XDP_PASS
		fixed   = ethernetLen + header.IPv4Len
		dataEnd = 4  // in struct xdp_md
		queue   = 16 // rx_queue_index
	)
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, dataEnd, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, fixed),
		asm.JGT.Reg(asm.R4, asm.R3, "pass"),

		asm.LoadMem(asm.R5, asm.R2, 12, asm.Half),
		asm.HostTo(asm.BE, asm.R5, asm.Half),
		asm.JNE.Imm(asm.R5, 0x0800, "pass"),
		asm.LoadMem(asm.R5, asm.R2, ip, asm.Byte),
		asm.JNE.Imm(asm.R5, 0x45, "pass"),
		asm.LoadMem(asm.R5, asm.R2, ip+9, asm.Byte),
		asm.JNE.Imm(asm.R5, int32(protocol), "pass"),
		asm.LoadMem(asm.R5, asm.R2, ip+6, asm.Half),
		asm.HostTo(asm.BE, asm.R5, asm.Half),
		asm.And.Imm(asm.R5, header.MF|header.OffsetMask),
		asm.JNE.Imm(asm.R5, 0, "pass"),
		asm.Sub.Reg(asm.R3, asm.R2),
		asm.JGT.Imm(asm.R3, int32(ethernetLen+mtu), "pass"),

		// The pair is the map's key.
		asm.LoadMem(asm.R5, asm.R2, ip+12, asm.Word),
		asm.StoreMem(asm.R10, -8, asm.R5, asm.Word),
		asm.LoadMem(asm.R5, asm.R2, ip+16, asm.Word),
		asm.StoreMem(asm.R10, -4, asm.R5, asm.Word),
		asm.LoadMapPtr(asm.R1, pairs),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, -8),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),

		// A queue without a port passes its packets on, too.
		asm.LoadMapPtr(asm.R1, ports),
		asm.LoadMem(asm.R2, asm.R6, queue, asm.Word),
		asm.Mov.Imm(asm.R3, pass),
		asm.FnRedirectMap.Call(),
		asm.Return(),

		asm.Mov.Imm(asm.R0, pass).WithSymbol("pass"),
		asm.Return(),
	}
}

func pairKey(source, dest netip.Addr) (key [8]byte) {
	s, d := source.As4(), dest.As4()
	copy(key[:], s[:])
	copy(key[4:], d[:])
	return key
}

// Take makes the filter take the packets between two addresses.
func (f *XDPFilter) Take(source, dest netip.Addr) error {
	key := pairKey(source, dest)
	if err := f.pairs.Put(key[:], uint32(1)); err != nil {
		return fmt.Errorf("XDP filter for packets from %v: %w", source, err)
	}
	return nil
}

// Pass undoes Take.
func (f *XDPFilter) Pass(source, dest netip.Addr) {
	key := pairKey(source, dest)
	_ = f.pairs.Delete(key[:]) // that it is not there is as good
}

// Serve hands what one receive queue takes to a port.
func (f *XDPFilter) Serve(queue int, p *XDPPort) error {
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

// Close takes the program away from the device.
func (f *XDPFilter) Close() error {
	var err error
	if f.link != nil {
		err = f.link.Close()
	}
	for _, m := range []*ebpf.Map{f.pairs, f.ports} {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
	}
	if f.prog != nil {
		err = errors.Join(err, f.prog.Close())
	}
	return err
}
