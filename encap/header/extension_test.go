package header_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// chain returns an IPv6 packet of extension headers, in which each link names the next
// one, and payload after them.
func chain(payload []byte, upper byte, links ...link) header.IPv6 {
	b := make([]byte, header.IPv6Len)
	b[0], b[7] = 0x60, 64
	named := 6
	for _, l := range links {
		b[named], named = l.kind, len(b)
		b = append(b, l.bytes...)
	}
	b[named] = upper
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-header.IPv6Len))
	return b
}

type link struct {
	kind  byte
	bytes []byte // the first byte is filled in
}

var (
	hopByHop = link{header.HopByHop, []byte{0, 0, 1, 4, 0, 0, 0, 0}}
	options  = link{header.DestOptions, []byte{0, 0, 1, 4, 0, 0, 0, 0}}
	discard  = link{header.DestOptions, []byte{0, 0, 0x5e, 4, 0, 0, 0, 0}}
	atomic   = link{header.FragmentHdr, []byte{0, 0, 0, 0, 0, 0, 0, 7}}
	first    = link{header.FragmentHdr, []byte{0, 0, 0, 1, 0, 0, 0, 7}}
	later    = link{header.FragmentHdr, []byte{0, 0, 0, 9, 0, 0, 0, 7}}
	auth     = link{header.AuthHeader, append([]byte{0, 4}, make([]byte, 22)...)} // 24 bytes: (4+2)*4
	mobility = link{header.Mobility, []byte{0, 0, 0, 0, 0, 0, 1, 4}}
	hip      = link{header.HIP, []byte{0, 0, 1, 1, 0, 0, 0, 0}}
	shim     = link{header.Shim6, []byte{0, 0, 0x80, 0, 0, 0, 0, 0}}
	segments = link{header.Routing, append([]byte{0, 2, 4, 1, 0, 0, 0, 0}, make([]byte, 16)...)} // RFC 8754
	source   = link{header.Routing, append([]byte{0, 2, 0, 1, 0, 0, 0, 0}, make([]byte, 16)...)}
	arrived  = link{header.Routing, append([]byte{0, 2, 0, 0, 0, 0, 0, 0}, make([]byte, 16)...)} // no segments left
	lying    = link{header.Routing, append([]byte{0, 200, 0, 1, 0, 0, 0, 0}, make([]byte, 16)...)}
	short    = link{header.Routing, []byte{0, 0, 0, 9, 0, 0, 0, 0}} // shorter than its segments
)

// TestTransit: a routing header of type 0 is found at any position, and headers that
// could hide one are refused.
func TestTransit(t *testing.T) {
	udp := make([]byte, 16)
	for _, c := range []struct {
		name  string
		links []link
		want  drop.Reason
	}{
		{"none", nil, drop.None},
		{"each kind", []link{hopByHop, options, arrived, atomic, auth, mobility, hip, shim}, drop.None},
		{"segment routing", []link{segments}, drop.None},
		{"an option that asks for discard", []link{discard}, drop.None},
		{"alone", []link{source}, drop.SourceRouting},
		{"shorter than its segments", []link{short}, drop.SourceRouting},
		{"the last of eight", append(slices.Repeat([]link{options}, 7), source), drop.SourceRouting},
		{"behind hop-by-hop", []link{hopByHop, source}, drop.SourceRouting},
		{"behind another routing header", []link{segments, source}, drop.SourceRouting},
		{"behind an atomic fragment's header", []link{atomic, source}, drop.SourceRouting},
		{"behind a first fragment's header", []link{first, source}, drop.SourceRouting},
		{"behind two fragment headers", []link{atomic, first, source}, drop.SourceRouting},
		{"behind AH", []link{auth, source}, drop.SourceRouting},
		{"behind mobility", []link{mobility, source}, drop.SourceRouting},
		{"behind HIP", []link{hip, source}, drop.SourceRouting},
		{"behind Shim6", []link{shim, source}, drop.SourceRouting},
		{"with a lying length", []link{lying}, drop.BadExtension},
		{"behind a lying length", []link{{header.DestOptions, []byte{0, 200, 1, 4, 0, 0, 0, 0}}, source}, drop.BadExtension},
		{"behind a lying length of AH", []link{{header.AuthHeader, []byte{0, 255, 0, 0, 0, 0, 0, 0}}, source}, drop.BadExtension},
		{"nine headers", slices.Repeat([]link{options}, 9), drop.BadExtension},
		{"the ninth", append(slices.Repeat([]link{options}, 8), source), drop.BadExtension},
		{"hop-by-hop not first", []link{options, hopByHop}, drop.BadExtension},
		{"hop-by-hop in a fragment", []link{first, hopByHop, source}, drop.BadExtension},
		{"in a fragment but the first", []link{later, source}, drop.None}, // there is no header in it
		{"behind ESP", []link{{50, make([]byte, 8)}, source}, drop.None},  // nobody can see it
	} {
		ip := chain(udp, header.UDP, c.links...)
		up, r := header.Transit(ip)
		if r != c.want {
			t.Errorf("%s: %v, want %v", c.name, r, c.want)
		}
		if at := len(ip) - len(udp); r == drop.None && up.Protocol == header.UDP && !up.Later && up.Offset != at {
			t.Errorf("%s: ends at %d, not %d", c.name, up.Offset, at)
		}
	}
	// RFC 7112: a first fragment that names a header that is in the second.
	if _, r := header.Transit(chain(nil, header.Routing, first)); r != drop.BadExtension {
		t.Errorf("a routing header in the second fragment: %v", r)
	}
	if _, r := header.Transit(chain(nil, header.UDP, first)); r != drop.None {
		t.Errorf("an upper layer in the second fragment: %v", r)
	}
}

// TestWalkExtensions: the end of a tunnel processes the headers of its own packets, and
// not those of others.
func TestWalkExtensions(t *testing.T) {
	inner := make([]byte, 40)
	for _, c := range []struct {
		name  string
		links []link
		want  drop.Reason
		up    byte
	}{
		{"none", nil, drop.None, header.ProtoIPv4},
		{"eight", append([]link{hopByHop}, slices.Repeat([]link{options}, 7)...), drop.None, header.ProtoIPv4},
		{"nine", slices.Repeat([]link{options}, 9), drop.BadExtension, 0},
		{"an option that asks for discard", []link{discard}, drop.BadExtension, 0},
		{"source routing", []link{source}, drop.SourceRouting, 0},
		{"behind an atomic fragment's header", []link{atomic, source}, drop.SourceRouting, 0},
		{"a fragment", []link{first, source}, drop.None, header.Routing}, // processed after reassembly
		{"AH", []link{options, auth}, drop.None, header.AuthHeader},
	} {
		up, r := header.WalkExtensions(chain(inner, header.ProtoIPv4, c.links...))
		if r != c.want || up.Protocol != c.up {
			t.Errorf("%s: %v, protocol %d; want %v, %d", c.name, r, up.Protocol, c.want, c.up)
		}
	}
}

// TestFindUpperInPart: functions for packets that may be cut off report nothing that is
// not in the packet.
func TestFindUpperInPart(t *testing.T) {
	whole := chain(make([]byte, 8), header.ICMPv6, hopByHop, options, auth)
	for n := header.IPv6Len; n <= len(whole); n++ {
		up, ok := header.FindUpper(whole[:n])
		if want := n >= len(whole)-8; ok != want || up.Offset > n {
			t.Errorf("%d bytes: %+v, %v", n, up, ok)
		}
		if ok && (up.Protocol != header.ICMPv6 || !up.Secured) {
			t.Errorf("%d bytes: %+v", n, up)
		}
	}
}

func TestFindEncapLimitBehindOthers(t *testing.T) {
	limit := link{header.DestOptions, []byte{0, 0, 1, 0, 4, 1, 7, 0}}
	ip := chain(make([]byte, 8), header.UDP, hopByHop, options, limit)
	at, found := header.FindEncapLimit(ip)
	if want := bytes.Index(ip, []byte{4, 1, 7}) + 2; !found || at != want {
		t.Errorf("at %d, %v; want %d", at, found, want)
	}
	if _, found := header.FindEncapLimit(chain(make([]byte, 8), header.UDP, atomic, limit)); found {
		t.Error("found in what was fragmented")
	}
}
