package datagrams_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"sixfour/encap/header"
	"sixfour/transport"
	"sixfour/transport/datagrams"
)

var from, at = netip.MustParseAddrPort("198.51.100.1:7777"), netip.MustParseAddrPort("192.0.2.1:5555")

// datagramOf returns a datagram with its headers, as a port writes them.
func datagramOf(from, at netip.AddrPort, payload []byte) []byte {
	n := header.HeadersLen(at.Addr())
	pkt := append(make([]byte, n), payload...)
	header.PutHeaders(pkt, &header.Outer{From: from, At: at, TOS: 2, TTL: 60})
	return pkt
}

// merge puts datagrams of the given payloads, of which only the last may be shorter, into
// one buffer.
func merge(buf []byte, m *transport.Meta, from, at netip.AddrPort, payloads ...[]byte) {
	*m = transport.Meta{Each: len(payloads[0])}
	m.Size = copy(buf, datagramOf(from, at, payloads[0]))
	for _, p := range payloads[1:] {
		m.Size += copy(buf[m.Size:], p)
	}
}

// A cursor goes through the datagrams in a buffer as if each had come alone, whatever their
// size, and leaves the buffer as it was.
func TestCursor(t *testing.T) {
	at6 := netip.MustParseAddrPort("[2001:db8::1]:5555")
	for _, at := range []netip.AddrPort{at, at6} {
		from := map[bool]netip.AddrPort{true: from, false: netip.MustParseAddrPort("[2001:db8::2]:7")}[at.Addr().Is4()]
		for _, sizes := range [][]int{{1000, 1000, 1000}, {1000, 1000, 7}, {1, 1, 1, 1, 1}, {20, 20, 20, 3}, {30, 30}, {47, 47, 1}, slices.Repeat([]int{1400}, 46)} {
			t.Run(fmt.Sprint(at.Addr(), sizes[:min(len(sizes), 5)]), func(t *testing.T) {
				bufs := [][]byte{make([]byte, transport.MaxPacket), make([]byte, 100), make([]byte, transport.MaxPacket), nil}
				meta := make([]transport.Meta, len(bufs))
				var payloads, want [][]byte
				for i, size := range sizes {
					payloads = append(payloads, bytes.Repeat([]byte{byte(i + 1)}, size))
					want = append(want, datagramOf(from, at, payloads[i]))
				}
				merge(bufs[0], &meta[0], from, at, payloads...)
				alone := datagramOf(from, at, []byte("alone"))
				meta[1].Size = copy(bufs[1], alone)
				merge(bufs[2], &meta[2], from, at, payloads...)
				want = slices.Concat(want, [][]byte{alone}, want, [][]byte{nil})
				before := bytes.Clone(bufs[0])
				c := new(datagrams.Cursor)
				c.Start(bufs, meta)
				for i, pkt := range want {
					if !c.Next() {
						t.Fatalf("it ends after %d packets, want %d", i, len(want))
					}
					if !bytes.Equal(c.Packet, pkt) {
						t.Fatalf("packet %d:\n got %x\nwant %x", i, c.Packet, pkt)
					}
					if i%2 == 1 { // it may be restored early, and be needed again
						c.Restore()
						if i%3 == 1 {
							c.PutHeaders()
						}
					}
				}
				if c.Next() || c.Next() {
					t.Error("it does not end")
				}
				if c.Count != len(want) || !bytes.Equal(bufs[0], before) {
					t.Errorf("%d packets; the buffer is as it was: %v", c.Count, bytes.Equal(bufs[0], before))
				}
			})
		}
	}
}
