package tun

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// VirtioLen is the length of struct virtio_net_hdr, which precedes each packet that is
// read. Its fields are in the machine's byte order:
//
//	flags 1, gso_type 1, hdr_len 2, gso_size 2, csum_start 2, csum_offset 2
const VirtioLen = 10

// MaxHeaders is the most bytes of headers that each segment of a super-packet may have:
// enough for any IPv4 and TCP options, or for IPv6 with some extension headers.
const MaxHeaders = 512

// Transport headers.
const (
	tcpMinHeader      = 20
	tcpSequence       = 4 // offset
	tcpFlags          = 13
	tcpChecksum       = 16
	udpHeader         = 8
	udpLength         = 4
	udpChecksum       = 6
	tcpFIN       byte = 0x01
	tcpPSH       byte = 0x08
	tcpACK       byte = 0x10
	tcpECE       byte = 0x40
	tcpCWR       byte = 0x80
)

// Super is the result of one read of a queue: one packet, or a large packet that stands
// for several packets of one flow, which the kernel left to us to segment (TSO, USO).
type Super struct {
	pkt       []byte
	headers   int // bytes of headers of each segment; 0: this is one packet
	transport int // offset of the TCP or UDP header
	size      int // of a segment's payload in bytes; the last may be shorter
	udp       bool
	ipv6      bool
	sum       uint32 // of the pseudo-header, without a length
}

// ParseSuper parses a packet as a queue with virtio headers returns it. It is the only
// place that determines the packet's length. The length of a single packet is the one in
// its IP header: more bytes may follow, because any process with CAP_NET_RAW in the
// interface's network namespace can send any bytes there. The length of a super-packet
// is the number of bytes read: each segment gets an IP length of its own.
//
// ParseSuper computes the checksum of a single packet if the kernel left that to us. It
// refuses a virtio header that contradicts the packet.
func ParseSuper(b []byte) (Super, drop.Reason) {
	if len(b) < VirtioLen {
		return Super{}, drop.BadOffload
	}
	s := Super{pkt: b[VirtioLen:]}
	flags, kind := b[0], b[1]&^unix.VIRTIO_NET_HDR_GSO_ECN
	size := int(binary.NativeEndian.Uint16(b[4:]))
	start, offset := int(binary.NativeEndian.Uint16(b[6:])), int(binary.NativeEndian.Uint16(b[8:]))
	if kind != unix.VIRTIO_NET_HDR_GSO_NONE {
		if flags&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM == 0 || size == 0 {
			return Super{}, drop.BadOffload
		}
		s.transport, s.size = start, size
		r := s.findHeaders(kind, offset)
		return s, r
	}
	var r drop.Reason
	if s.pkt, r = cut(s.pkt); r != drop.None {
		return Super{}, r
	}
	if flags&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM != 0 {
		// A checksum inside the IP header could change the length again.
		if start < ipLen(s.pkt) || start+offset+2 > len(s.pkt) {
			return Super{}, drop.BadOffload
		}
		finishChecksum(s.pkt[start:], offset)
	}
	return s, drop.None
}

// cut returns the IP packet at the beginning of b. It does not verify the IP header
// checksum: the kernel of this host has just made it.
func cut(b []byte) ([]byte, drop.Reason) {
	switch header.Version(b) {
	case 4:
		return header.CutIPv4(b)
	case 6:
		return header.ParseIPv6(b)
	}
	return nil, drop.WrongVersion
}

// ipLen returns the length of a packet's IP header, without IPv6 extension headers.
func ipLen(pkt []byte) int {
	if header.Version(pkt) == 4 {
		return header.IPv4(pkt).HeaderLen()
	}
	return header.IPv6Len
}

// finishChecksum computes a checksum over b, whose field at offset holds the sum of the
// pseudo-header. It writes 0xffff for 0, which is the same number in one's complement,
// because in UDP 0 means that there is no checksum (RFC 768).
func finishChecksum(b []byte, offset int) {
	sum := ^header.Sum(b, 0)
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[offset:], sum)
}

// findHeaders finds the end of the headers of a super-packet.
func (s *Super) findHeaders(kind byte, checksum int) drop.Reason {
	version, least := header.Version(s.pkt), header.IPv6Len
	if version == 4 {
		least = header.IPv4Len
	}
	if s.transport > len(s.pkt) || s.transport < least || ipLen(s.pkt) < least || s.transport < ipLen(s.pkt) {
		return drop.BadOffload
	}
	s.ipv6 = version == 6
	segment := s.pkt[s.transport:]
	want := version
	switch kind {
	case unix.VIRTIO_NET_HDR_GSO_TCPV4, unix.VIRTIO_NET_HDR_GSO_TCPV6:
		if kind == unix.VIRTIO_NET_HDR_GSO_TCPV4 {
			want = 4
		} else {
			want = 6
		}
		if checksum != tcpChecksum || len(segment) < tcpMinHeader || segment[12]>>4 < tcpMinHeader/4 {
			return drop.BadOffload
		}
		s.headers = s.transport + int(segment[12]>>4)*4
	case unix.VIRTIO_NET_HDR_GSO_UDP_L4:
		if checksum != udpChecksum {
			return drop.BadOffload
		}
		s.udp = true
		s.headers = s.transport + udpHeader
	default:
		return drop.BadOffload
	}
	if version != want || version != 4 && version != 6 || s.headers >= len(s.pkt) || s.headers > MaxHeaders {
		return drop.BadOffload
	}
	// The field holds the pseudo-header's sum with the length of the whole packet.
	s.sum = uint32(binary.BigEndian.Uint16(segment[checksum:])) + uint32(^uint16(len(segment)))
	return drop.None
}

// Packet returns the whole packet.
func (s *Super) Packet() []byte { return s.pkt }

// Segments returns the number of packets. It is 1 for a single packet; use Packet for
// that, not Segment.
func (s *Super) Segments() int {
	if s.headers == 0 {
		return 1
	}
	return (len(s.pkt) - s.headers + s.size - 1) / s.size
}

// Headers returns how many bytes of headers each segment has, or 0 for a single packet.
func (s *Super) Headers() int { return s.headers }

// Segment returns packet i of a super-packet. It writes the headers to h, which must
// have room for Headers bytes, and returns the payload without copying it. It sets the
// fields as the kernel's own segmentation does: the identification increases with i, PSH
// and FIN are in the last segment only, CWR is in the first only (RFC 3168 6.1.2), and
// all else is as in the first.
func (s *Super) Segment(i int, h []byte) (payload []byte) {
	off := s.headers + i*s.size
	end := min(off+s.size, len(s.pkt))
	payload = s.pkt[off:end]
	h = h[:s.headers]
	copy(h, s.pkt)
	if size := len(h) + len(payload); s.ipv6 {
		binary.BigEndian.PutUint16(h[4:], uint16(size-header.IPv6Len))
	} else {
		ip := header.IPv4(h)
		binary.BigEndian.PutUint16(ip[2:], uint16(size))
		binary.BigEndian.PutUint16(ip[4:], ip.ID()+uint16(i))
		ip.SetChecksum()
	}
	t := h[s.transport:]
	sum := s.sum + uint32(len(t)+len(payload))
	if s.udp {
		binary.BigEndian.PutUint16(t[udpLength:], uint16(len(t)+len(payload)))
		setChecksum(t, payload, udpChecksum, sum)
		if t[udpChecksum] == 0 && t[udpChecksum+1] == 0 {
			binary.BigEndian.PutUint16(t[udpChecksum:], 0xffff)
		}
		return payload
	}
	binary.BigEndian.PutUint32(t[tcpSequence:], binary.BigEndian.Uint32(t[tcpSequence:])+uint32(i*s.size))
	if end < len(s.pkt) {
		t[tcpFlags] &^= tcpFIN | tcpPSH
	}
	if i > 0 {
		t[tcpFlags] &^= tcpCWR
	}
	setChecksum(t, payload, tcpChecksum, sum)
	return payload
}

// setChecksum writes the checksum of a transport header of even length and its payload.
// pseudo is the sum of the pseudo-header.
func setChecksum(t, payload []byte, offset int, pseudo uint32) {
	binary.BigEndian.PutUint16(t[offset:], 0)
	sum := uint32(header.Sum(t, pseudo)) + uint32(header.Sum(payload, 0))
	binary.BigEndian.PutUint16(t[offset:], ^header.Fold(sum))
}
