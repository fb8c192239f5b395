package header

import (
	"encoding/binary"

	"sixfour/encap/drop"
)

// EncapLimitLen is the length of a destination options header that holds the
// tunnel encapsulation limit and nothing else (RFC 2473 section 5.1).
const EncapLimitLen = 8

// EncapLimit returns that header as the kernel writes it: next header, length 0, option
// 4 of 1 byte with the limit, and PadN of 1 byte.
func EncapLimit(next byte, limit byte) [EncapLimitLen]byte {
	return [EncapLimitLen]byte{next, 0, optEncapLimit, 1, limit, optPadN, 1, 0}
}

const (
	optPad1       = 0
	optPadN       = 1
	optEncapLimit = 4
)

// maxExtensions is the longest chain of extension headers that is followed. In the order
// that RFC 8200 section 4.1 recommends, destination options appear twice and every other
// kind once. No sender is known that needs more.
const maxExtensions = 8

// IsExtension reports whether a next header number denotes an extension header that
// names the header after it (IANA's list of IPv6 extension header types). The others are
// not followed: ESP encrypts what follows it, and the format of the numbers for
// experiments (253 and 254) is unknown.
func IsExtension(next byte) bool {
	switch next {
	case HopByHop, Routing, FragmentHdr, AuthHeader, DestOptions, Mobility, HIP, Shim6:
		return true
	}
	return false
}

// Walk iterates over the extension headers of an IPv6 packet, one per call of Next. All
// code that looks past an IPv6 header uses it, so that the whole program interprets a
// packet in the same way.
type Walk struct {
	Kind     byte // of the header at Offset
	Offset   int  // in the packet, in bytes; never beyond its end
	Named    int  // offset of the byte that holds Kind
	Fragment bool // the walk passed a fragment header that is not atomic (RFC 6946)
	Later    bool // a fragment other than the first: there is no header at Offset
	// Broken means that the header at Offset is an extension header that does not fit
	// into the packet, exceeds the limit of eight, or is a hop-by-hop header that is not
	// the first header (RFC 8200 section 4.3).
	Broken bool

	passed int
}

// StartWalk begins after the IPv6 header, which must be complete.
func StartWalk(ip IPv6) Walk { return Walk{Kind: ip.NextHeader(), Offset: IPv6Len, Named: 6} }

// Next returns the extension header at Offset and moves past it. It returns false at the
// end: what is at Offset is not an extension header, or the walk is Later or Broken.
func (w *Walk) Next(ip IPv6) (kind byte, ext []byte, ok bool) {
	kind = w.Kind
	if w.Later || !IsExtension(kind) {
		return kind, nil, false
	}
	n := 8
	if len(ip) < w.Offset+n || w.passed == maxExtensions || kind == HopByHop && w.Offset != IPv6Len {
		w.Broken = true
		return kind, nil, false
	}
	switch kind {
	case FragmentHdr:
	case AuthHeader: // RFC 4302 section 2.2: in units of 4 bytes, minus 2
		n = (int(ip[w.Offset+1]) + 2) * 4
	default: // RFC 6564 section 4
		n = (int(ip[w.Offset+1]) + 1) * 8
	}
	if len(ip) < w.Offset+n {
		w.Broken = true
		return kind, nil, false
	}
	ext = ip[w.Offset : w.Offset+n]
	if kind == FragmentHdr {
		field := binary.BigEndian.Uint16(ext[2:])
		w.Fragment = w.Fragment || field&^6 != 0 // offset or M flag; bits 1 and 2 are reserved
		w.Later = field>>3 != 0
	}
	w.Kind, w.Named, w.Offset = ext[0], w.Offset, w.Offset+n
	w.passed++
	return kind, ext, true
}

// Upper is the end of a chain of extension headers.
type Upper struct {
	Protocol byte // of the first header that is not an extension header
	Offset   int  // of that header in the packet, in bytes
	Fragment bool // the packet is a fragment; Protocol is the next header of the fragment header
	Later    bool // a fragment other than the first: there is no header at Offset
	Secured  bool // an authentication header (RFC 4302) covers it, so it must not be changed
}

func (w *Walk) upper(secured bool) Upper {
	return Upper{w.Kind, w.Offset, w.Fragment, w.Later, secured}
}

// WalkExtensions follows the extension headers of a packet from ParseIPv6 to the upper
// layer (RFC 8200 section 4), as the node to which the packet is addressed. It stops at
// a fragment header that is not atomic, and at headers that the end of a tunnel does not
// process, such as AH. It refuses: chains that are Broken, options whose type requests
// discard when unknown (its top bits not 00, RFC 8200 section 4.2), and routing headers
// with segments left (RFC 8200 section 4.4, RFC 5095).
func WalkExtensions(ip IPv6) (Upper, drop.Reason) {
	w := StartWalk(ip)
	for !w.Fragment {
		switch w.Kind {
		case HopByHop, DestOptions, Routing, FragmentHdr:
		default:
			return w.upper(false), drop.None
		}
		kind, ext, ok := w.Next(ip)
		switch {
		case !ok:
			return Upper{}, drop.BadExtension
		case kind == Routing && routes(ext):
			return Upper{}, drop.SourceRouting
		case (kind == HopByHop || kind == DestOptions) && !optionsPass(ext[2:]):
			return Upper{}, drop.BadExtension
		}
	}
	return w.upper(false), drop.None
}

// Transit follows the extension headers of a packet from ParseIPv6 that is for another
// node, as a firewall must. It refuses routing headers of type 0 with segments left,
// which no node may forward or accept (RFC 5095). It also refuses every chain that is
// Broken: the unread part could hide such a header, and a first fragment must hold the
// whole chain (RFC 7112). Options are left to the destination.
func Transit(ip IPv6) (Upper, drop.Reason) {
	if !IsExtension(ip.NextHeader()) {
		return Upper{Protocol: ip.NextHeader(), Offset: IPv6Len}, drop.None
	}
	w, secured := StartWalk(ip), false
	for {
		kind, ext, ok := w.Next(ip)
		switch {
		case w.Broken:
			return Upper{}, drop.BadExtension
		case !ok:
			return w.upper(secured), drop.None
		case kind == Routing && sourceRoute(ext):
			return Upper{}, drop.SourceRouting
		}
		secured = secured || kind == AuthHeader
	}
}

// routes reports whether a routing header has segments left. The end of a tunnel
// processes no such header, whatever its type.
func routes(routing []byte) bool { return routing[3] > 0 }

// sourceRoute reports whether a routing header is of type 0 with segments left.
func sourceRoute(routing []byte) bool { return routing[2] == 0 && routing[3] > 0 }

// FindUpper follows the extension headers of a packet that may be cut off, as in the
// quote of an ICMP error. Ok is false if the chain does not reach its end.
func FindUpper(ip IPv6) (up Upper, ok bool) {
	w, secured := StartWalk(ip), false
	for {
		kind, _, ok := w.Next(ip)
		if !ok {
			return w.upper(secured), !w.Broken
		}
		secured = secured || kind == AuthHeader
	}
}

// FindEncapLimit finds the tunnel encapsulation limit in a packet that is about to enter
// a tunnel (RFC 2473 section 4.1.1). It returns the offset of the limit's value. The
// packet may be cut off within its chain of extension headers.
func FindEncapLimit(ip IPv6) (offset int, found bool) {
	w := StartWalk(ip)
	for w.Kind == HopByHop || w.Kind == DestOptions || w.Kind == Routing {
		kind, ext, ok := w.Next(ip)
		if !ok {
			return 0, false
		}
		if kind != DestOptions {
			continue
		}
		for at := 2; at < len(ext); {
			if ext[at] == optPad1 {
				at++
				continue
			}
			if at+2 > len(ext) || at+2+int(ext[at+1]) > len(ext) {
				return 0, false
			}
			if ext[at] == optEncapLimit && ext[at+1] == 1 {
				return w.Offset - len(ext) + at + 2, true
			}
			at += 2 + int(ext[at+1])
		}
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

// Codes of ICMPv6 Parameter Problem (RFC 4443 section 3.4).
const (
	ErroneousField = 0
	UnknownOption  = 2
)

// FindProblem finds why WalkExtensions refuses a packet for this node, if its sender
// must get an ICMPv6 Parameter Problem. It returns the code and the offset of the first
// byte that is at fault: an unknown option whose type requests the error (RFC 8200
// section 4.2), or the type of a routing header with segments left (RFC 8200 section
// 4.4, RFC 5095 section 3). If found is false, no error is sent.
func FindProblem(ip IPv6) (code byte, at int, found bool) {
	w := StartWalk(ip)
	for !w.Fragment {
		kind, ext, ok := w.Next(ip)
		if !ok {
			break
		}
		start := w.Offset - len(ext)
		switch kind {
		case Routing:
			if routes(ext) {
				return ErroneousField, start + 2, true
			}
		case HopByHop, DestOptions:
			if i := refusedOption(ext); i > 0 {
				toMany := ip.Dest()[0] == 0xff
				return UnknownOption, start + i, ext[i]>>6 == optTell || ext[i]>>6 == optTellUnicast && !toMany
			}
		}
	}
	return 0, 0, false
}

// The top bits of an option's type: what a node that does not know the option must do.
const (
	optSkip        = 0
	optTell        = 2 // discard the packet, and send an error to its sender
	optTellUnicast = 3 // the same, but not if the destination was multicast
)

// refusedOption returns the offset of the first option that must not be skipped, or 0 if
// there is none. It stops at an option that does not fit into the header.
func refusedOption(ext []byte) int {
	for i := 2; i < len(ext); {
		if ext[i] == optPad1 {
			i++
			continue
		}
		if i+2 > len(ext) || i+2+int(ext[i+1]) > len(ext) {
			return 0
		}
		if ext[i]>>6 != optSkip {
			return i
		}
		i += 2 + int(ext[i+1])
	}
	return 0
}
