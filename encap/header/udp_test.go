package header_test

import (
	"bytes"
	"net/netip"
	"testing"

	"sixfour/encap/header"
)

func TestPutHeaders(t *testing.T) {
	for _, c := range []struct {
		name, from, at string
		want           []byte
	}{
		{"IPv4", "192.0.2.1:5555", "192.0.2.2:51820", []byte{
			0x45, 0xb9, 0, 32, 0, 0, 0, 0, 61, 17, 0xf9, 0x10, 192, 0, 2, 1, 192, 0, 2, 2, // IPv4: TOS, length, TTL, UDP, checksum
			0x15, 0xb3, 0xca, 0x6c, 0, 12, 0, 0, // UDP: ports, length, no checksum
			1, 2, 3, 4,
		}},
		{"IPv6", "[2001:db8::1]:5555", "[2001:db8::2]:51820", []byte{
			0x6b, 0x90, 0, 0, 0, 12, 17, 61, // IPv6: traffic class, payload length, UDP, hop limit
			0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
			0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
			0x15, 0xb3, 0xca, 0x6c, 0, 12, 0, 0,
			1, 2, 3, 4,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := header.Outer{From: netip.MustParseAddrPort(c.from), At: netip.MustParseAddrPort(c.at), TOS: 0xb9, TTL: 61}
			n := header.HeadersLen(o.From.Addr())
			b := bytes.Repeat([]byte{0xff}, n+4)
			copy(b[n:], []byte{1, 2, 3, 4})
			header.PutHeaders(b, &o)
			if !bytes.Equal(b, c.want) {
				t.Errorf("% x, want % x", b, c.want)
			}
			if c.name == "IPv4" && header.Sum(b[:header.IPv4Len], 0) != 0xffff {
				t.Error("wrong header checksum")
			}
			if got := testing.AllocsPerRun(100, func() { header.PutHeaders(b, &o) }); got != 0 {
				t.Errorf("%v allocations", got)
			}
		})
	}
}

// TestOpenUDP: the headers that PutHeaders has written come back, and nothing that is cut off,
// or of another protocol, is taken for a packet of UDP.
func TestOpenUDP(t *testing.T) {
	for _, o := range []header.Outer{
		{From: netip.MustParseAddrPort("192.0.2.1:1000"), At: netip.MustParseAddrPort("192.0.2.2:2000"), TOS: 0x12, TTL: 3},
		{From: netip.MustParseAddrPort("[2001:db8::1]:1000"), At: netip.MustParseAddrPort("[2001:db8::2]:2000"), TOS: 0xab, TTL: 200},
	} {
		n := header.HeadersLen(o.From.Addr())
		pkt := make([]byte, n+3)
		header.PutHeaders(pkt, &o)
		copy(pkt[n:], "abc")
		got, payload, ok := header.OpenUDP(pkt)
		if !ok || got != o || string(payload) != "abc" {
			t.Errorf("%+v, %q, %v; want %+v", got, payload, ok, o)
		}
		for l := n - header.UDPLen; l < n; l++ {
			if _, _, ok := header.OpenUDP(pkt[:l]); ok {
				t.Errorf("%d bytes of %d are a packet", l, n)
			}
		}
		at := 9
		if o.From.Addr().Is6() {
			at = 6
		}
		pkt[at] = header.ICMP
		if _, _, ok := header.OpenUDP(pkt); ok {
			t.Error("ICMP is UDP")
		}
	}
	long := make([]byte, 28)
	long[0], long[9] = 0x4f, header.UDP // a header of 60 bytes
	if _, _, ok := header.OpenUDP(long); ok {
		t.Error("a header that is longer than the packet")
	}
}
