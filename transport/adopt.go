package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"sixfour/transport/wait"
)

// ErrOther means that a descriptor does not belong to the expected socket.
var ErrOther = errors.New("the descriptor is of another socket")

// AdoptRaw makes a port from a descriptor that ListenRaw has opened for the same
// address, protocol and shard in another process, which may have ended. Packets that
// wait in it can be received. On success the port owns the descriptor; otherwise the
// caller keeps it, and the error is ErrOther if the descriptor does not fit. AdoptRaw
// does not check the shard.
func AdoptRaw(fd int, local netip.Addr, protocol int, known *Segments) (*RawPort, error) {
	op := fmt.Sprintf("take over raw socket for protocol %d at %v", protocol, local)
	f, err := familyOf(local)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if !f.fits(fd, unix.SOCK_RAW, protocol, local) {
		return nil, fmt.Errorf("%s: %w", op, ErrOther)
	}
	w, err := wait.New(fd)
	if err != nil {
		return nil, explain(op, err)
	}
	return newRawPort(w, f, local, protocol, known), nil
}

// AdoptUDP is AdoptRaw for a descriptor that ListenUDP has opened with the same options.
func AdoptUDP(fd int, local netip.AddrPort, o Options) (*UDPPort, error) {
	op := fmt.Sprintf("take over UDP socket at %v", local)
	f, err := familyOf(local.Addr())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if at, err := boundAt(fd); err != nil || at.Port() != local.Port() || !f.fits(fd, unix.SOCK_DGRAM, unix.IPPROTO_UDP, local.Addr()) {
		return nil, fmt.Errorf("%s: %w", op, ErrOther)
	}
	w, err := wait.New(fd)
	if err != nil {
		return nil, explain(op, err)
	}
	return newUDPPort(w, f, local, o), nil
}

// fits reports whether a socket is of a kind and a protocol, and bound to an address.
func (f *family) fits(fd, kind, protocol int, local netip.Addr) bool {
	for option, want := range map[int]int{unix.SO_DOMAIN: f.domain, unix.SO_TYPE: kind, unix.SO_PROTOCOL: protocol} {
		if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option); err != nil || got != want {
			return false
		}
	}
	at, err := unix.Getsockname(fd)
	return err == nil && boundTo(at, local)
}

// boundTo reports whether a socket address is the local address, on the same interface
// if local has a numeric zone.
func boundTo(sa unix.Sockaddr, local netip.Addr) bool {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr) == local
	case *unix.SockaddrInet6:
		n, err := strconv.ParseUint(local.Zone(), 10, 32)
		return netip.AddrFrom16(a.Addr) == local.WithZone("") && (err != nil || uint32(n) == a.ZoneId)
	}
	return false
}

// Use calls f with the port's descriptor, which stays open until f returns.
func (r *RawPort) Use(f func(fd int) error) error {
	fd, err := r.fd.Acquire()
	if err != nil {
		return net.ErrClosed
	}
	defer r.fd.Release()
	return f(fd)
}
