package transport

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// arrivals rebuilds IPv6 headers in front of the payloads that a batch receives, because
// a raw socket does not return them. The kernel passes the fields as ancillary data (RFC
// 3542 section 4).
type arrivals struct {
	batch    *batch
	protocol byte
	each     []arrival
}

// arrival is the memory for the ancillary data of one packet.
type arrival struct {
	_       [0]uint64 // the alignment of control
	control [controlLen]byte
	source  name
}

// receive makes a message use the memory.
func (a *arrival) receive(hdr *unix.Msghdr) {
	hdr.Name = (*byte)(unsafe.Pointer(&a.source))
	hdr.Control = &a.control[0]
}

// controlLen is large enough for a struct in6_pktinfo and two ints, each with its
// header, on every platform.
const controlLen = 128

func newArrivals(b *batch, protocol byte) *arrivals {
	a := &arrivals{batch: b, protocol: protocol, each: make([]arrival, len(b.msgs))}
	for i := range a.each {
		a.each[i].receive(&b.msgs[i].hdr)
	}
	return a
}

// expect makes room for the ancillary data of n packets. It must be called before each
// batch, because the kernel overwrites the length with the number of bytes used.
func (a *arrivals) expect(n int) {
	for i := range n {
		hdr := &a.batch.msgs[i].hdr
		hdr.Namelen = unix.SizeofSockaddrInet6
		hdr.SetControllen(controlLen)
	}
}

// complete writes the headers, and adds their length to the sizes. A packet with missing
// fields gets size 0.
func (a *arrivals) complete(bufs [][]byte, meta []Meta) {
	for i, buf := range bufs {
		hdr := &a.batch.msgs[i].hdr
		payload := int(a.batch.msgs[i].n)
		meta[i].Size = 0
		if hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || hdr.Namelen != unix.SizeofSockaddrInet6 || len(buf) < header.IPv6Len+payload {
			continue
		}
		e := &a.each[i]
		if writeHeader(buf, payload, a.protocol, &e.source.Addr, e.control[:hdr.Controllen]) {
			meta[i].Size = header.IPv6Len + payload
		}
	}
}

// writeHeader writes an IPv6 header from ancillary data. It returns false if a field is
// missing, or if the payload is too long.
func writeHeader(b []byte, payload int, protocol byte, source *[16]byte, control []byte) bool {
	const dest, hops, class = 1, 2, 4
	if payload > MaxPacket {
		return false // a jumbogram, which no tunnel carries
	}
	ip := header.IPv6(b)
	binary.BigEndian.PutUint32(ip, 6<<28)
	binary.BigEndian.PutUint16(ip[4:], uint16(payload))
	ip[6] = protocol
	copy(ip.Source(), source[:])
	known := 0
	for len(control) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return false
		}
		control = rest
		if h.Level != unix.IPPROTO_IPV6 {
			continue
		}
		switch {
		case h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			copy(ip.Dest(), data)
			known |= dest
		case h.Type == unix.IPV6_HOPLIMIT && len(data) >= 4:
			ip[7] = byte(binary.NativeEndian.Uint32(data))
			known |= hops
		case h.Type == unix.IPV6_TCLASS && len(data) >= 4:
			tc := byte(binary.NativeEndian.Uint32(data))
			ip[0], ip[1] = 6<<4|tc>>4, tc<<4
			known |= class
		}
	}
	return known == dest|hops|class
}
