// Package fragment cuts packets into fragments and puts them together again.
//
// IPv4 and IPv6 cut: RFC 791 section 3.2 and RFC 8200 section 4.5. A Reassembler
// puts IPv6 fragments together, as the end of a tunnel must (RFC 2473 section
// 7.2); IPv4 needs none, because a raw socket gets its packets whole.
//
// An IPv6 fragment is the packet's per-fragment headers, a fragment header and a
// piece of the rest (RFC 8200 section 4.5):
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

// The third and fourth byte of a fragment header: the offset, in bytes because
// its low three bits have other uses, and the M flag.
const (
	offsetMask = 0xfff8
	moreFlag   = 1
)

// position is where a header stands in a packet, in bytes, and where the next
// header field that names it.
type position struct{ at, named int }

// split follows the extension headers that may stand in front of a fragment
// header. Cut is behind those that every fragment repeats, "all headers up to
// and including the Routing header if present, else the Hop-by-Hop Options
// header if present, else no extension headers" (RFC 8200 section 4.5): where
// a fragment header belongs. End is the first header of another kind: where one
// is found. What the headers contain is not looked at. The chain is refused (not
// ok) if it is broken, as header.Walk has it.
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
