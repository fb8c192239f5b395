package framing_test

import (
	"bytes"
	"testing"

	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/internal/vectors"
)

// inUDP returns the framings that begin with a UDP header.
func inUDP() (all []framing.Framing) {
	for _, f := range []framing.FOU{
		{Local: 6080, Remote: 6080},
		{Local: 6080, Remote: 6080, Version: 6, Flow: true},
		{Local: 6080, Remote: 6080, Inside: framing.GRE{}},
		{Local: 6080, Remote: 6080, Inside: framing.GRE{Keyed: true, Key: 7, Checksum: true, Sequence: true}},
	} {
		all = append(all, f, framing.GUE(f))
	}
	return append(all, framing.InSession{Local: 6080, Remote: 6080, Extra: 32}, framing.InSession{Local: 6080, Version: 4},
		framing.LISP{}, framing.LISP{Instance: 7, Version: 6})
}

// addVectors adds what follows the IP headers of the vectors of framings in UDP.
func addVectors(f *testing.F) {
	for _, pkt := range vectors.Read(f) {
		at := header.IPv4Len
		if header.Version(pkt) == 6 {
			at = header.IPv6Len
		}
		if len(pkt) > at+header.UDPLen && (at == header.IPv4Len && pkt[9] == header.UDP || pkt[6] == header.UDP) {
			for which := range inUDP() {
				f.Add(byte(which), pkt[at:])
			}
		}
	}
	f.Add(byte(1), []byte{0, 0, 0, 0, 0, 32, 0, 0, 2, 41, 0, 1, 0x80, 0, 0, 0, 0, 4, 0, 2, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
}

// FuzzOpen: no packet causes a panic. What is accepted is the end of the packet, and begins
// with an IP version that the framing carries. A packet in one GUE header has at most one
// checksum that was completed; everything else is unchanged.
func FuzzOpen(f *testing.F) {
	addVectors(f)
	all := inUDP()
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		k := all[int(which)%len(all)]
		pkt := make([]byte, header.IPv6Len+len(b))
		pkt[0], pkt[7] = 6<<4, 255 // a smaller hop limit becomes that of the inner packet with LISP
		udp := pkt[header.IPv6Len:]
		copy(udp, b)
		if len(udp) >= header.UDPLen {
			udp[6], udp[7] = 0, 0 // random checksums would hardly pass
		}
		before := bytes.Clone(pkt)
		inner, version, r := k.Codec(new(framing.State)).Open(pkt, header.IPv6Len)
		if r != drop.None {
			return
		}
		p := k.Properties()
		if !p.Carries(version) {
			t.Fatalf("%+v: IPv%d", k, version)
		}
		at := cap(pkt) - cap(inner)
		if at < header.IPv6Len+header.UDPLen || at+len(inner) > len(pkt) {
			t.Fatalf("%+v: %d bytes at %d of %d", k, len(inner), at, len(pkt))
		}
		changed := 0
		for i := range pkt {
			if pkt[i] != before[i] {
				changed++
			}
		}
		if _, gue := k.(framing.GUE); changed > 2 || changed > 0 && !gue {
			t.Fatalf("%+v: %d bytes have changed", k, changed)
		}
	})
}

// FuzzUnquote: no quote, cut off anywhere, causes a panic. What it returns is the end of the
// quote; and what Append has made is recognized with any packet after it.
func FuzzUnquote(f *testing.F) {
	addVectors(f)
	all := inUDP()
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		k := all[int(which)%len(all)]
		c, p := k.Codec(new(framing.State)), k.Properties()
		inner, size, version, ok := c.Unquote(b, len(b)+100)
		if ok && len(inner) > 0 && (!bytes.HasSuffix(b, inner) || size != len(inner)+100 || !p.Carries(version)) {
			t.Fatalf("%+v: %x, %d bytes, IPv%d, %v", k, inner, size, version, ok)
		}
		version = header.Version(b)
		if len(b) == 0 || !p.Carries(version) || p.Session {
			return
		}
		h := c.Append(nil, version)
		if fl, ok := k.(framing.FOU); ok && fl.Flow {
			h[0] |= 0xc0
		}
		if fl, ok := k.(framing.GUE); ok && fl.Flow {
			h[0] |= 0xc0
		}
		if _, ok := k.(framing.LISP); ok {
			h[0] |= 0xc0
		}
		inner, size, got, ok := c.Unquote(append(h, b...), len(h)+len(b))
		if !ok || got != version || size != len(b) || !bytes.Equal(inner, b) {
			t.Fatalf("%+v: its own header with %x: %x, %d bytes, IPv%d, %v", k, b, inner, size, got, ok)
		}
	})
}
