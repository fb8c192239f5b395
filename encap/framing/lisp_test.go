package framing_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
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
		pkt[0], pkt[8] = 4<<4|5, 64
		if f.lisp.Matches(pkt[header.IPv4Len:]) == (f.want == drop.NoPeer) {
			t.Errorf("%s: matches", f.name)
		}
		c := f.lisp.Codec(new(framing.State)).(framing.DatagramCodec)
		for how, open := range []func() ([]byte, int, drop.Reason){
			func() ([]byte, int, drop.Reason) { return c.Open(pkt, header.IPv4Len) },
			func() ([]byte, int, drop.Reason) {
				return c.OpenDatagram(pkt[header.IPv4Len+header.UDPLen:], header.Outer{TTL: 64})
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
		ip := append([]byte{4<<4 | 5, 8: 64}, make([]byte, header.IPv4Len-9)...)
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

// The TTL of an inner packet becomes that of the outer header if that is smaller.
func TestLISPTTL(t *testing.T) {
	six := unhex(t, lispInner)
	four := header.IPv4(append([]byte{4<<4 | 5, 3: header.IPv4Len + 4, 8: 64, 9: 253, 12: 192, 15: 1, 16: 192, 19: 2}, "data"...))
	four.SetChecksum()
	c := framing.LISP{}.Codec(new(framing.State)).(framing.DatagramCodec)
	for _, inner := range [][]byte{six, four} {
		for _, f := range []struct{ outer, want byte }{{255, 64}, {64, 64}, {63, 63}, {1, 1}} {
			pkt := append(append(make([]byte, header.IPv4Len), unhex(t, lispUDP+"0000000000000000")...), inner...)
			pkt[0], pkt[8] = 4<<4|5, f.outer
			binary.BigEndian.PutUint16(pkt[header.IPv4Len+4:], uint16(len(pkt)-header.IPv4Len))
			if header.Version(inner) == 6 {
				f.want = min(f.want, six[7])
			}
			for how, open := range []func() ([]byte, int, drop.Reason){
				func() ([]byte, int, drop.Reason) { return c.Open(pkt, header.IPv4Len) },
				func() ([]byte, int, drop.Reason) {
					return c.OpenDatagram(bytes.Clone(pkt[header.IPv4Len+header.UDPLen:]), header.Outer{TTL: f.outer})
				},
			} {
				got, version, r := open()
				if r != drop.None {
					t.Fatalf("IPv%d, %d: %v", version, how, r)
				}
				ttl := got[7]
				if version == 4 {
					ttl = got[8]
					if _, r := header.ParseIPv4(got); r != drop.None {
						t.Errorf("header after a TTL of %d: %v", f.outer, r)
					}
				}
				if ttl != f.want {
					t.Errorf("IPv%d, outer TTL %d: %d, want %d", version, f.outer, ttl, f.want)
				}
			}
		}
	}
	for n := range header.IPv6Len { // too short: the caller refuses it
		c.OpenDatagram(append(make([]byte, 8), six[:n]...), header.Outer{TTL: 1})
	}
}

// What arrives at the port of control messages is one, whatever it begins with.
func TestLISPControl(t *testing.T) {
	c := framing.LISP{Instance: 7}.Codec(new(framing.State)).(framing.DatagramCodec)
	message := unhex(t, "2000000100000000000000010000000f00242000")
	pkt := append(append(make([]byte, header.IPv4Len), unhex(t, "10f610f6001c0000")...), message...)
	pkt[0] = 4<<4 | 5
	if got, _, r := c.Open(pkt, header.IPv4Len); r != drop.UnknownProtocol || !bytes.Equal(got, message) {
		t.Errorf("%x, %v", got, r)
	}
	at := header.Outer{At: netip.MustParseAddrPort("192.0.2.1:4342")}
	if got, _, r := c.OpenDatagram(message, at); r != drop.UnknownProtocol || !bytes.Equal(got, message) {
		t.Errorf("from a socket: %x, %v", got, r)
	}
	pkt[header.IPv4Len+7] = 1
	if got, _, r := c.Open(pkt, header.IPv4Len); r != drop.BadChecksum || got != nil {
		t.Errorf("with a wrong checksum: %x, %v", got, r)
	}
}
