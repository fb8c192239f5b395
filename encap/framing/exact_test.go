package framing

import (
	"net/netip"
	"testing"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// A framing with Exact set receives packets from the peer's port only, so that several peers
// may have one address; without it, from any port.
func TestExact(t *testing.T) {
	from := func(port uint16) []byte {
		o := header.Outer{From: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.2"), port), At: netip.MustParseAddrPort("192.0.2.1:5555"), TTL: 64}
		inner := append([]byte{0x60, 0, 0, 0, 0, 0, 59, 64}, make([]byte, 32)...)
		n := header.HeadersLen(o.From.Addr())
		pkt := append(make([]byte, n), inner...)
		header.PutHeaders(pkt, &o)
		return pkt
	}
	exact := FOU{Local: 5555, Remote: 20001, Version: 6, Exact: true}
	for _, f := range []Framing{exact, GUE(exact), FOU{Local: 5555, Remote: 20001, Version: 6}} {
		ours, other := from(20001), from(20002)
		p, c := f.Properties().Ports, f.Codec(new(State))
		if !f.Matches(ours[header.IPv4Len:]) || f.Matches(other[header.IPv4Len:]) == p.Exact {
			t.Errorf("%+v: matches", f)
		}
		want := drop.None
		if p.Exact {
			want = drop.ForeignSource
		}
		if _, _, r := c.Open(ours, header.IPv4Len); r != drop.None {
			t.Errorf("%+v: the peer's packet: %v", f, r)
		}
		if _, _, r := c.Open(other, header.IPv4Len); r != want {
			t.Errorf("%+v: a packet from another port: %v", f, r)
		}
		d := c.(DatagramCodec)
		if _, _, r := d.OpenDatagram(other[header.IPv4Len+header.UDPLen:], header.Outer{From: netip.MustParseAddrPort("198.51.100.2:20002")}); r != want {
			t.Errorf("%+v: a datagram from another port: %v", f, r)
		}
	}
	if next := (Ports{Local: 5555, Remote: 20002, Exact: true}); exact.Properties().Ports.Clash(next) || !exact.Properties().Ports.Clash(exact.Properties().Ports) || !next.Clash(Ports{Local: 5555, Remote: 20001}) {
		t.Error("which ports clash")
	}
}
