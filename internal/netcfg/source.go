package netcfg

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// From linux/in6.h.
const (
	ipv6AddrPreferences = 72
	preferPublic        = 2
)

// preferPublicSources replaces the source of answers to queries without a Local address:
// if it is a temporary IPv6 address (RFC 8981), stable uses a public one if there is one.
// The tunnel's other end identifies us by this address, so it should not change every few
// hours.
func (r *Router) preferPublicSources(queries []Query, answers []Answer) {
	var temporary map[netip.Addr]bool // nil: not read yet
	for i, q := range queries {
		if q.Local.IsValid() || answers[i].Err != nil || !answers[i].Source.Is6() || answers[i].ToThisHost {
			continue
		}
		if temporary == nil {
			temporary = r.temporary()
		}
		if !temporary[answers[i].Source] {
			continue
		}
		if a, err := publicSource(q, answers[i].Index); err == nil {
			answers[i].Source = a
		}
	}
}

// temporary returns the temporary addresses of this host, or none if the kernel does not
// report them.
func (r *Router) temporary() map[netip.Addr]bool {
	found := make(map[netip.Addr]bool)
	list, err := r.handle.AddrList(nil, unix.AF_INET6)
	if err != nil {
		return found
	}
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && a.Flags&unix.IFA_F_TEMPORARY != 0 {
			found[ip] = true
		}
	}
	return found
}

// publicSource returns the address that the kernel chooses by the rules of RFC 6724
// section 5 for a socket that prefers public addresses to temporary ones (RFC 5014). A
// temporary address is still preferred to a deprecated public one.
func publicSource(q Query, device int) (netip.Addr, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.Addr{}, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, ipv6AddrPreferences, preferPublic); err != nil {
		return netip.Addr{}, os.NewSyscallError("setsockopt IPV6_ADDR_PREFERENCES", err)
	}
	if q.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(q.Mark)); err != nil {
			return netip.Addr{}, os.NewSyscallError("setsockopt SO_MARK", err)
		}
	}
	to := &unix.SockaddrInet6{Addr: q.Remote.As16(), Port: 9} // no packet is sent
	if q.Remote.IsLinkLocalUnicast() {
		to.ZoneId = uint32(device)
	}
	if err := unix.Connect(fd, to); err != nil {
		return netip.Addr{}, os.NewSyscallError("connect", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}, os.NewSyscallError("getsockname", err)
	}
	from, ok := name.(*unix.SockaddrInet6)
	if !ok {
		return netip.Addr{}, fmt.Errorf("a socket for IPv6 has the address %T", name)
	}
	return netip.AddrFrom16(from.Addr), nil
}
