package fragment

import (
	"encoding/binary"
	"iter"

	"sixfour/encap/header"
)

// IPv4 cuts a packet, as header.ParseIPv4 returns it, into fragments of at most mtu
// bytes (RFC 791 section 3.2). The kernel does not do this for a raw socket that writes
// its own headers. The caller must check that the packet allows it (DF). Each fragment
// is built in b[off:], which should have room for mtu bytes and must not overlap the
// packet. A fragment is valid until the next one. A packet that fits is copied
// unchanged. If there is no room for 8 bytes of payload, IPv4 yields nothing.
func IPv4(pkt []byte, mtu int, b []byte, off int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		ip, scratch := header.IPv4(pkt), b[off:]
		payload := ip.Payload()
		mtu := min(mtu, len(scratch))
		// A packet that is itself a fragment may be cut again, but not beyond the largest
		// offset.
		if int(ip.Fragment()&header.OffsetMask)*8+len(payload) > 65535 {
			return
		}
		var later [60]byte
		head := []byte(ip[:ip.HeaderLen()])
		for off := 0; ; {
			n := len(payload) - off
			last := n <= mtu-len(head)
			frag := ip.Fragment() + uint16(off/8)
			if !last {
				n = (mtu - len(head)) &^ 7 // offsets count units of 8 bytes
				frag |= header.MF
			}
			if n < 0 || n == 0 && !last {
				return
			}
			f := header.IPv4(scratch[:len(head)+n])
			copy(f, head)
			copy(f[len(head):], payload[off:off+n])
			binary.BigEndian.PutUint16(f[2:], uint16(len(f)))
			binary.BigEndian.PutUint16(f[6:], frag)
			f.SetChecksum()
			if !yield(f) || last {
				return
			}
			if off == 0 && len(head) > header.IPv4Len {
				head = later[:copiedHeader(&later, head)]
			}
			off += n
		}
	}
}

// Half returns the size in bytes of the fragments with which IPv4 cuts a packet into two halves.
func Half(pkt []byte) int {
	ip := header.IPv4(pkt)
	return ip.HeaderLen() + ((len(ip.Payload())+1)/2+7)&^7
}

// copiedHeader writes the header of later fragments: it has those options of the first
// one that have the copied flag (RFC 791 section 3.1), padded to 32 bits. It returns the
// header's length in bytes.
func copiedHeader(to *[60]byte, head []byte) int {
	n := copy(to[:], head[:header.IPv4Len])
	for opts := head[header.IPv4Len:]; len(opts) > 0 && opts[0] != 0; { // 0: end of options
		size := 1 // type 1, no operation, has a single byte
		if opts[0] != 1 {
			if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
				break
			}
			size = int(opts[1])
		}
		if opts[0]&0x80 != 0 {
			n += copy(to[n:], opts[:size])
		}
		opts = opts[size:]
	}
	n = (n + 3) &^ 3 // padded with zeros
	to[0] = 4<<4 | byte(n/4)
	return n
}
