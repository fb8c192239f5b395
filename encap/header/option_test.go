package header_test

import (
	"testing"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// TestFindProblem checks options by the top bits of their types (RFC 8200 section 4.2),
// and routing headers.
func TestFindProblem(t *testing.T) {
	one, many := byte(0xfc), byte(0xff)
	for _, c := range []struct {
		name string
		to   byte   // first byte of the destination
		next byte   // of the IPv6 header
		ext  []byte // what follows it
		at   int
		tell bool
	}{
		{"none", one, header.DestOptions, []byte{4, 0, 1, 4, 0, 0, 0, 0}, 0, false},
		{"to be skipped", one, header.DestOptions, []byte{4, 0, 0x3e, 4, 0, 0, 0, 0}, 0, false},
		{"to be dropped", one, header.DestOptions, []byte{4, 0, 0x7e, 4, 0, 0, 0, 0}, 0, false},
		{"to be told", one, header.DestOptions, []byte{4, 0, 0x9e, 4, 0, 0, 0, 0}, 42, true},
		{"to be told, too", one, header.DestOptions, []byte{4, 0, 0xde, 4, 0, 0, 0, 0}, 42, true},
		{"to many", many, header.DestOptions, []byte{4, 0, 0x9e, 4, 0, 0, 0, 0}, 42, true},
		{"to many, not to be told", many, header.DestOptions, []byte{4, 0, 0xde, 4, 0, 0, 0, 0}, 42, false},
		{"behind padding", one, header.DestOptions, []byte{4, 0, 0, 1, 1, 0, 0x9e, 0}, 46, true},
		{"behind the encapsulation limit", one, header.DestOptions, []byte{4, 1, 4, 1, 3, 0, 0x9e, 8, 0, 0, 0, 0, 0, 0, 0, 0}, 46, true},
		{"hop by hop", one, header.HopByHop, []byte{header.DestOptions, 0, 0x3e, 4, 0, 0, 0, 0, 4, 0, 0x9e, 4, 0, 0, 0, 0}, 50, true},
		{"the first one decides", one, header.DestOptions, []byte{4, 0, 0x7e, 0, 0x9e, 0, 1, 0}, 0, false},
		{"too long", one, header.DestOptions, []byte{4, 0, 0x9e, 5, 0, 0, 0, 0}, 0, false},
		{"cut off", one, header.DestOptions, []byte{4, 1, 0x9e, 4, 0, 0, 0, 0}, 0, false},
		{"no length", one, header.DestOptions, []byte{4, 0, 1, 3, 0, 0, 0, 0x9e}, 0, false},
		{"a route", one, header.Routing, []byte{4, 0, 0, 1, 0, 0, 0, 0}, 42, true},
		{"a route of another type", one, header.Routing, []byte{4, 0, 4, 1, 0, 0, 0, 0}, 42, true},
		{"a route that ends here", one, header.Routing, []byte{4, 0, 4, 0, 0, 0, 0, 0}, 0, false},
		{"in what was fragmented", one, header.FragmentHdr, []byte{header.DestOptions, 0, 0, 1, 0, 0, 0, 7, 4, 0, 0x9e, 4, 0, 0, 0, 0}, 0, false},
	} {
		ip := header.IPv6(append(make([]byte, header.IPv6Len), c.ext...))
		ip[0], ip[5], ip[6] = 0x60, byte(len(c.ext)), c.next
		ip[24] = c.to
		code, at, tell := header.FindProblem(ip)
		if tell != c.tell || tell && (at != c.at || (code == header.UnknownOption) != (ip[at] >= 0x80)) {
			t.Errorf("%s: code %d, %d, %v", c.name, code, at, tell)
		}
		if c.tell {
			if _, r := header.WalkExtensions(ip); r == drop.None {
				t.Errorf("%s: is let in", c.name)
			}
		}
	}
}
