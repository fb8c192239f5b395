// Package ndproxy answers neighbour solicitations on an interface for addresses that are not
// there, but behind this host (RFC 4389 section 4.1.3.3): where a hoster gives a network on the
// link and no route to it. The kernel's own proxy needs an entry for each address, and knows no
// prefixes.
package ndproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/nd"
)

// Proxy answers on one interface.
type Proxy struct {
	name string
	has  func(netip.Addr) bool
	log  *zap.Logger
	file *os.File
	conn interface {
		Read(func(fd uintptr) bool) error
		Control(func(fd uintptr)) error
	}

	link   link
	bucket nd.Bucket
	told   string // the last problem
}

// link is the interface as it is now.
type link struct {
	index    int // 0: there is none
	hardware net.HardwareAddr
	addr     netip.Addr // our link-local address there
}

// perSecond is how many answers are sent in a second. Routers ask again only for neighbours that
// they use.
const perSecond = 2000

// solicitations accepts neighbour solicitations that no router has forwarded, without extension
// headers. A cooked packet begins with its IPv6 header.
var solicitations = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 0, Size: 1},
	bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x60, SkipFalse: 7},
	bpf.LoadAbsolute{Off: 6, Size: 2}, // next header and hop limit
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: header.ICMPv6<<8 | nd.HopLimit, SkipFalse: 5},
	bpf.LoadAbsolute{Off: 40, Size: 2}, // type and code
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: nd.NeighborSolicitation << 8, SkipFalse: 3},
	bpf.LoadExtension{Num: bpf.ExtType},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 1},
	bpf.RetConstant{Val: maxSolicitation},
	bpf.RetConstant{Val: 0},
}

// maxSolicitation is longer than a solicitation with the options that there are.
const maxSolicitation = 256

// Open opens the socket, before the process drops its privileges. The interface need not exist
// yet. Has reports whether an address is behind this host now; it is called by Run only.
func Open(name string, has func(netip.Addr) bool, log *zap.Logger) (*Proxy, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("neighbour discovery proxy: %w", os.NewSyscallError("socket", err))
	}
	p := &Proxy{name: name, has: has, log: log, file: os.NewFile(uintptr(fd), "ndproxy")}
	conn, err := p.file.SyscallConn()
	if err == nil {
		p.conn = conn
		err = restrict(fd)
	}
	if err != nil {
		p.file.Close()
		return nil, fmt.Errorf("neighbour discovery proxy: %w", err)
	}
	return p, nil
}

// restrict makes the socket receive solicitations only, for ever.
func restrict(fd int) error {
	raw, err := bpf.Assemble(solicitations)
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}); err != nil {
		return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", err)
	}
	return os.NewSyscallError("setsockopt SO_LOCK_FILTER", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1))
}

// Close closes the socket.
func (p *Proxy) Close() error { return p.file.Close() }

// lookAgain is how often the interface is looked at.
const lookAgain = 2 * time.Second

// Run answers until ctx ends.
func (p *Proxy) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, maxSolicitation)
	var look time.Time
	for ctx.Err() == nil {
		now := time.Now()
		if !now.Before(look) {
			p.follow()
			look = now.Add(lookAgain)
			if err := p.file.SetReadDeadline(look); err != nil {
				return
			}
			if ctx.Err() != nil {
				return
			}
		}
		n, from, err := p.receive(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil: // such as ENETDOWN: the interface is down
			time.Sleep(10 * time.Millisecond)
		default:
			p.answer(buf[:n], from)
		}
	}
}

// receive waits for a solicitation.
func (p *Proxy) receive(buf []byte) (n int, from *unix.SockaddrLinklayer, err error) {
	var failed error
	err = p.conn.Read(func(fd uintptr) bool {
		var sa unix.Sockaddr
		n, sa, failed = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
		from, _ = sa.(*unix.SockaddrLinklayer)
		return failed != unix.EAGAIN
	})
	if err == nil {
		err = failed
	}
	if err == nil && from == nil {
		err = unix.EINVAL
	}
	return n, from, err
}

// follow binds the socket to the interface when it has changed.
func (p *Proxy) follow() {
	now, err := find(p.name)
	if err == nil && now.index != p.link.index {
		err = p.bind(now.index)
	}
	if err != nil {
		now = link{}
		if err.Error() != p.told {
			p.told = err.Error()
			p.log.Warn("neighbour solicitations are not answered: trying again", zap.String("interface", p.name), zap.Error(err))
		}
	} else if p.told != "" || p.link.index == 0 {
		p.told = ""
		p.log.Info("neighbour solicitations for clients are answered", zap.String("interface", p.name))
	}
	p.link = now
}

// bind makes the socket receive from an interface, also what is sent to the groups of addresses
// that are not there.
func (p *Proxy) bind(index int) error {
	var failed error
	err := p.conn.Control(func(fd uintptr) {
		if failed = unix.Bind(int(fd), &unix.SockaddrLinklayer{Protocol: network(unix.ETH_P_IPV6), Ifindex: index}); failed == nil {
			failed = unix.SetsockoptPacketMreq(int(fd), unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_ALLMULTI})
		}
	})
	if err == nil {
		err = failed
	}
	return err
}

// network returns a number in network byte order.
func network(n uint16) uint16 { return n<<8 | n>>8 }

// find returns the interface with a name.
func find(name string) (l link, err error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return l, err
	}
	addrs, err := i.Addrs()
	if err != nil {
		return l, err
	}
	l = link{index: i.Index, hardware: i.HardwareAddr}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Is6() && ip.IsLinkLocalUnicast() {
				l.addr = ip
			}
		}
	}
	if !l.addr.IsValid() || len(l.hardware) != 6 {
		return link{}, fmt.Errorf("interface %s has no Ethernet address, or no link-local address", name)
	}
	return l, nil
}

// answer answers a solicitation for an address behind this host.
func (p *Proxy) answer(b []byte, from *unix.SockaddrLinklayer) {
	pkt, r := header.Parse(b, 6)
	if r != 0 || from.Ifindex != p.link.index || from.Halen != 6 {
		return
	}
	ip := header.IPv6(pkt)
	m, ok := nd.Parse(ip)
	if !ok || m.Type != nd.NeighborSolicitation || !p.has(m.Target) || !p.bucket.Take(time.Now(), perSecond) {
		return
	}
	// Not overriding: if a host on the link has the address as well, its answer counts.
	reply := nd.Message{Type: nd.NeighborAdvertisement, Target: m.Target, Router: true, Solicited: true, Link: p.link.hardware}
	to, hardware := ip.Src(), from.Addr
	if to.IsUnspecified() { // a host that wants to use the address for itself
		to, hardware = netip.IPv6LinkLocalAllNodes(), [8]byte{0x33, 0x33, 0, 0, 0, 1}
		reply.Solicited = false
	}
	out := nd.Append(nil, p.link.addr, to, &reply)
	_ = p.conn.Control(func(fd uintptr) {
		_ = unix.Sendto(int(fd), out, unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Protocol: network(unix.ETH_P_IPV6), Ifindex: p.link.index, Halen: 6, Addr: hardware})
	})
}
