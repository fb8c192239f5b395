package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// withConn calls f with a copy of a descriptor, as a connection of package net: with it
// golang.org/x/net sets the options of the socket. The copy is closed afterwards, because
// the runtime's poller watches it (see package wait).
func withConn(fd int, f func(c net.PacketConn) error) error {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	file := os.NewFile(uintptr(own), "")
	defer file.Close()
	c, err := net.FilePacketConn(file)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// refuseAll is a filter that refuses all packets.
var refuseAll = []bpf.Instruction{bpf.RetConstant{Val: 0}}

// setFilter attaches a program that returns how many bytes of a packet to accept.
func (f *family) setFilter(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	return withConn(fd, func(c net.PacketConn) error {
		if f.version == 6 {
			return ipv6.NewPacketConn(c).SetBPF(raw)
		}
		return ipv4.NewPacketConn(c).SetBPF(raw)
	})
}

// filterICMP makes a raw socket receive only some types of ICMP. The kernel does not
// filter types of ICMP for IPv4 from 32 on.
func (f *family) filterICMP(fd int, types []int) error {
	return withConn(fd, func(c net.PacketConn) error {
		if f.version == 6 {
			filter := new(ipv6.ICMPFilter)
			filter.SetAll(true)
			for _, t := range types {
				filter.Accept(ipv6.ICMPType(t))
			}
			return ipv6.NewPacketConn(c).SetICMPFilter(filter)
		}
		filter := new(ipv4.ICMPFilter)
		filter.SetAll(true)
		for _, t := range types {
			filter.Accept(ipv4.ICMPType(t))
		}
		return ipv4.NewPacketConn(c).SetICMPFilter(filter)
	})
}

// describeArrivals makes the kernel pass the fields of the IPv6 header of each packet as
// ancillary data.
func describeArrivals(fd int) error {
	return withConn(fd, func(c net.PacketConn) error {
		return ipv6.NewPacketConn(c).SetControlMessage(ipv6.FlagDst|ipv6.FlagHopLimit|ipv6.FlagTrafficClass, true)
	})
}

// leaveOutLoop keeps multicast that a socket sends from coming back to this host: a
// neighbour that receives its own solicitation would conclude that another node has its
// address (RFC 4862 section 5.4.3).
func leaveOutLoop(fd int) error {
	return withConn(fd, func(c net.PacketConn) error {
		raw, err := ipv4.NewRawConn(c)
		if err != nil {
			return err
		}
		return raw.SetMulticastLoopback(false)
	})
}

// join makes the socket receive packets to an IPv4 group that arrive at an interface,
// and no other packets.
func join(fd int, group netip.Addr, on int) error {
	if !group.Is4() || !group.IsMulticast() || on <= 0 {
		return fmt.Errorf("join %v on interface %d: a group is an IPv4 multicast address, and joined on one interface", group, on)
	}
	err := withConn(fd, func(c net.PacketConn) error {
		return ipv4.NewPacketConn(c).JoinGroup(&net.Interface{Index: on}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(group, 0)))
	})
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("join %v: there is no interface with index %d any more", group, on)
	}
	if err != nil {
		return fmt.Errorf("join %v on interface %d: %w", group, on, err)
	}
	return os.NewSyscallError("setsockopt IP_MULTICAST_ALL", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0))
}
