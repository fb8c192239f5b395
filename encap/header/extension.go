package header

import (
	"encoding/binary"

	"sixfour/encap/drop"
)

// EncapLimitLen is the length of a destination options header that holds the
// tunnel encapsulation limit and nothing else (RFC 2473 section 5.1).
const EncapLimitLen = 8

// EncapLimit is that header as the kernel writes it: next header, length 0,
// option 4 of 1 byte with the limit, and PadN of 1 byte.
func EncapLimit(next byte, limit byte) [EncapLimitLen]byte {
	return [EncapLimitLen]byte{next, 0, optEncapLimit, 1, limit, optPadN, 1, 0}
}

const (
	optPad1       = 0
	optPadN       = 1
	optEncapLimit = 4
)

// maxExtensions bounds the walk along a chain of extension headers. RFC 8200
// section 4.1 has seven kinds of which one may stand twice.
const maxExtensions = 8

// Upper is where a chain of IPv6 extension headers ends.
type Upper struct {
	Protocol byte // of the first header that is not an extension header
	Offset   int  // of that header in the packet, in bytes
	Fragment bool // the packet is a fragment; Protocol is what the fragment header says
}

// WalkExtensions follows the extension headers of a packet from ParseIPv6 to
// the upper layer (RFC 8200 section 4), as the node to which the packet is
// addressed. It stops at a fragment header that really stands for a fragment,
// and refuses: chains that lead out of the packet or are longer than eight,
// options whose type asks for discard when unknown (its top bits not 00,
// RFC 8200 section 4.2), a hop-by-hop header anywhere but first, and routing
// headers of type 0 (RFC 5095).
func WalkExtensions(ip IPv6) (Upper, drop.Reason) { return walk(ip, true) }

// SourceRouted reports whether a packet from ParseIPv6 has a routing header of
// type 0 with segments left, which no node may forward or accept (RFC 5095).
// What else may be wrong with its extension headers is for its destination.
func SourceRouted(ip IPv6) bool {
	switch ip.NextHeader() {
	case HopByHop, DestOptions, Routing:
		_, r := walk(ip, false)
		return r == drop.SourceRouting
	}
	return false
}

func walk(ip IPv6, options bool) (Upper, drop.Reason) {
	next, off := ip.NextHeader(), IPv6Len
	for range maxExtensions {
		switch next {
		case HopByHop, DestOptions, Routing:
		case FragmentHdr:
			if len(ip) < off+8 {
				return Upper{}, drop.BadExtension
			}
			next = ip[off]
			if binary.BigEndian.Uint16(ip[off+2:])&^6 != 0 { // offset or M flag; bits 1 and 2 are reserved
				return Upper{next, off + 8, true}, drop.None
			}
			off += 8 // an atomic fragment (RFC 6946) is a whole packet
			continue
		default:
			return Upper{next, off, false}, drop.None
		}
		if len(ip) < off+8 {
			return Upper{}, drop.BadExtension
		}
		n := (int(ip[off+1]) + 1) * 8
		if len(ip) < off+n {
			return Upper{}, drop.BadExtension
		}
		ext := ip[off : off+n]
		switch {
		case next == Routing && ext[2] == 0 && ext[3] > 0:
			return Upper{}, drop.SourceRouting
		case next == HopByHop && off != IPv6Len,
			options && next != Routing && !optionsPass(ext[2:]):
			return Upper{}, drop.BadExtension
		}
		next = ext[0]
		off += n
	}
	return Upper{}, drop.BadExtension
}

// FindUpper follows the extension headers of a packet that is not for us, and may
// be there only in part, as far as they can be followed: which protocol comes
// then and where, and whether the packet is a fragment but the first.
func FindUpper(ip IPv6) (protocol byte, offset int, later bool) {
	next, off := ip.NextHeader(), IPv6Len
	for range maxExtensions {
		n := 8
		switch {
		case next != HopByHop && next != DestOptions && next != Routing && next != FragmentHdr, len(ip) < off+n:
			return next, off, false
		case next == FragmentHdr:
			if binary.BigEndian.Uint16(ip[off+2:])>>3 != 0 {
				return ip[off], off + n, true
			}
		default:
			n = (int(ip[off+1]) + 1) * 8
		}
		next, off = ip[off], off+n
	}
	return next, off, false
}

// FindEncapLimit finds the tunnel encapsulation limit in a packet that is about
// to enter a tunnel (RFC 2473 section 4.1.1): the offset of its value, if there is
// one. The headers up to the first that is no extension header may be there only
// in part.
func FindEncapLimit(ip IPv6) (offset int, found bool) {
	next, off := ip.NextHeader(), IPv6Len
	for range maxExtensions {
		if next != HopByHop && next != DestOptions && next != Routing || len(ip) < off+8 {
			return 0, false
		}
		end := off + (int(ip[off+1])+1)*8
		if len(ip) < end {
			return 0, false
		}
		if next == DestOptions {
			for at := off + 2; at < end; {
				if ip[at] == optPad1 {
					at++
					continue
				}
				if at+2 > end || at+2+int(ip[at+1]) > end {
					return 0, false
				}
				if ip[at] == optEncapLimit && ip[at+1] == 1 {
					return at + 2, true
				}
				at += 2 + int(ip[at+1])
			}
		}
		next, off = ip[off], end
	}
	return 0, false
}

// optionsPass reports whether a node that knows only padding and the tunnel
// encapsulation limit may process a packet with these options.
func optionsPass(opts []byte) bool {
	for len(opts) > 0 {
		if opts[0] == optPad1 {
			opts = opts[1:]
			continue
		}
		if len(opts) < 2 || len(opts) < 2+int(opts[1]) {
			return false
		}
		if opts[0]>>6 != 0 {
			return false
		}
		opts = opts[2+int(opts[1]):]
	}
	return true
}
