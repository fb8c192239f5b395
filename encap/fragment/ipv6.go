package fragment

import (
	"encoding/binary"
	"iter"

	"sixfour/encap/header"
)

// IPv6 cuts a packet, as header.ParseIPv6 returns it, into fragments of at most mtu
// bytes (RFC 8200 section 4.5). The entry of a tunnel does this with a packet that the
// path does not carry whole (RFC 2473 section 7.2). Hop-by-hop and routing headers are
// repeated in each fragment; a destination options header, such as that of the
// encapsulation limit, is part of what is cut. All fragments carry id, which must not be
// used again soon between the same two addresses.
//
// Each fragment is built in b[off:off+n], so that a delivery header can be written in
// front of it with Stack.Encapsulate(b, off). IPv6 does not write to b[:off]. The caller
// may change the fragment and what is in front of it; a fragment is valid until the next
// one. pkt must not overlap b, and len(b)-off should be mtu or more. A packet that fits
// is copied unchanged, without a fragment header (RFC 8021). If there is no room for 8
// bytes of payload, IPv6 yields nothing. With an mtu of 1280 or more the first fragment
// holds every header, as RFC 7112 requires.
func IPv6(pkt []byte, mtu int, id uint32, b []byte, off int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		mtu := min(mtu, len(b)-off)
		if len(pkt) <= mtu {
			yield(b[off : off+copy(b[off:], pkt)])
			return
		}
		cut, _, ok := split(pkt)
		room := mtu - cut.at - HeaderLen
		if !ok || room < 8 {
			return
		}
		head, payload := pkt[:cut.at], pkt[cut.at:]
		for at := 0; at < len(payload); {
			n, field := len(payload)-at, uint16(at)
			if n > room {
				n = room &^ 7 // offsets count units of 8 bytes
				field |= moreFlag
			}
			f := b[off : off+len(head)+HeaderLen+n]
			copy(f, head)
			binary.BigEndian.PutUint16(f[4:], uint16(len(f)-header.IPv6Len))
			f[cut.named] = header.FragmentHdr
			h := f[len(head):]
			h[0], h[1] = head[cut.named], 0
			binary.BigEndian.PutUint16(h[2:], field)
			binary.BigEndian.PutUint32(h[4:], id)
			copy(h[HeaderLen:], payload[at:at+n])
			if !yield(f) {
				return
			}
			at += n
		}
	}
}
