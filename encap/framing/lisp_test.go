package framing_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// What follows the IPv4 header of the vectors LISP-1 and LISP-2, without the LISP header.
const (
	lispUDP   = "f12310f500480000"
	lispInner = "6000000000103a3f20010db800e10000000000000000000120010db800e200000000000000000001" + // IPv6
		"800042e212340001736978666f757221" // echo request
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLISPOpen(t *testing.T) {
	inner := unhex(t, lispInner)
	for _, f := range []struct {
		name   string
		lisp   framing.LISP
		header string
		want   drop.Reason
	}{
		{"LISP-1: nonce and status bits", framing.LISP{}, "c0abcdef00000001", drop.None},
		{"LISP-2: instance 7", framing.LISP{Instance: 7}, "c8abcdef00000701", drop.None},
		{"instance 7 in another", framing.LISP{Instance: 8}, "c8abcdef00000701", drop.NoPeer},
		{"instance 7 in instance 0", framing.LISP{}, "c8abcdef00000701", drop.NoPeer},
		{"no instance in instance 7", framing.LISP{Instance: 7}, "c0abcdef00000701", drop.NoPeer},
		{"instance 0 given", framing.LISP{}, "0800000000000000", drop.None},
		{"map version", framing.LISP{}, "1000100100000000", drop.None},
		{"nonce and map version", framing.LISP{}, "9000100100000000", drop.UnknownProtocol},
		{"encrypted", framing.LISP{}, "0100000000000000", drop.UnknownProtocol},
		{"IPv6 where IPv4 is carried", framing.LISP{Version: 4}, "c0abcdef00000001", drop.UnknownProtocol},
	} {
		pkt := append(append(make([]byte, header.IPv4Len), unhex(t, lispUDP+f.header)...), inner...)
		pkt[0] = 4<<4 | 5
		if f.lisp.Matches(pkt[header.IPv4Len:]) == (f.want == drop.NoPeer) {
			t.Errorf("%s: matches", f.name)
		}
		c := f.lisp.Codec(new(framing.State)).(framing.DatagramCodec)
		for how, open := range []func() ([]byte, int, drop.Reason){
			func() ([]byte, int, drop.Reason) { return c.Open(pkt, header.IPv4Len) },
			func() ([]byte, int, drop.Reason) {
				return c.OpenDatagram(pkt[header.IPv4Len+header.UDPLen:], header.Outer{})
			},
		} {
			got, version, r := open()
			if r != f.want || r == drop.None && (version != 6 || !bytes.Equal(got, inner)) {
				t.Errorf("%s, %d: %x, IPv%d, %v", f.name, how, got, version, r)
			}
		}
	}
}

// A header that Append and Finish have made is that of RFC 9300, and Open and Unquote
// recognize it. Nothing is allocated for a packet.
func TestLISPSent(t *testing.T) {
	for want, f := range map[string]framing.LISP{
		"0000000000000000": {},
		"0800000000000700": {Instance: 7},
	} {
		c := f.Codec(new(framing.State))
		ip := append([]byte{4<<4 | 5}, make([]byte, header.IPv4Len-1)...)
		pkt := append(c.Append(ip, 6), unhex(t, lispInner)...)
		inner := pkt[len(pkt)-len(lispInner)/2:]
		if n := len(pkt) - len(ip) - len(inner); n != f.Properties().Overhead {
			t.Fatalf("%+v: %d bytes of headers", f, n)
		}
		if n := testing.AllocsPerRun(100, func() {
			c.Finish(pkt, header.IPv4Len, nil)
			if got, _, r := c.Open(pkt, header.IPv4Len); r != drop.None || len(got) != len(inner) {
				t.Fatalf("%+v: %v", f, r)
			}
		}); n != 0 {
			t.Errorf("%+v: %v allocations", f, n)
		}
		got := hex.EncodeToString(pkt[header.IPv4Len:])
		if port := pkt[header.IPv4Len]; port < 0xc0 || !strings.HasPrefix(got[4:], "10f500480000"+want) {
			t.Errorf("%+v: %s", f, got)
		}
		quoted := pkt[header.IPv4Len:]
		for n := range len(quoted) + 1 {
			if _, _, _, ok := c.Unquote(quoted[:n], len(quoted)); !ok {
				t.Errorf("%+v: a quote of %d bytes is not recognized", f, n)
			}
		}
		if _, _, _, ok := (framing.LISP{Instance: 9}).Codec(new(framing.State)).Unquote(quoted, len(quoted)); ok {
			t.Errorf("%+v: recognized in instance 9", f)
		}
	}
}
