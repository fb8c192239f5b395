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
			inet6.filterICMP(s.fd, []int{}),
			os.NewSyscallError("setsockopt IPV6_UNICAST_HOPS", unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hopLimit)))
	}
	return errors.Join(
		inet4.filterICMP(s.fd, []int{}),
		os.NewSyscallError("setsockopt IP_TOS", unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_TOS, errorTOS)),
		os.NewSyscallError("setsockopt IP_TTL", unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_TTL, hopLimit)),
		os.NewSyscallError("setsockopt IP_MTU_DISCOVER", unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)))
}

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
