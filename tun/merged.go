package tun

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// What is known about a packet that the kernel may have merged, if it is not the payload
// of each segment in bytes. Package transport has the same constants.
const (
	Single  = 0  // the kernel did not merge it
	Unknown = -1 // nothing is known
	Small   = -2 // nothing is known, but if its checksum is complete, the kernel did not merge it
)

// safeMTU is the MTU that every link with IPv6 has at least (RFC 8200 section 5).
const safeMTU = 1280

// AddMerged is Add for a packet that the kernel may have merged (GRO) from packets of
// one flow. segment is how many bytes of payload each of them has, except for the last,
// which may have less; or it is one of the constants above. The packet is passed on as
// the packets from which it was merged.
//
// If the segment size is not known, TCP is cut into segments that fit every link. UDP is
// refused, because its datagrams cannot be separated, and so is every other packet that
// would have to be cut.
func (g *Gatherer) AddMerged(pkt []byte, segment int) drop.Reason {
	f := parseFlow(pkt)
	if f.checksum == 0 {
		f = behindExtensions(pkt, f)
	}
	if segment < 0 {
		var r drop.Reason
		if segment, r = g.guess(pkt, &f, segment); r != drop.None {
			return r
		}
	}
	if segment > 0 && f.kind == 0 {
		return drop.Merged
	}
	if segment == Single && !f.ports && !f.partial {
		f.kind = 0 // packets with extension headers are not gathered
	}
	g.add(pkt, f, segment)
	return drop.None
}

// guess decides how to cut a packet with an unknown segment size. Single means that the
// packet is not cut.
func (g *Gatherer) guess(pkt []byte, f *flow, known int) (segment int, r drop.Reason) {
	switch {
	case f.checksum == 0: // neither TCP nor UDP
		return Single, drop.None
	case known == Small && (!f.partial || f.kind == 0 || !f.ports): // the kernel merges none with IP options or without payload
		return Single, drop.None
	case f.kind != 0 && verify(pkt, f) || !f.isTCP() && udpWithoutSum(pkt, f):
		return Single, drop.None
	case f.partial && f.isTCP() && f.kind != 0:
		if most := min(g.mtu, safeMTU); len(pkt) > most && most > f.headers {
			return most - f.headers, drop.None
		}
		return Single, drop.None
	}
	// The segments of a list (rx-gro-list) keep the first one's checksum.
	return 0, drop.Merged
}

// udpWithoutSum reports whether a datagram has no checksum (RFC 768). The kernel never
// merges such datagrams.
func udpWithoutSum(pkt []byte, f *flow) bool {
	return pkt[f.transport+udpChecksum] == 0 && pkt[f.transport+udpChecksum+1] == 0
}

// behindExtensions returns the flow of an IPv6 packet with extension headers, because
// GRO also merges some of these. Its kind stays 0 if there is no TCP or UDP.
func behindExtensions(pkt []byte, f flow) flow {
	if header.Version(pkt) != 6 {
		return f
	}
	up, ok := header.FindUpper(pkt)
	if !ok || up.Fragment || up.Secured || up.Offset <= header.IPv6Len {
		return f
	}
	t := pkt[up.Offset:]
	switch {
	case up.Protocol == header.TCP && len(t) >= tcpMinHeader && int(t[12]>>4)*4 >= tcpMinHeader:
		f.kind, f.checksum, f.headers = unix.VIRTIO_NET_HDR_GSO_TCPV6, tcpChecksum, up.Offset+int(t[12]>>4)*4
	case up.Protocol == header.UDP && len(t) > udpHeader:
		f.kind, f.checksum, f.headers = unix.VIRTIO_NET_HDR_GSO_UDP_L4, udpChecksum, up.Offset+udpHeader
	}
	if f.transport = up.Offset; f.checksum != 0 {
		src, dst := addresses(pkt)
		f.partial = binary.BigEndian.Uint16(t[f.checksum:]) == header.Fold(header.PseudoSum(src, dst, len(t), up.Protocol))
	}
	if f.headers >= len(pkt) || f.headers > MaxHeaders {
		f.kind = 0
	}
	return f
}

// writeMerged writes a packet that the kernel has merged: as a super-packet or, if the
// queue does not take it, segment by segment.
func (g *Gatherer) writeMerged(q *Queue, to *group, r *Refused) {
	pkt, f := g.items[to.first].pkt, &to.flow
	t := pkt[f.transport:]
	protocol := byte(header.UDP)
	if f.isTCP() {
		protocol = header.TCP
	}
	src, dst := addresses(pkt)
	sum := header.PseudoSum(src, dst, 0, protocol)
	binary.BigEndian.PutUint16(t[f.checksum:], header.Fold(sum+uint32(len(t))))
	single := len(pkt)-f.headers <= to.merged
	if single || q.gathers(f.kind) {
		g.partial(pkt, f)
		g.vnet[1] = unix.VIRTIO_NET_HDR_GSO_NONE
		if !single {
			g.segments(f, to.merged)
			if f.isTCP() && t[tcpFlags]&tcpCWR != 0 {
				g.vnet[1] |= unix.VIRTIO_NET_HDR_GSO_ECN
			}
		}
		err := g.writev(q, to.first, 1, 0)
		if err == nil {
			return
		}
		if single {
			g.refuse(to.first, err, r)
			return
		}
		clear(g.vnet[:])
	}
	s := Super{
		pkt: pkt, headers: f.headers, transport: f.transport, size: to.merged,
		udp: !f.isTCP(), ipv6: header.Version(pkt) == 6, sum: sum,
	}
	if err := g.writeSegments(q, &s); err != nil {
		g.refuse(to.first, err, r)
	}
}

// writeSegments writes each segment as a packet, and returns the last error.
func (g *Gatherer) writeSegments(q *Queue, s *Super) (last error) {
	if g.cut == nil {
		g.cut = make([]byte, MaxHeaders)
	}
	for i := range s.Segments() {
		payload := s.Segment(i, g.cut)
		g.iovs = appendIovec(g.iovs[:0], g.vnet[:])
		g.iovs = appendIovec(g.iovs, g.cut[:s.headers])
		g.iovs = appendIovec(g.iovs, payload)
		if err := q.writev(g.iovs); err != nil {
			last = err
		}
	}
	return last
}
