package encap_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// GUE headers that a kernel refuses are refused, and those that it accepts are accepted.
func TestGUEHeaders(t *testing.T) {
	inner := header6("2001:db8:1::1", "2001:db8:2::1", header.UDP, make([]byte, 20))
	gre := append([]byte{0, 0, 0x86, 0xdd}, inner...)
	six := framing.GUE{Local: 6080, Remote: 6080, Version: 6}
	withGRE := framing.GUE{Local: 6080, Remote: 6080, Inside: framing.GRE{}}
	for _, c := range []struct {
		name string
		f    framing.GUE
		gue  []byte
		pkt  []byte
		want drop.Reason
	}{
		{"plain", six, []byte{0, 41, 0, 0}, inner, drop.None},
		{"words without flags", six, []byte{2, 41, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, inner, drop.None},
		{"words after the private flags", six, []byte{2, 41, 0, 1, 0, 0, 0, 0, 5, 6, 7, 8}, inner, drop.None},
		{"private flags without a word", six, []byte{0, 41, 0, 1}, inner, drop.BadGUE},
		{"an unknown flag", six, []byte{0, 41, 0x80, 0}, inner, drop.BadGUE},
		{"an unknown flag beside a known one", six, []byte{1, 41, 0, 3, 0, 0, 0, 0}, inner, drop.BadGUE},
		{"an unknown private flag", six, []byte{1, 41, 0, 1, 0x40, 0, 0, 0}, inner, drop.BadGUE},
		{"two private flags", six, []byte{2, 41, 0, 1, 0x80, 0, 0, 1, 0, 40, 0, 46}, inner, drop.BadGUE},
		{"a checksum without offsets", six, []byte{1, 41, 0, 1, 0x80, 0, 0, 0}, inner, drop.BadGUE},
		{"a checksum behind the packet", six, []byte{2, 41, 0, 1, 0x80, 0, 0, 0, 0, 40, 0, 59}, inner, drop.Truncated},
		{"a checksum from behind the packet", six, []byte{2, 41, 0, 1, 0x80, 0, 0, 0, 0, 61, 0, 46}, inner, drop.Truncated},
		{"more words than there are", six, []byte{31, 41, 0, 0}, inner, drop.Truncated},
		{"half a header", six, []byte{0, 41}, nil, drop.Truncated},
		{"nothing", six, nil, nil, drop.Truncated},
		{"a control message", six, []byte{0x20, 41, 0, 0}, inner, drop.BadGUE},
		{"variant 1 with IPv6", six, nil, inner, drop.None},
		{"variant 1 with IPv4", six, nil, header4("10.0.0.1", "10.0.0.2", header.UDP, nil), drop.UnknownProtocol},
		{"variant 1 with version 5", six, nil, []byte{0x50, 0, 0, 0, 0}, drop.UnknownProtocol},
		{"variant 1 with version 7", six, nil, []byte{0x70, 0, 0, 0, 0}, drop.UnknownProtocol},
		{"variant 2", six, []byte{0x80, 41, 0, 0}, inner, drop.BadGUE},
		{"variant 3", six, []byte{0xc0, 41, 0, 0}, inner, drop.BadGUE},
		{"another protocol", six, []byte{0, 17, 0, 0}, inner, drop.UnknownProtocol},
		{"the protocol of the other version", six, []byte{0, 4, 0, 0}, inner, drop.UnknownProtocol},
		{"GRE", withGRE, []byte{0, 47, 0, 0}, gre, drop.None},
		{"GRE without its protocol", withGRE, []byte{0, 41, 0, 0}, gre, drop.UnknownProtocol},
		{"IPv6 instead of GRE", withGRE, nil, inner, drop.UnknownProtocol},
		{"GRE instead of IPv6", six, []byte{0, 47, 0, 0}, gre, drop.UnknownProtocol},
	} {
		in := build(t, []encap.Layer{layer(encap.SixInFour.With(c.f), "192.0.2.1", "198.51.100.2")}, 1500, encap.DefaultOptions)
		udp := append([]byte{0x30, 0x39, 6080 >> 8, 6080 & 0xff, 0, byte(8 + len(c.gue) + len(c.pkt)), 0, 0}, c.gue...)
		got, r := in.Decapsulate(header4("198.51.100.2", "192.0.2.1", header.UDP, append(udp, c.pkt...)))
		if r != c.want || r == drop.None && !bytes.Equal(got, inner) {
			t.Errorf("%s: %v, want %v: %x", c.name, r, c.want, got)
		}
	}
}

// A checksum of UDP that is completed is never 0, which stands for none.
func TestGUEChecksumNotZero(t *testing.T) {
	inner := header6("2001:db8:1::1", "2001:db8:2::1", header.UDP, []byte{0, 7, 0, 9, 0, 10, 0, 0, 0, 0})
	ip, udp := header.IPv6(inner), inner[header.IPv6Len:]
	binary.BigEndian.PutUint16(udp[6:], header.Fold(header.PseudoSum(ip.Source(), ip.Dest(), len(udp), header.UDP)))
	binary.BigEndian.PutUint16(udp[8:], ^header.Sum(udp, 0))
	outer := append([]byte{0x30, 0x39, 6080 >> 8, 6080 & 0xff, 0, byte(20 + len(inner)), 0, 0, 2, 41, 0, 1, 0x80, 0, 0, 0, 0, 40, 0, 46}, inner...)
	in := build(t, []encap.Layer{layer(encap.SixInFour.With(framing.GUE{Local: 6080, Remote: 6080, Version: 6}), "192.0.2.1", "198.51.100.2")}, 1500, encap.DefaultOptions)
	got, r := in.Decapsulate(header4("198.51.100.2", "192.0.2.1", header.UDP, outer))
	if r != drop.None || binary.BigEndian.Uint16(got[header.IPv6Len+6:]) != 0xffff {
		t.Errorf("%v: %x", r, got)
	}
}
