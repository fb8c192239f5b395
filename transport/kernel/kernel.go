// Package kernel carries tunnel packets in the kernel, by BPF programs that encapsulate and
// decapsulate them where they pass the devices: at the tunnel's interface, a TUN device, and
// at the device of the outer packets.
//
// The programs carry plain packets only: TCP segments without SYN and UDP datagrams, whole,
// without IP options and extension headers, whose headers depend on nothing but the packet,
// and which fit the path. They let all others pass unchanged, so the process receives them
// by the TUN device and by its sockets as if there were no programs. What they carry they
// check as packages encap and source do, and the bytes that they write are the same.
//
// Nothing outlives the process: the programs are attached by links (TCX, since Linux 6.6),
// which end with the descriptors that hold them.
//
// # What the programs bypass
//
// Outer packets that they send pass no routing rule, IPsec policy and packet filter of this
// host, nor the sockets of the process, only the queueing discipline of the device. Packets
// that they receive pass no packet filter on their outer headers. Captures in the process, its
// counters and the statistics of the interface do not see either: Counts has them. A caller
// uses the programs for a peer only where none of these is needed.
//
// The caller tells a Tunnel at once when a path MTU, an address of the host or the way to a
// peer changes. Segments that the kernel cuts from a super-packet have the identifications 0,
// 1, 2 … in their outer IPv4 headers, with DF; those in the process have 0. The caller calls
// SetSegmented of the peer's encap.Record, so that ICMP errors about them are accepted.
//
// # Checksums
//
// A virtual device such as veth may pass on packets whose inner TCP or UDP checksum is left to
// hardware that there is not. If the programs, or a tunnel of the kernel, send through such a
// device, the receiver must receive in the kernel, too: a process that reads the packets from
// a raw socket sees a wrong checksum. Turning the device's checksum offload off (ethtool -K
// DEV tx off) makes the sender compute it.
package kernel

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/encap/framing"
)

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel,bpfeb -cflags "-O2 -mcpu=v3 -Wall -Wextra -Werror -fdebug-compilation-dir=." programs bpf/kernel.c

// Programs are the programs and their tables in the kernel. Its methods may be called
// concurrently.
type Programs struct {
	objects programsObjects
}

// Load loads the programs. They do nothing until they are attached.
func Load() (*Programs, error) {
	p := new(Programs)
	if err := p.load(); err != nil {
		return nil, fmt.Errorf("load BPF programs: %w", explain(err))
	}
	return p, nil
}

func (p *Programs) load() error {
	// The number of processors is read from a file, and kept: the process may lose the right to
	// read it.
	if _, err := ebpf.PossibleCPU(); err != nil {
		return err
	}
	spec, err := loadPrograms()
	if err != nil {
		return err
	}
	if err := spec.Variables["flow_key"].Set(framing.FlowKey()); err != nil {
		return err
	}
	if err := spec.Variables["secret"].Set(newSecret()); err != nil {
		return err
	}
	return spec.LoadAndAssign(&p.objects, nil)
}

// explain adds to an error what can be done about it.
func explain(err error) error {
	var refused *ebpf.VerifierError
	switch {
	case errors.As(err, &refused): // also EACCES
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: run as root, or give the program CAP_BPF and CAP_NET_ADMIN", err)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w: Linux 6.6 or later is necessary", err)
	}
	return err
}

// Close removes the programs. Links that are still open keep those that they attach.
func (p *Programs) Close() error { return p.objects.Close() }

// Attachment is a program at a device. It ends when it is closed, or when the process ends.
type Attachment struct{ link link.Link }

// Close detaches the program.
func (a *Attachment) Close() error { return a.link.Close() }

// AttachTunnel attaches the program that sends to a tunnel's interface, given by its index,
// in the network namespace of the calling thread. It must be a TUN device.
func (p *Programs) AttachTunnel(device int) (*Attachment, error) {
	return attach(device, "none", p.objects.Send, ebpf.AttachTCXEgress)
}

// AttachDevice attaches the program that receives to a device at which outer packets arrive.
// It must be an Ethernet device.
func (p *Programs) AttachDevice(device int) (*Attachment, error) {
	return attach(device, "ether", p.objects.Receive, ebpf.AttachTCXIngress)
}

// attach attaches a program to a device of a type: each program expects its own link-layer
// header, and would look for the packet elsewhere.
func attach(device int, kind string, program *ebpf.Program, at ebpf.AttachType) (*Attachment, error) {
	d, err := netlink.LinkByIndex(device)
	if err != nil {
		return nil, fmt.Errorf("attach BPF program to the device with index %d: %w", device, err)
	}
	if has := d.Attrs().EncapType; has != kind {
		return nil, fmt.Errorf("attach BPF program to %s: it is a device of type %q, and must be one of type %q", d.Attrs().Name, has, kind)
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: device, Program: program, Attach: at})
	if err != nil {
		return nil, fmt.Errorf("attach BPF program to %s: %w", d.Attrs().Name, explain(err))
	}
	return &Attachment{l}, nil
}

// RouteProgram returns the program for routes into a tunnel whose packets get two layers of
// headers (LWT_BPF_XMIT). Without it, super-packets of such a tunnel are left to the process.
func (p *Programs) RouteProgram() *ebpf.Program { return p.objects.Note }
