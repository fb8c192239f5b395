package encap

import (
	"encoding/binary"
	"iter"

	"sixfour/encap/header"
)

// Fragments4 cuts an IPv4 packet without options, as this package makes them,
// into fragments of at most mtu bytes (RFC 791 section 3.2). A raw socket that
// writes its own headers leaves this to us. Each fragment is built in scratch,
// which must have room for mtu bytes, and is valid until the next one.
func Fragments4(pkt []byte, mtu int, scratch []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		ip := header.IPv4(pkt)
		payload := ip.Payload()
		room := (mtu - header.IPv4Len) &^ 7 // offsets count units of 8 bytes
		if room <= 0 {
			return
		}
		for off := 0; off < len(payload); off += room {
			n := min(room, len(payload)-off)
			f := header.IPv4(scratch[:header.IPv4Len+n])
			copy(f, ip[:header.IPv4Len])
			copy(f[header.IPv4Len:], payload[off:off+n])
			frag := ip.Fragment() + uint16(off/8)
			if off+n < len(payload) {
				frag |= header.MF
			}
			binary.BigEndian.PutUint16(f[2:], uint16(len(f)))
			binary.BigEndian.PutUint16(f[6:], frag)
			f.SetChecksum()
			if !yield(f) {
				return
			}
		}
	}
}
