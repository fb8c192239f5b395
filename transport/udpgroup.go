package transport

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// Limits of a group: packets that a UDPSender gives to the kernel in one message, which the
// kernel or the device separates again (UDP_SEGMENT in udp(7)).
const (
	maxGroup      = 64                         // packets; newer kernels take more
	maxGroupBytes = MaxPacket - header.IPv6Len // of payloads with one UDP header
)

// group returns how many packets, from the first one on, can leave as a group. The port
// takes the first one.
func (p *UDPPort) group(pkts []Packet) int {
	first, cut := pkts[0].Head, p.headers()
	size := pkts[0].Len() - cut
	sum := size + udpLen
	if size == 0 { // the kernel has no segments of size 0
		return 1
	}
	for i := 1; i < min(len(pkts), maxGroup); i++ {
		n := pkts[i].Len() - cut
		if sum += n; n > size || n <= 0 || sum > maxGroupBytes || len(pkts[i].Head) < cut || !p.alike(first, pkts[i].Head) {
			return i
		}
		if n < size { // only the last one may be shorter
			return i + 1
		}
	}
	return min(len(pkts), maxGroup)
}

// alike reports whether two packets have the same headers, except for what the kernel
// writes. The port takes the first one.
func (p *UDPPort) alike(a, b []byte) bool {
	at := p.family.headerLen
	if p.family.version == 4 {
		a, b := a[:header.IPv4Len+udpLen], b[:header.IPv4Len+udpLen]
		return binary.NativeEndian.Uint16(a) == binary.NativeEndian.Uint16(b) && // TOS
			binary.NativeEndian.Uint32(a[6:]) == binary.NativeEndian.Uint32(b[6:]) && // flags, TTL, protocol
			binary.NativeEndian.Uint64(a[12:]) == binary.NativeEndian.Uint64(b[12:]) && // addresses
			binary.NativeEndian.Uint32(a[at:]) == binary.NativeEndian.Uint32(b[at:]) && // ports
			(a[at+6]|a[at+7] == 0) == (b[at+6]|b[at+7] == 0) // whether there is a checksum
	}
	return [4]byte(a) == [4]byte(b) && // traffic class, flow label
		[38]byte(a[6:]) == [38]byte(b[6:]) // next header, hop limit, addresses, ports
}

// takesGroups reports whether the kernel has UDP_SEGMENT (Linux 4.18). An older one would
// ignore it, and send a group as one packet.
func takesGroups(fd int) bool {
	_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	return err == nil
}

// groups says which of a sender's packets may leave in groups. Some kernels and devices
// take no groups (without checksums by the device, with IPsec, with SO_NO_CHECK).
type groups struct {
	none    bool // the kernel has none
	alone   int  // number of next packets that leave alone, because their group was refused
	suspect bool // they were refused with an error that may be about groups
	off     int  // how many more batches leave without groups
}

// begin begins a batch. It returns how many of its packets must leave alone.
func (g *groups) begin() (alone int) {
	if g.none {
		return BatchSize
	}
	if g.off > 0 {
		g.off--
		return BatchSize
	}
	return g.alone
}

// sent notes that packets were sent.
func (g *groups) sent(n int) {
	if g.alone == 0 {
		return
	}
	if g.alone -= n; g.alone <= 0 {
		g.alone = 0
		if g.suspect { // each packet of the group could be sent
			g.off = plainBatches
		}
	}
}

// split makes the packets of a message that could not be sent leave one by one: the error may
// be about one of them. It returns false if the message has only one packet.
func (g *groups) split(packets int, err error) bool {
	if packets <= 1 {
		g.alone, g.suspect = max(0, g.alone-packets), false
		return false
	}
	g.alone = packets
	g.suspect = errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIO) || errors.Is(err, unix.EOPNOTSUPP)
	return true
}
