package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/transport/wait"
)

// UDPSender sends through a UDPPort. It takes whole packets, with an IP header without
// options or extension headers and a UDP header, and sends what follows: to the
// destination and port, and with the TOS, TTL and flow label in these headers. The kernel
// writes the identification, the lengths and the checksums, and DF as the port's options
// say; of the UDP checksum in a packet it only matters whether it is 0. The source must be
// the port's; the source address counts if that of the port is unspecified.
//
// Packets that follow each other and differ only in what the kernel writes leave in groups,
// which the kernel or the device separates (UDP_SEGMENT in udp(7)).
//
// Packets that a UDP socket cannot send leave whole through a raw socket, if the process
// may open one: IPv4 fragments, IPv4 packets with another DF bit than the port's or with
// the UDP checksum 0 (none), packets from another UDP port, as framings with a port for
// each flow make them, and packets of other protocols, such as ICMP from the address
// of the port, or with an IPv6 extension header. Without a raw socket, the port's DF bit
// and Options.NoChecksum count, and the others are refused.
//
// While any program of the network namespace has the exclusive use of a flow label
// (IPV6_FLOWLABEL_MGR in linux/in6.h), the kernel refuses all other flow labels. Packets
// then leave with the flow label 0.
type UDPSender struct {
	port     *UDPPort
	fd       *wait.FD // a copy of the port's descriptor
	batch    *batch
	names    []name
	controls []udpControl
	refused  error
	raw      *RawSender // nil: not permitted
	groups   groups
	plain    atomic.Int32 // how many more batches leave without flow labels, because the kernel refuses them
}

// plainBatches is how many batches leave without flow labels before the next one tries
// whether the kernel takes them again.
const plainBatches = 1000

var (
	_ Port   = (*UDPPort)(nil)
	_ Port   = (*RawPort)(nil)
	_ Sender = (*UDPSender)(nil)
)

// Sender implements Port. Mark and device must be those of the port. Send refuses a
// packet that is not as UDPSender says with an error that wraps EINVAL, and one larger
// than the device's MTU with EMSGSIZE.
func (p *UDPPort) Sender(o Options) (Sender, error) {
	if o.Mark != p.options.Mark || o.Device != p.options.Device {
		return nil, fmt.Errorf("send from %v with mark %d and device %d: its socket has mark %d and device %d", p.local, o.Mark, o.Device, p.options.Mark, p.options.Device)
	}
	fd, err := p.copy()
	if err != nil {
		return nil, fmt.Errorf("send from %v: %w", p.local, err)
	}
	var none bool
	if err := p.Use(func(fd int) error { none = !takesGroups(fd); return nil }); err != nil {
		fd.Close()
		return nil, err
	}
	s := &UDPSender{
		port: p, fd: fd, batch: newBatch(BatchSize), names: make([]name, BatchSize), controls: make([]udpControl, BatchSize),
		groups:  groups{none: none},
		refused: fmt.Errorf("send from %v: the bytes do not begin with the headers of a UDP packet over IPv%d from this port: %w", p.local, p.family.version, unix.EINVAL),
	}
	for i := range s.names {
		hdr := &s.batch.msgs[i].hdr
		s.names[i] = p.family.newName()
		hdr.Name = (*byte)(unsafe.Pointer(&s.names[i]))
		hdr.Namelen = p.family.nameLen()
		s.controls[i].setUp(p)
	}
	if s.raw, err = DialRaw(p.local.Addr(), header.UDP, o); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		fd.Close()
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.senders == nil {
		return nil, errors.Join(net.ErrClosed, s.close())
	}
	p.senders[s] = true
	return s, nil
}

// copy returns a copy of the port's descriptor.
func (p *UDPPort) copy() (fd *wait.FD, err error) {
	err = p.Use(func(own int) error {
		of, err := unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
		}
		if fd, err = wait.New(of); err != nil {
			unix.Close(of)
		}
		return err
	})
	return fd, err
}

// takes reports whether a packet begins with headers that the port can send.
func (p *UDPPort) takes(head []byte) bool {
	return p.family.isUDP(head) && binary.BigEndian.Uint16(head[p.family.headerLen:]) == p.local.Port()
}

// isUDP reports whether a packet begins with an IP header without options or extension
// headers and a UDP header, of any source port.
func (f *family) isUDP(head []byte) bool {
	if len(head) < f.headerLen+udpLen {
		return false
	}
	if f.version == 4 {
		return head[0] == 0x45 && header.IPv4(head).Protocol() == header.UDP && !isFragment(head)
	}
	return head[0]>>4 == 6 && head[6] == header.UDP
}

// takes reports whether a packet leaves through the UDP socket.
func (s *UDPSender) takes(head []byte) bool {
	return s.port.takes(head) && (s.raw == nil || s.port.family.version == 6 || !s.otherDF(head) && !s.lacksChecksum(head))
}

// otherDF reports whether an IPv4 packet has another DF bit than the port's.
func (s *UDPSender) otherDF(head []byte) bool {
	return head[6]&(header.DF>>8) == 0 != s.port.options.Fragment
}

// lacksChecksum reports whether a UDP packet over IPv4 has no checksum, which the socket
// would write.
func (s *UDPSender) lacksChecksum(head []byte) bool {
	return binary.BigEndian.Uint16(head[header.IPv4Len+6:]) == 0 && !s.port.options.NoChecksum
}

// leavesRaw reports whether a packet is of those for the raw socket.
func (s *UDPSender) leavesRaw(head []byte) bool {
	f := s.port.family
	switch {
	case s.raw == nil || !f.begins(head):
		return false
	case f.version == 4:
		return header.IPv4(head).Protocol() != header.UDP || isFragment(head) || f.isUDP(head)
	}
	return head[6] != header.UDP || f.isUDP(head)
}

// sum writes the UDP checksum of a packet for the raw socket, if it has one and begins with
// all of its headers.
func (f *family) sum(head, body []byte) {
	if f.isUDP(head) {
		header.WriteUDPChecksum(head, body)
	}
}

// isFragment reports whether an IPv4 packet is a fragment.
func isFragment(head []byte) bool {
	return binary.BigEndian.Uint16(head[6:])&(header.MF|header.OffsetMask) != 0
}

// address sets the destination, and those bits of the flow label that are in mask.
func (p *UDPPort) address(n *name, head []byte, mask uint32) {
	p.family.setDest(n, head)
	n.Port = binary.NativeEndian.Uint16(head[p.family.headerLen+2:])
	if p.family.version == 6 {
		flow := n.flowinfo()
		binary.BigEndian.PutUint32(flow[:], binary.BigEndian.Uint32(head)&mask)
	}
}

// labels returns the mask of the flow labels of a batch: 0 if it leaves without.
func (s *UDPSender) labels() uint32 {
	if n := s.plain.Load(); n > 0 {
		s.plain.CompareAndSwap(n, n-1) // SendOne may be concurrent
		return 0
	}
	return header.FlowLabelMask
}

// leaveOutLabels makes the next batches leave without flow labels, after an error for a
// packet. It returns false if the error cannot come from the packet's flow label, or if
// flow labels are left out already.
func (s *UDPSender) leaveOutLabels(head []byte, err error) bool {
	if s.port.family.version != 6 || !errors.Is(err, unix.EINVAL) || !s.takes(head) || binary.BigEndian.Uint32(head)&header.FlowLabelMask == 0 {
		return false
	}
	return s.plain.CompareAndSwap(0, plainBatches)
}

// flowinfo returns the bytes of sin6_flowinfo, which are in network byte order.
func (n *name) flowinfo() *[4]byte { return (*[4]byte)(unsafe.Pointer(&n.Flowinfo)) }

// Send implements Sender.
func (s *UDPSender) Send(pkts []Packet) (int, error) {
	sent := 0
	for {
		n, err := sendAll(s.fd, s.batch, s, pkts[sent:], s.refused)
		sent += n
		s.groups.sent(n)
		if err != nil && s.groups.split(s.batch.failed, err) {
			continue
		}
		if err != nil && sent < len(pkts) && s.leaveOutLabels(pkts[sent].Head, err) {
			continue
		}
		if err != s.refused || !s.leavesRaw(pkts[sent].Head) { //nolint:errorlint // it is this very error
			return sent, err
		}
		run := 1
		for _, next := range pkts[sent+1:] {
			if s.takes(next.Head) || !s.leavesRaw(next.Head) {
				break
			}
			run++
		}
		for i := range pkts[sent : sent+run] {
			s.port.family.sum(pkts[sent+i].Head, pkts[sent+i].Body)
		}
		n, err = s.raw.Send(pkts[sent : sent+run])
		sent += n
		if err != nil || sent == len(pkts) {
			return sent, err
		}
	}
}

// fill implements filler.
func (s *UDPSender) fill(pkts []Packet) {
	s.batch.empty()
	p, labels, alone := s.port, s.labels(), s.groups.begin()
	pkts = pkts[:min(len(pkts), len(s.names))]
	for len(pkts) > 0 {
		head := pkts[0].Head
		if !s.takes(head) {
			return
		}
		i, n := s.batch.used, 1
		if alone <= 0 {
			n = p.group(pkts)
		}
		alone -= n
		p.address(&s.names[i], head, labels)
		s.controls[i].set(p, head)
		s.controls[i].use(&s.batch.msgs[i].hdr, p, n, pkts[0].Len()-p.headers())
		s.batch.start()
		for range n {
			s.batch.add(&pkts[0], p.headers())
			pkts = pkts[1:]
		}
	}
}

// SendOne implements Sender.
func (s *UDPSender) SendOne(pkt []byte) error {
	fd, err := s.fd.Acquire()
	if err != nil {
		return net.ErrClosed
	}
	defer s.fd.Release()
	p := s.port
	if !s.takes(pkt) {
		if s.leavesRaw(pkt) {
			s.port.family.sum(pkt, nil)
			return s.raw.SendOne(pkt)
		}
		return s.refused
	}
	to := p.family.newName()
	p.address(&to, pkt, s.labels())
	var c udpControl
	c.setUp(p)
	c.set(p, pkt)
	control := control{c.bytes()[segmentLen:c.end(p)]}
	err = p.family.sendOne(fd, pkt[p.headers():], &to, &control)
	if err != nil && s.leaveOutLabels(pkt, err) {
		p.address(&to, pkt, 0)
		err = p.family.sendOne(fd, pkt[p.headers():], &to, &control)
	}
	return err
}

// Close implements Sender.
func (s *UDPSender) Close() error {
	s.port.mu.Lock()
	delete(s.port.senders, s)
	s.port.mu.Unlock()
	return s.close()
}

func (s *UDPSender) close() error {
	err := s.fd.Close()
	if s.raw != nil {
		err = errors.Join(err, s.raw.Close())
	}
	return err
}

// udpControl is the memory for the ancillary data of a message to send: the size of the
// packets of a group, TOS, TTL and, for a port at an unspecified address, the source, each
// with a header (cmsg(3)).
type udpControl [14]uint64

// Offsets of the messages. The last one is the largest, for IPv6.
var segmentLen, tosAt, ttlAt, sourceAt = unix.CmsgSpace(2), unix.CmsgSpace(2), unix.CmsgSpace(2) + unix.CmsgSpace(4), unix.CmsgSpace(2) + 2*unix.CmsgSpace(4)

func (c *udpControl) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(c)), unsafe.Sizeof(*c))
}

// setUp writes the headers of the messages.
func (c *udpControl) setUp(p *UDPPort) {
	tos, ttl, source, size := unix.IP_TOS, unix.IP_TTL, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo
	if p.family.version == 6 {
		tos, ttl, source, size = unix.IPV6_TCLASS, unix.IPV6_HOPLIMIT, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo
	}
	b := c.bytes()
	message := func(at, level, kind, size int) {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
		h.Level, h.Type = int32(level), int32(kind)
		h.SetLen(unix.CmsgLen(size))
	}
	message(0, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
	message(tosAt, p.family.level, tos, 4)
	message(ttlAt, p.family.level, ttl, 4)
	message(sourceAt, p.family.level, source, size)
}

// end returns the length of the messages.
func (c *udpControl) end(p *UDPPort) int {
	switch {
	case !p.local.Addr().IsUnspecified():
		return sourceAt
	case p.family.version == 4:
		return sourceAt + unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	}
	return sourceAt + unix.CmsgSpace(unix.SizeofInet6Pktinfo)
}

// use makes a message of n packets, whose payload has size bytes, use the memory.
func (c *udpControl) use(hdr *unix.Msghdr, p *UDPPort, n, size int) {
	b := c.bytes()
	from := segmentLen
	if n > 1 {
		binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], uint16(size))
		from = 0
	}
	hdr.Control = &b[from]
	hdr.SetControllen(c.end(p) - from)
}

// set writes the fields of a packet.
func (c *udpControl) set(p *UDPPort, head []byte) {
	b, data := c.bytes(), unix.CmsgLen(0)
	tos, ttl := head[1], head[8]
	if p.family.version == 6 {
		tos, ttl = head[0]<<4|head[1]>>4, head[7]
	}
	binary.NativeEndian.PutUint32(b[tosAt+data:], uint32(tos))
	binary.NativeEndian.PutUint32(b[ttlAt+data:], uint32(ttl))
	if p.local.Addr().IsUnspecified() {
		if p.family.version == 4 {
			copy(b[sourceAt+data+4:], header.IPv4(head).Source()) // ipi_spec_dst
		} else {
			copy(b[sourceAt+data:], header.IPv6(head).Source())
		}
	}
}

// readControl reads the ancillary data of a received packet: TOS and TTL into o. It
// returns the destination, and the size of the datagrams if there are several; 0: there is
// one. Ok is false if a field is missing.
func readControl(o *header.Outer, control []byte) (at netip.Addr, each int, ok bool) {
	const dest, ttl, tos = 1, 2, 4
	known := 0
	for len(control) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return at, 0, false
		}
		control = rest
		four, six := h.Level == unix.IPPROTO_IP, h.Level == unix.IPPROTO_IPV6
		switch {
		case four && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			at = netip.AddrFrom4([4]byte(data[8:]))
			known |= dest
		case six && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			at = netip.AddrFrom16([16]byte(data))
			known |= dest
		case (four && h.Type == unix.IP_TTL || six && h.Type == unix.IPV6_HOPLIMIT) && len(data) >= 4:
			o.TTL = byte(binary.NativeEndian.Uint32(data))
			known |= ttl
		case four && h.Type == unix.IP_TOS && len(data) >= 1:
			o.TOS = data[0]
			known |= tos
		case six && h.Type == unix.IPV6_TCLASS && len(data) >= 4:
			o.TOS = byte(binary.NativeEndian.Uint32(data))
			known |= tos
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			each = int(int32(binary.NativeEndian.Uint32(data)))
		}
	}
	return at, each, known == dest|ttl|tos
}
