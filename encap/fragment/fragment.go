// Package fragment cuts packets into fragments and reassembles them.
//
// IPv4 and IPv6 cut packets: RFC 791 section 3.2 and RFC 8200 section 4.5. A Reassembler
// reassembles IPv6 packets, as the end of a tunnel must (RFC 2473 section 7.2). IPv4
// packets need no reassembly here, because a raw socket receives them whole.
//
// An IPv6 fragment is the packet's per-fragment headers, a fragment header and a piece
// of the rest (RFC 8200 section 4.5):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+---------------+---------------+-------------------------+---+-+
//	|  Next Header  |   Reserved    |     Fragment Offset     |Res|M|
//	+---------------+---------------+-------------------------+---+-+
//	|                         Identification                        |
//	+---------------------------------------------------------------+
//
// The offset counts units of 8 bytes; M is 0 in the last fragment.
package fragment

import "sixfour/encap/header"

// HeaderLen is the length of an IPv6 fragment header.
const HeaderLen = 8

// The third and fourth byte of a fragment header: the offset, which is in bytes when its
// low three bits are masked, and the M flag.
const (
	offsetMask = 0xfff8
	moreFlag   = 1
)

// position is the offset of a header in a packet, and the offset of the next header
// field that names it, in bytes.
type position struct{ at, named int }

// split finds where a packet can be fragmented, and where its fragment header is. Cut is
// the end of the headers that every fragment repeats, "all headers up to and including
// the Routing header if present, else the Hop-by-Hop Options header if present, else no
// extension headers" (RFC 8200 section 4.5): a fragment header is inserted there. End is
// the first header that cannot precede a fragment header; if the packet has a fragment
// header, End is that header. The contents of the headers are not checked. Ok is false
// if the chain is broken (see header.Walk).
func split(ip header.IPv6) (cut, end position, ok bool) {
	cut = position{header.IPv6Len, 6}
	w := header.StartWalk(ip)
	for w.Kind == header.HopByHop || w.Kind == header.Routing || w.Kind == header.DestOptions {
		kind, _, ok := w.Next(ip)
		if !ok {
			return cut, position{w.Offset, w.Named}, false
		}
		if kind != header.DestOptions {
			cut = position{w.Offset, w.Named}
		}
	}
	return cut, position{w.Offset, w.Named}, true
}
