package transport

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// ICMPSender sends ICMP messages like the kernel's own: from the source address that the
// kernel chooses for the destination.
type ICMPSender struct {
	fd      int
	version int
}

// errorTOS is the precedence with which routers send errors about IPv4 packets (RFC 1812
// section 4.3.2.5: internetwork control).
const errorTOS = 0xc0

// hopLimit is the TTL or hop limit of messages.
const hopLimit = 64

// OpenICMP opens a sender for an IP version, in the network namespace of the calling
// thread. The sender may be used concurrently, from any namespace.
func OpenICMP(version int) (*ICMPSender, error) {
	s := &ICMPSender{version: version}
	var err error
	if version == 4 {
		s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
	} else {
		s.fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMPV6)
	}
	op := fmt.Sprintf("open raw socket for ICMP over IPv%d", version)
	if err != nil {
		return nil, explain(op, err)
	}
	if err := s.setUp(); err != nil {
		unix.Close(s.fd)
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return s, nil
}

// setUp makes messages leave like those of the kernel, and refuses all received packets.
func (s *ICMPSender) setUp() error {
	if s.version == 6 {
		return errors.Join(
			filterICMP(s.fd, 6, []int{}),
			os.NewSyscallError("setsockopt IPV6_UNICAST_HOPS", unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hopLimit)))
	}
	return errors.Join(
		filterICMP(s.fd, 4, []int{}),
		os.NewSyscallError("setsockopt IP_TOS", unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_TOS, errorTOS)),
		os.NewSyscallError("setsockopt IP_TTL", unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_TTL, hopLimit)),
		os.NewSyscallError("setsockopt IP_MTU_DISCOVER", unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)))
}

// filterICMP makes a raw socket receive only some types of ICMP. The kernel does not
// filter types of ICMP for IPv4 from 32 on.
func filterICMP(fd int, version byte, types []int) error {
	if version == 6 {
		refused := unix.ICMPv6Filter{Data: [8]uint32{allOnes, allOnes, allOnes, allOnes, allOnes, allOnes, allOnes, allOnes}}
		for _, t := range types {
			refused.Data[t/32%8] &^= 1 << (t % 32)
		}
		return os.NewSyscallError("setsockopt ICMP6_FILTER", unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &refused))
	}
	const icmpFilter = 1 // ICMP_FILTER of linux/icmp.h, at the level SOL_RAW
	refused := uint32(allOnes)
	for _, t := range types {
		refused &^= 1 << t
	}
	return os.NewSyscallError("setsockopt ICMP_FILTER", unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, int(int32(refused))))
}

const allOnes = 1<<32 - 1

// Send sends a message. The kernel computes the checksum of ICMPv6. iface is the
// interface of a link-local destination, and is ignored otherwise.
func (s *ICMPSender) Send(to netip.Addr, iface int, msg []byte) error {
	var sa unix.Sockaddr
	if s.version == 4 {
		sa = &unix.SockaddrInet4{Addr: to.As4()}
	} else {
		a := &unix.SockaddrInet6{Addr: to.As16()}
		if to.IsLinkLocalUnicast() {
			a.ZoneId = uint32(iface)
		}
		sa = a
	}
	return os.NewSyscallError("sendto", unix.Sendto(s.fd, msg, unix.MSG_DONTWAIT, sa))
}

// Close must not be called during Send.
func (s *ICMPSender) Close() error { return os.NewSyscallError("close", unix.Close(s.fd)) }
