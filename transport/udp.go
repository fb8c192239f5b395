package transport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/transport/wait"
)

// udpLen is the length of a UDP header.
const udpLen = 8

// UDPPort is a Port for UDP at one local address and port. It needs no capability. What
// it receives begins after the UDP header, unless Options.Headers is set; Meta.Outer has
// the addresses, TOS and TTL.
//
// The kernel hides ICMP errors from the port, because they would be returned by a send or
// receive call for another destination. It also does not report that a device's queue had
// no room for a packet. As for every UDP socket, it notes path MTUs from ICMP errors for
// other sockets, but does not apply them to the packets of the port.
type UDPPort struct {
	fd      *wait.FD
	family  *family
	local   netip.AddrPort
	options Options
	batch   *batch
	each    []arrival
	zone    zoneName

	mu      sync.Mutex
	senders map[*UDPSender]bool // open ones; nil after Close
}

// ListenUDP opens a port of a shard, in the network namespace of the calling thread. The
// local address need not exist yet; it may be unspecified, and a link-local one needs a
// zone. If the port of local is 0, the kernel chooses one.
//
// The kernel gives each shard the packets of some remote addresses and ports. While there
// are several shards, other programs of the same user may bind to the port, too.
func ListenUDP(local netip.AddrPort, s Shard, o Options) (*UDPPort, error) {
	op := fmt.Sprintf("open UDP socket at %v", local)
	f, err := familyOf(local.Addr())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	own, err := f.open(unix.SOCK_DGRAM, 0, local, o, func(fd int) error { return f.setUpUDP(fd, s, o) })
	if errors.Is(err, unix.EACCES) && local.Port() != 0 { // below net.ipv4.ip_unprivileged_port_start
		return nil, fmt.Errorf("%s: %w: give the program CAP_NET_BIND_SERVICE, or choose a port from 1024", op, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	at, err := boundAt(own)
	if err != nil {
		unix.Close(own)
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	fd, err := wait.New(own)
	if err != nil {
		unix.Close(own)
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return newUDPPort(fd, f, netip.AddrPortFrom(local.Addr(), at.Port()), o), nil
}

func newUDPPort(fd *wait.FD, f *family, local netip.AddrPort, o Options) *UDPPort {
	p := &UDPPort{fd: fd, family: f, local: local, options: o, batch: newBatch(BatchSize), senders: make(map[*UDPSender]bool)}
	p.each = make([]arrival, BatchSize)
	for i := range p.each {
		p.each[i].receive(&p.batch.msgs[i].hdr)
	}
	// Available since Linux 5.0. On older kernels no datagrams are merged.
	_ = p.Use(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) })
	return p
}

func (f *family) setUpUDP(fd int, s Shard, o Options) error {
	if s.Count > 1 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return os.NewSyscallError("setsockopt SO_REUSEPORT", err)
		}
	}
	widen(fd)
	if f.version == 6 {
		return f.setUpUDP6(fd)
	}
	if !o.Fragment {
		// Sets DF, and like the option of all sockets ignores path MTUs.
		if err := unix.SetsockoptInt(fd, f.level, f.mtuDiscover, unix.IP_PMTUDISC_PROBE); err != nil {
			return os.NewSyscallError("setsockopt IP_MTU_DISCOVER", err)
		}
	}
	if o.NoChecksum {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			return os.NewSyscallError("setsockopt SO_NO_CHECK", err)
		}
	}
	if err := unix.SetsockoptInt(fd, f.level, unix.IP_RECVTOS, 1); err != nil {
		return os.NewSyscallError("setsockopt IP_RECVTOS", err)
	}
	err := withConn(fd, func(c net.PacketConn) error {
		return ipv4.NewPacketConn(c).SetControlMessage(ipv4.FlagDst|ipv4.FlagTTL, true)
	})
	if err != nil || !o.Join.IsValid() {
		return err
	}
	// Other programs may receive what is sent to the group, too.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt SO_REUSEADDR", err)
	}
	return join(fd, o.Join, o.JoinOn)
}

// setUpUDP6 also makes packets leave with the flow label that they are given, and arrive
// if their checksum is 0, which tunnels may send (RFC 6935).
func (f *family) setUpUDP6(fd int) error {
	const (
		flowinfoSend = 33  // IPV6_FLOWINFO_SEND of linux/in6.h
		noCheck6Rx   = 102 // UDP_NO_CHECK6_RX of linux/udp.h
	)
	for _, option := range []struct {
		name              string
		level, number, on int
	}{
		{"IPV6_V6ONLY", f.level, unix.IPV6_V6ONLY, 1},
		{"IPV6_AUTOFLOWLABEL", f.level, unix.IPV6_AUTOFLOWLABEL, 0},
		{"IPV6_FLOWINFO_SEND", f.level, flowinfoSend, 1},
		{"UDP_NO_CHECK6_RX", unix.IPPROTO_UDP, noCheck6Rx, 1},
	} {
		if err := unix.SetsockoptInt(fd, option.level, option.number, option.on); err != nil {
			return os.NewSyscallError("setsockopt "+option.name, err)
		}
	}
	return withConn(fd, func(c net.PacketConn) error {
		return ipv6.NewPacketConn(c).SetControlMessage(ipv6.FlagDst|ipv6.FlagHopLimit|ipv6.FlagTrafficClass, true)
	})
}

// boundAt returns the address and port of a socket, without the zone.
func boundAt(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("the socket is of family %T", sa)
}

// Local returns the address and port of the port.
func (p *UDPPort) Local() netip.AddrPort { return p.local }

// Receive implements Receiver.
func (p *UDPPort) Receive(bufs [][]byte, meta []Meta) (int, error) {
	fd, err := p.fd.Acquire()
	if err != nil {
		return 0, net.ErrClosed
	}
	defer p.fd.Release()
	p.batch.fill(bufs, p.front())
	for i := range p.batch.used {
		p.batch.msgs[i].hdr.Namelen = p.family.nameLen()
		p.batch.msgs[i].hdr.SetControllen(controlLen)
	}
	for {
		n, errno := p.batch.receive(fd)
		switch errno {
		case 0:
			for i := range n {
				p.describe(i, bufs[i], &meta[i])
			}
			return n, nil
		case unix.EAGAIN:
			if err := p.fd.Wait(unix.POLLIN); err != nil {
				return 0, closed(err)
			}
		default:
			return 0, os.NewSyscallError("recvmmsg", errno)
		}
	}
}

// describe fills the description of packet i of the batch.
func (p *UDPPort) describe(i int, buf []byte, m *Meta) {
	hdr := &p.batch.msgs[i].hdr
	*m = Meta{Segment: Single}
	if hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || hdr.Namelen != p.family.nameLen() {
		return
	}
	e := &p.each[i]
	from, port := e.sender(p.family, &p.zone)
	at, each, ok := readControl(&m.Outer, e.control[:hdr.Controllen])
	if !ok {
		return
	}
	if at.IsLinkLocalUnicast() && at.Is6() {
		at = at.WithZone(p.local.Addr().Zone())
	}
	m.Outer.From, m.Outer.At = netip.AddrPortFrom(from, port), netip.AddrPortFrom(at, p.local.Port())
	m.Size = int(p.batch.msgs[i].n)
	first := m.Size
	if each > 0 && each < m.Size {
		first, m.Each = each, each
	}
	if p.options.Headers {
		if m.Size += p.headers(); m.Size > len(buf) {
			m.Size, m.Each = 0, 0
			return
		}
		header.PutHeaders(buf[:p.headers()+first], &m.Outer)
	}
}

// sender returns where a packet comes from.
func (a *arrival) sender(f *family, zone *zoneName) (netip.Addr, uint16) {
	port := toNetwork(a.source.Port) // the same in the other direction
	if f.version == 4 {
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&a.source)).Addr), port
	}
	from := netip.AddrFrom16(a.source.Addr)
	if from.IsLinkLocalUnicast() {
		from = from.WithZone(zone.of(a.source.Scope_id))
	}
	return from, port
}

// zoneName remembers the name of the last zone: most packets come from the same one.
type zoneName struct {
	index uint32
	name  string
}

func (z *zoneName) of(index uint32) string {
	if z.name == "" || z.index != index {
		z.index, z.name = index, strconv.FormatUint(uint64(index), 10)
	}
	return z.name
}

// Lost implements Receiver.
func (p *UDPPort) Lost() (n uint32, ok bool) { return lost(p.fd) }

// KernelHeaders implements Port.
func (p *UDPPort) KernelHeaders() int { return p.headers() - p.front() }

// headers returns the length of the headers that the kernel removes and writes.
func (p *UDPPort) headers() int { return p.family.headerLen + udpLen }

// front returns the room that headers need before a received payload.
func (p *UDPPort) front() int {
	if p.options.Headers {
		return p.headers()
	}
	return 0
}

// Streams implements Port.
func (p *UDPPort) Streams() bool { return false }

// Use calls f with the port's descriptor, which stays open until f returns.
func (p *UDPPort) Use(f func(fd int) error) error {
	fd, err := p.fd.Acquire()
	if err != nil {
		return net.ErrClosed
	}
	defer p.fd.Release()
	return f(fd)
}

// StopReceiving ends a Receive that waits, and makes all later ones return net.ErrClosed.
// The port's senders stay open until Close. Packets that arrive are received by another
// process that has a copy of the descriptor.
func (p *UDPPort) StopReceiving() error { return p.fd.Close() }

// Close implements Port. It also closes the port's senders.
func (p *UDPPort) Close() error {
	p.mu.Lock()
	senders := p.senders
	p.senders = nil
	p.mu.Unlock()
	for s := range senders {
		s.close()
	}
	return p.fd.Close()
}
