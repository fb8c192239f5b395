package tun

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// sample describes a super-packet.
type sample struct {
	ipv6, udp  bool
	options    int // bytes of IPv4 options, or of an IPv6 extension header
	tcpOptions int
	flags      byte
	size       int // of a segment's payload
	payload    int // in all
	id         uint16
	frag       uint16 // DF or not
	tos        byte
}

func (s sample) String() string { return fmt.Sprintf("%+v", struct{ sample }{s}) }

func randomSample(r *rand.Rand) sample {
	s := sample{
		ipv6: r.IntN(2) == 0, udp: r.IntN(3) == 0,
		flags: tcpACK, size: 1 + r.IntN(1300), id: uint16(r.Uint32()), tos: byte(r.Uint32()),
	}
	if r.IntN(2) == 0 {
		s.frag = header.DF
	}
	if r.IntN(4) == 0 {
		s.options = 8 * r.IntN(4)
	}
	if !s.udp {
		s.tcpOptions = 4 * r.IntN(11)
		s.flags |= byte(r.Uint32()) & (tcpPSH | tcpFIN | tcpECE | tcpCWR | 0x20)
	}
	s.payload = s.size + 1 + r.IntN(s.size*100)
	s.payload = min(s.payload, 65000)
	return s
}

// build returns the super-packet with its virtio header, as the kernel would pass it to
// us.
func (s sample) build(r *rand.Rand) []byte {
	ip, transport := header.IPv4Len, tcpMinHeader+s.tcpOptions
	if s.ipv6 {
		ip = header.IPv6Len
	}
	if s.udp {
		transport = udpHeader
	}
	start := ip + s.options
	b := make([]byte, VirtioLen+start+transport+s.payload)
	p := b[VirtioLen:]
	for i := range p[start:] {
		p[start+i] = byte(r.Uint32())
	}
	protocol := byte(header.TCP)
	if s.udp {
		protocol = header.UDP
	}
	if s.ipv6 {
		p[0], p[1], p[6], p[7] = 0x60|s.tos>>4, s.tos<<4, protocol, 64
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-header.IPv6Len))
		copy(p[8:], source6.AsSlice())
		copy(p[24:], dest6.AsSlice())
		if s.options > 0 { // destination options: PadN
			p[6] = header.DestOptions
			o := p[ip:start]
			o[0], o[1], o[2], o[3] = protocol, byte(s.options/8-1), 1, byte(s.options-4)
		}
	} else {
		p[0], p[1], p[8], p[9] = 0x40|byte(start/4), s.tos, 64, protocol
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		binary.BigEndian.PutUint16(p[4:], s.id)
		binary.BigEndian.PutUint16(p[6:], s.frag)
		copy(p[12:], source4.AsSlice())
		copy(p[16:], dest4.AsSlice())
		for i := range s.options {
			p[ip+i] = 1 // no operation
		}
		header.IPv4(p).SetChecksum()
	}
	src, dst := addresses(p)
	t := p[start:]
	pseudo := header.Fold(header.PseudoSum(src, dst, len(t), protocol))
	b[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(b[2:], uint16(start+transport))
	binary.NativeEndian.PutUint16(b[4:], uint16(s.size))
	binary.NativeEndian.PutUint16(b[6:], uint16(start))
	if s.udp {
		b[1] = unix.VIRTIO_NET_HDR_GSO_UDP_L4
		binary.NativeEndian.PutUint16(b[8:], udpChecksum)
		binary.BigEndian.PutUint16(t[udpLength:], uint16(len(t)))
		binary.BigEndian.PutUint16(t[udpChecksum:], pseudo)
		return b
	}
	b[1] = unix.VIRTIO_NET_HDR_GSO_TCPV4
	if s.ipv6 {
		b[1] = unix.VIRTIO_NET_HDR_GSO_TCPV6
	}
	if s.flags&tcpCWR != 0 {
		b[1] |= unix.VIRTIO_NET_HDR_GSO_ECN
	}
	binary.NativeEndian.PutUint16(b[8:], tcpChecksum)
	t[12] = byte(transport/4) << 4
	t[tcpFlags] = s.flags
	for i := tcpMinHeader; i < transport; i++ {
		t[i] = 1 // no operation
	}
	binary.BigEndian.PutUint16(t[tcpChecksum:], pseudo)
	return b
}
