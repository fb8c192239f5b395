package framing

import (
	"net/netip"
	"testing"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Only control messages arrive at the port of control messages; a packet there is one, too.
func TestSixInUDPControl(t *testing.T) {
	packet := append([]byte{0x60, 0, 0, 0, 0, 1, 253, 64, 0x20, 1, 0x0d, 0xb8, 15: 0, 23: 1, 24: 0x20, 25: 1, 26: 0x0d, 27: 0xb8, 39: 2}, 'x')
	for _, k := range []struct {
		framing SixInUDP
		to      uint16
		matches bool
		why     drop.Reason
	}{
		{SixInUDP{Local: 50001, Control: 3544}, 50001, true, drop.None},
		{SixInUDP{Local: 50001, Control: 3544}, 3544, true, drop.UnknownProtocol},
		{SixInUDP{Local: 50001, Group: 3544}, 3544, true, drop.UnknownProtocol},
		{SixInUDP{Local: 3544, Group: 3544}, 3544, true, drop.None},
		{SixInUDP{Local: 50001}, 3544, false, drop.None},
		{SixInUDP{Local: 50001}, 0, false, drop.None},
	} {
		udp := []byte{0xc3, 0x51, byte(k.to >> 8), byte(k.to), 0, byte(header.UDPLen + len(packet)), 0, 0}
		if got := k.framing.Matches(udp); got != k.matches {
			t.Errorf("%+v: port %d matches: %v", k.framing, k.to, got)
		}
		if !k.matches {
			continue
		}
		c := k.framing.Codec(new(State)).(*sixInUDPCodec)
		at := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), k.to)
		if inner, _, why := c.OpenDatagram(packet, header.Outer{At: at}); why != k.why || len(inner) != len(packet) {
			t.Errorf("%+v: port %d: %v", k.framing, k.to, why)
		}
	}
}
