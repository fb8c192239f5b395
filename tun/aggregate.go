package tun

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// A network card's GRO puts TCP segments together before a raw socket sees
// them. It leaves the result's TCP checksum for later: the field holds the sum
// of the pseudo-header alone, as for a card that is to compute the rest. Written
// to the device like any packet, it would be thrown away for its checksum.

const (
	tcpChecksum  = 16 // offset of the checksum in a TCP header
	tcpMinHeader = 20
)

// Aggregate is where the TCP header stands in a packet that GRO made.
type Aggregate struct {
	tcp    int // offset of the TCP header
	header int // length of all headers
	ipv6   bool
}

// FindAggregate reports whether a packet that header.Parse has passed looks like
// one that GRO made of several: whole TCP, without IPv6 extension headers, whose
// checksum is that of the pseudo-header alone. Ask it only of packets that are
// larger than the path could carry.
func FindAggregate(pkt []byte) (Aggregate, bool) {
	var a Aggregate
	var src, dst []byte
	if header.Version(pkt) == 4 {
		ip := header.IPv4(pkt)
		if ip.Protocol() != header.TCP || ip.IsFragment() {
			return a, false
		}
		a.tcp, src, dst = ip.HeaderLen(), ip.Source(), ip.Dest()
	} else {
		ip := header.IPv6(pkt)
		if ip.NextHeader() != header.TCP {
			return a, false
		}
		a.tcp, a.ipv6, src, dst = header.IPv6Len, true, ip.Source(), ip.Dest()
	}
	tcp := pkt[a.tcp:]
	if len(tcp) < tcpMinHeader {
		return a, false
	}
	a.header = a.tcp + int(tcp[12]>>4)*4
	if a.header < a.tcp+tcpMinHeader || a.header >= len(pkt) {
		return a, false
	}
	pseudo := header.Fold(header.PseudoSum(src, dst, len(tcp), header.TCP))
	return a, binary.BigEndian.Uint16(tcp[tcpChecksum:]) == pseudo
}

// WriteAggregate hands the kernel a packet that GRO made, buf[offset:], as what
// it is: segments of at most mtu bytes each with headers, which the kernel cuts
// and gives checksums where it has to. The WriteRoom bytes in front of it are
// overwritten. The error is as of Write.
func (d *Device) WriteAggregate(buf []byte, offset int, a Aggregate, mtu int) error {
	kind := byte(unix.VIRTIO_NET_HDR_GSO_TCPV4)
	if a.ipv6 {
		kind = unix.VIRTIO_NET_HDR_GSO_TCPV6
	}
	// struct virtio_net_hdr, in the machine's byte order.
	h := buf[offset-WriteRoom : offset]
	h[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	h[1] = kind
	binary.NativeEndian.PutUint16(h[2:], uint16(a.header))
	binary.NativeEndian.PutUint16(h[4:], uint16(max(mtu-a.header, 1)))
	binary.NativeEndian.PutUint16(h[6:], uint16(a.tcp))
	binary.NativeEndian.PutUint16(h[8:], tcpChecksum)
	_, err := d.file.Write(buf[offset-WriteRoom:])
	return writeError(err)
}
