package tun

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// A packet in a tunnel can arrive with a transport checksum that is yet to be
// computed: the field holds the sum of the pseudo-header alone, and the rest was
// left to a network card. The peer's kernel leaves it so where the wire is not
// one (virtio, veth), and the GRO of our own card does, which puts TCP segments
// together before a raw socket sees them. Written to the device like any packet,
// it would be thrown away for its checksum.

const (
	tcpChecksum  = 16 // offset of the checksum in a TCP header
	tcpMinHeader = 20
	udpChecksum  = 6
	udpHeader    = 8
)

// Partial is where the checksum of a packet is to be computed, and how the
// packet is to be cut if it is several.
type Partial struct {
	transport int  // offset of the TCP or UDP header
	checksum  int  // of the checksum in it
	headers   int  // length of all headers; 0: cannot be cut
	kind      byte // of the segments: VIRTIO_NET_HDR_GSO_TCPV4 or TCPV6
}

// FindPartial reports whether a packet that header.Parse has passed has a
// partial checksum: one of TCP or UDP, without IPv6 extension headers. One
// complete checksum in 65536 looks the same, and loses nothing by being computed
// again.
func FindPartial(pkt []byte) (p Partial, ok bool) {
	var src, dst []byte
	var protocol byte
	if header.Version(pkt) == 4 {
		ip := header.IPv4(pkt)
		if ip.IsFragment() {
			return p, false
		}
		protocol = ip.Protocol()
		p.transport, p.kind, src, dst = ip.HeaderLen(), unix.VIRTIO_NET_HDR_GSO_TCPV4, ip.Source(), ip.Dest()
	} else {
		ip := header.IPv6(pkt)
		protocol = ip.NextHeader()
		p.transport, p.kind, src, dst = header.IPv6Len, unix.VIRTIO_NET_HDR_GSO_TCPV6, ip.Source(), ip.Dest()
	}
	segment := pkt[p.transport:]
	switch protocol {
	case header.TCP:
		if len(segment) < tcpMinHeader {
			return p, false
		}
		p.checksum = tcpChecksum
		if n := int(segment[12]>>4) * 4; n >= tcpMinHeader && n < len(segment) {
			p.headers = p.transport + n
		}
	case header.UDP:
		if len(segment) < udpHeader {
			return p, false
		}
		p.checksum = udpChecksum
	default:
		return p, false
	}
	pseudo := header.Fold(header.PseudoSum(src, dst, len(segment), protocol))
	return p, binary.BigEndian.Uint16(segment[p.checksum:]) == pseudo
}

// WritePartial hands the kernel a packet with a partial checksum,
// buf[offset:], as what it is: the kernel computes the checksum where it has to,
// and cuts a packet of more than mtu bytes into segments of that size. The
// WriteRoom bytes in front of it are overwritten. The error is as of Write.
func (d *Device) WritePartial(buf []byte, offset int, p Partial, mtu int) error {
	// struct virtio_net_hdr, in the machine's byte order.
	h := buf[offset-WriteRoom : offset]
	clear(h)
	h[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(h[6:], uint16(p.transport))
	binary.NativeEndian.PutUint16(h[8:], uint16(p.checksum))
	if len(buf)-offset > mtu && p.headers != 0 {
		h[1] = p.kind
		binary.NativeEndian.PutUint16(h[2:], uint16(p.headers))
		binary.NativeEndian.PutUint16(h[4:], uint16(max(mtu-p.headers, 1)))
	}
	_, err := d.file.Write(buf[offset-WriteRoom:])
	return writeError(err)
}
