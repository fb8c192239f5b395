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

// maxExtensions bounds the walk along a chain of extension headers, as in
// package header.
const maxExtensions = 8

// position is where a header stands in a packet, in bytes, and where the next
// header field that names it.
type position struct{ at, named int }

// split follows the extension headers that may stand in front of a fragment
// header. Cut is behind those that every fragment repeats, "all headers up to
// and including the Routing header if present, else the Hop-by-Hop Options
// header if present, else no extension headers" (RFC 8200 section 4.5): where
// a fragment header belongs. End is the first header of another kind: where one
// is found. What the headers contain is not looked at. The chain is refused (not
// ok) if it leads out of the packet, is longer than eight, or has a hop-by-hop
// header anywhere but first.
func split(ip header.IPv6) (cut, end position, ok bool) {
	cut = position{header.IPv6Len, 6}
	end = cut
	for range maxExtensions + 1 {
		kind := ip[end.named]
		switch kind {
		case header.HopByHop, header.Routing, header.DestOptions:
		default:
			return cut, end, true
		}
		if len(ip) < end.at+8 || kind == header.HopByHop && end.at != header.IPv6Len {
			return cut, end, false
		}
		end = position{end.at + (int(ip[end.at+1])+1)*8, end.at}
		if len(ip) < end.at {
			return cut, end, false
		}
		if kind != header.DestOptions {
			cut = end
		}
	}
	return cut, end, false
}
