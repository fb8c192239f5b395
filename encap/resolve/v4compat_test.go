package resolve

import (
	"testing"

	"sixfour/encap/drop"
)

func TestV4Compat(t *testing.T) {
	s := at("10.1.1.1", "::10.1.1.1/96")
	s.Links = prefixes("10.1.1.1/24", "10.9.9.9/24")
	r := resolver(t, V4Compat{}, s)
	for _, f := range []flow{
		{src: "::10.1.1.1", dst: "::10.2.2.2", out: "10.2.2.2"},
		{src: "::10.1.1.7", dst: "::10.2.2.2", why: drop.Spoof},
		{src: "2001:db8::1", dst: "::10.2.2.2", why: drop.Spoof},
		{src: "::10.1.1.1", dst: "2001:db8::1", why: drop.NoPeer},
		{src: "fe80::1", dst: "fe80::2", why: drop.NoPeer},
		{src: "::10.1.1.1", dst: "ff02::1", why: drop.NoPeer},
		{src: "::10.1.1.1", dst: "::ffff:10.2.2.2", why: drop.NoPeer},
		{src: "::10.1.1.1", dst: "::1", why: drop.Martian},
		{src: "::10.1.1.1", dst: "::", why: drop.Martian},
		{src: "::10.1.1.1", dst: "::127.0.0.1", why: drop.Martian},
		{src: "::10.1.1.1", dst: "::224.0.0.1", why: drop.Martian},
		{src: "::10.1.1.1", dst: "::255.255.255.255", why: drop.Martian},
		{src: "::10.1.1.1", dst: "::10.1.1.255", why: drop.Martian}, // our subnet's broadcast
		{src: "::10.1.1.1", dst: "::10.1.1.1", why: drop.Loop},
		{src: "::10.1.1.1", dst: "::10.9.9.9", why: drop.Loop},
		{in: "10.2.2.2", to: "10.1.1.1", src: "::10.2.2.2", dst: "::10.1.1.1"},
		{in: "10.2.2.3", to: "10.1.1.1", src: "::10.2.2.2", dst: "::10.1.1.1", why: drop.Spoof},
		{in: "10.2.2.2", to: "10.1.1.1", src: "::10.2.2.2", dst: "::10.1.1.2", why: drop.Spoof},
		{in: "10.2.2.2", to: "10.1.1.1", src: "::10.2.2.2", dst: "2001:db8::1", why: drop.Spoof},
		{in: "10.2.2.2", to: "10.1.1.1", src: "2001:db8::2", dst: "::10.1.1.1", why: drop.ForeignSource},
		{in: "10.2.2.2", to: "10.1.1.1", src: "fe80::2", dst: "::10.1.1.1", why: drop.ForeignSource},
		{in: "10.1.1.1", to: "10.1.1.1", src: "::10.1.1.1", dst: "::10.1.1.1", why: drop.OwnSource},
		{in: "10.2.2.2", to: "10.1.1.1", src: "::10.9.9.9", dst: "::10.1.1.1", why: drop.OwnSource},
		{in: "0.0.0.1", to: "10.1.1.1", src: "::1", dst: "::10.1.1.1", why: drop.Martian},
		{in: "10.1.1.255", to: "10.1.1.1", src: "::10.1.1.255", dst: "::10.1.1.1", why: drop.Martian},
	} {
		f.check(t, r)
	}
}
