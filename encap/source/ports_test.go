package source

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// A packet to a UDP port of ours at which packets of tunnels arrive is refused inside a
// tunnel: the kernel would deliver it as if it had come from its source.
func TestNestedUDP(t *testing.T) {
	s := New(nil, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, false).Ports([]uint16{5555})
	for _, c := range []struct {
		name string
		dst  string
		port uint16
		frag uint16 // flags and offset in the IPv4 header
		want drop.Reason
	}{
		{"to the port", "192.0.2.1", 5555, 0, drop.Nested},
		{"to the port, the first fragment", "192.0.2.1", 5555, header.MF, drop.Nested},
		{"a later fragment", "192.0.2.1", 5555, 100, drop.None},
		{"to another port", "192.0.2.1", 53, 0, drop.None},
		{"to another host", "192.0.2.9", 5555, 0, drop.None},
		{"over IPv6", "2001:db8::1", 5555, 0, drop.Nested},
		{"over IPv6, another port", "2001:db8::1", 53, 0, drop.None},
	} {
		udp := make([]byte, header.UDPLen)
		binary.BigEndian.PutUint16(udp[2:], c.port)
		dst := netip.MustParseAddr(c.dst)
		var pkt []byte
		if dst.Is4() {
			ip := make(header.IPv4, header.IPv4Len, header.IPv4Len+len(udp))
			ip[0], ip[8], ip[9] = 0x45, 64, header.UDP
			binary.BigEndian.PutUint16(ip[2:], uint16(header.IPv4Len+len(udp)))
			binary.BigEndian.PutUint16(ip[6:], c.frag)
			copy(ip[12:], []byte{198, 51, 100, 9})
			copy(ip[16:], dst.AsSlice())
			pkt = append(ip, udp...)
		} else {
			ip := make(header.IPv6, header.IPv6Len, header.IPv6Len+len(udp))
			ip[0], ip[6], ip[7] = 0x60, header.UDP, 64
			binary.BigEndian.PutUint16(ip[4:], uint16(len(udp)))
			copy(ip[8:], netip.MustParseAddr("2001:db8:9::9").AsSlice())
			copy(ip[24:], dst.AsSlice())
			pkt = append(ip, udp...)
		}
		if got := s.Check(pkt); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
