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

// maxExtensions is the longest chain of extension headers that is followed. RFC 8200
// section 4.1 recommends an order in which destination options stand twice and every
// other kind once, and no sender is known that needs more.
const maxExtensions = 8

// IsExtension reports whether a next header number is that of an extension header
// that says which header follows (IANA's list of IPv6 extension header types). The
// others are not followed: ESP hides what follows it, and of the numbers for
// experiments (253 and 254) nobody can tell what they are.
func IsExtension(next byte) bool {
	switch next {
	case HopByHop, Routing, FragmentHdr, AuthHeader, DestOptions, Mobility, HIP, Shim6:
		return true
	}
	return false
}

// Walk goes along the extension headers of an IPv6 packet, one with each call of Next.
// All code that looks behind an IPv6 header uses it, so that no two places disagree on
// what a packet is.
type Walk struct {
	Kind     byte // of the header at Offset
	Offset   int  // in the packet, in bytes; never beyond its end
	Named    int  // offset of the byte that says Kind
	Fragment bool // a fragment header was passed that stands for a fragment (RFC 6946: an atomic one does not)
	Later    bool // and not for the first one: what is at Offset is no header
	// Broken: the header at Offset is an extension header that leads out of the
	// packet, the ninth one, or a hop-by-hop header anywhere but first (RFC 8200
	// section 4.3).
	Broken bool

	passed int
}

// StartWalk begins behind the IPv6 header, which must be there.
func StartWalk(ip IPv6) Walk { return Walk{Kind: ip.NextHeader(), Offset: IPv6Len, Named: 6} }

// Next returns the extension header at Offset and moves behind it. Not ok is the end:
// what is at Offset is not an extension header, or the walk is Later or Broken.
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

// Upper is where a chain of extension headers ends.
type Upper struct {
	Protocol byte // of the first header that is not an extension header
	Offset   int  // of that header in the packet, in bytes
	Fragment bool // the packet is a fragment; Protocol is what the fragment header says
	Later    bool // and not the first: there is no header at Offset
	Secured  bool // an authentication header (RFC 4302) covers it: it must not be changed
}

func (w *Walk) upper(secured bool) Upper {
	return Upper{w.Kind, w.Offset, w.Fragment, w.Later, secured}
}

// WalkExtensions follows the extension headers of a packet from ParseIPv6 to
// the upper layer (RFC 8200 section 4), as the node to which the packet is
// addressed. It stops at a fragment header that really stands for a fragment, and at
// headers that the end of a tunnel does not process, such as AH. It refuses: chains
// that are Broken, options whose type asks for discard when unknown (its top bits not
// 00, RFC 8200 section 4.2), and routing headers with segments left (RFC 8200 section
// 4.4, RFC 5095).
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

// Transit follows the extension headers of a packet from ParseIPv6 that is for
// another node, as a firewall must. It refuses routing headers of type 0 with segments
// left, which no node may forward or accept (RFC 5095), and every chain that is Broken:
// such a header could be hidden in what cannot be followed, and a first fragment must
// hold the whole chain (RFC 7112). What options ask for is for the destination.
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

// routes reports whether a routing header has segments left: the end of a tunnel
// executes none, of whatever type.
func routes(routing []byte) bool { return routing[3] > 0 }

// sourceRoute reports whether a routing header is of type 0 with segments left.
func sourceRoute(routing []byte) bool { return routing[2] == 0 && routing[3] > 0 }

// FindUpper follows the extension headers of a packet that may be there only in
// part, as in the quote of an ICMP error. Not ok means that the chain does not lead
// to its end.
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

// FindEncapLimit finds the tunnel encapsulation limit in a packet that is about
// to enter a tunnel (RFC 2473 section 4.1.1): the offset of its value, if there is
// one. The headers up to the first that is no extension header may be there only
// in part.
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

// FindProblem finds what WalkExtensions refuses in a packet to this node, and of which
// its sender is to be told: the code of the Parameter Problem and the offset of the
// first byte that is at fault. That is an option that nobody here knows, if it asks for
// it (RFC 8200 section 4.2), or the type of a routing header that still leads somewhere
// (RFC 8200 section 4.4, RFC 5095 section 3). Not found: nobody is to be told.
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

// The top bits of an option's type: what a node that does not know it is to do.
const (
	optSkip        = 0
	optTell        = 2 // discard the packet, and tell its sender
	optTellUnicast = 3 // the same, but not if the packet was to many
)

// refusedOption is the offset of the first option that is not to be skipped; 0: there
// is none, up to where the options lead out of their header.
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
