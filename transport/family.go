package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// family holds the socket constants of one IP version.
type family struct {
	version   byte
	domain    int // of socket(2)
	level     int // of the options below
	headerLen int // bytes of a header without options

	freebind, mtuDiscover, recvErr int // names of options
}

var (
	inet4 = family{
		version: 4, domain: unix.AF_INET, level: unix.IPPROTO_IP, headerLen: header.IPv4Len,
		freebind: unix.IP_FREEBIND, mtuDiscover: unix.IP_MTU_DISCOVER, recvErr: unix.IP_RECVERR,
	}
	inet6 = family{
		version: 6, domain: unix.AF_INET6, level: unix.IPPROTO_IPV6, headerLen: header.IPv6Len,
		freebind: unix.IPV6_FREEBIND, mtuDiscover: unix.IPV6_MTU_DISCOVER, recvErr: unix.IPV6_RECVERR,
	}
)

func familyOf(a netip.Addr) (*family, error) {
	switch {
	case a.Is4():
		return &inet4, nil
	case a.Is6() && !a.Is4In6():
		return &inet6, nil
	}
	return nil, fmt.Errorf("%v is neither an IPv4 nor an IPv6 address to send from", a)
}

// open opens a socket of a kind (SOCK_RAW, SOCK_DGRAM) with the common options, calls
// more to set further ones, and binds it to the local address, whose port is 0 for a raw
// socket.
func (f *family) open(kind, protocol int, local netip.AddrPort, o Options, more func(fd int) error) (int, error) {
	fd, err := unix.Socket(f.domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = f.setCommon(fd, o)
	if err == nil {
		err = more(fd)
	}
	if err == nil {
		err = bind(fd, local)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (f *family) setCommon(fd int, o Options) error {
	// The local address may be added later, or be removed for a while.
	if err := unix.SetsockoptInt(fd, f.level, f.freebind, 1); err != nil {
		return os.NewSyscallError("setsockopt FREEBIND", err)
	}
	// Path MTU discovery is left to the tunnel. The kernel would accept every ICMP error
	// about a packet of a receiver's protocol, and refuse or fragment later packets by
	// it; but not every error can be trusted (RFC 5927).
	const byInterface = unix.IP_PMTUDISC_INTERFACE // the same number for IPv6
	if err := unix.SetsockoptInt(fd, f.level, f.mtuDiscover, byInterface); err != nil {
		return os.NewSyscallError("setsockopt MTU_DISCOVER", err)
	}
	if o.Device != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, o.Device); err != nil {
			return os.NewSyscallError("setsockopt SO_BINDTOIFINDEX", err)
		}
	}
	if o.Mark == 0 {
		return nil
	}
	return os.NewSyscallError("setsockopt SO_MARK", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(o.Mark)))
}

func bind(fd int, local netip.AddrPort) error {
	a, port := local.Addr(), int(local.Port())
	if a.Is4() {
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{Addr: a.As4(), Port: port}))
	}
	sa := &unix.SockaddrInet6{Addr: a.As16(), Port: port}
	if a.IsLinkLocalUnicast() {
		var err error
		if sa.ZoneId, err = zone(fd, a); err != nil {
			return err
		}
	}
	return os.NewSyscallError("bind", unix.Bind(fd, sa))
}

// zone returns the interface index of a link-local address, in the socket's namespace.
func zone(fd int, a netip.Addr) (uint32, error) {
	if a.Zone() == "" {
		return 0, fmt.Errorf("the link-local address %v exists once on each interface: write %v%%DEV", a, a)
	}
	if n, err := strconv.ParseUint(a.Zone(), 10, 32); err == nil {
		return uint32(n), nil
	}
	ifr, err := unix.NewIfreq(a.Zone())
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
	}
	if err != nil {
		return 0, fmt.Errorf("the interface of %v: %w", a, err)
	}
	return ifr.Uint32(), nil
}

// begins reports whether b begins with a header of this IP version.
func (f *family) begins(b []byte) bool {
	return len(b) >= f.headerLen && b[0]>>4 == f.version
}

// dest returns the destination address of a packet for which f.begins is true.
func (f *family) dest(pkt []byte) []byte {
	if f.version == 4 {
		return header.IPv4(pkt).Dest()
	}
	return header.IPv6(pkt).Dest()
}

// name is a struct sockaddr_in or sockaddr_in6 for msghdr.
type name struct{ unix.RawSockaddrInet6 }

// newName returns a name without the address. Port 0 means the socket's protocol.
func (f *family) newName() (n name) {
	n.Family = uint16(f.domain) // at the same offset in both
	return n
}

func (f *family) nameLen() uint32 {
	if f.version == 4 {
		return unix.SizeofSockaddrInet4
	}
	return unix.SizeofSockaddrInet6
}

// setDest copies the destination address of a packet, for which f.begins is true, to n.
func (f *family) setDest(n *name, pkt []byte) {
	if f.version == 4 {
		copy((*unix.RawSockaddrInet4)(unsafe.Pointer(n)).Addr[:], f.dest(pkt))
	} else {
		copy(n.Addr[:], f.dest(pkt))
	}
}

// explain adds advice to an error from opening a socket.
func explain(op string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%s: %w: run as root, or give the program CAP_NET_RAW and CAP_NET_ADMIN (setcap cap_net_raw,cap_net_admin+ep)", op, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// closed converts the error for a closed descriptor to net.ErrClosed.
func closed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return net.ErrClosed
	}
	return err
}
