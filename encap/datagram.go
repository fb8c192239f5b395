package encap

import (
	"cmp"
	"encoding/binary"
	"net/netip"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Datagram makes the outer packet of a datagram that is not encapsulated, such as a control
// message of a mechanism: from our end and port of the outermost layer, whose framing has
// ports, to another one. From is another address and port of ours: one that is invalid or 0
// stands for that of the layer. The payload is b[off:], and off must be at least Headroom. It
// returns the packet, a part of b.
func (s *Stack) Datagram(b []byte, off int, from, to netip.AddrPort) ([]byte, drop.Reason) {
	l := s.layers[len(s.layers)-1]
	ports := l.Kind.Properties().Ports
	port := ports.Local
	is := netip.Addr.Is4
	src := l.Local
	if from.Addr().IsValid() {
		src = from.Addr()
	}
	if s.outer == 6 {
		is = netip.Addr.Is6
	}
	switch n := len(b) - off; {
	case port == 0 || from.Port() != 0 && from.Port() != port && from.Port() != ports.Control || to.Port() == 0 || !is(to.Addr()):
		return nil, drop.NoRoute
	case n > maxIPv4-header.IPv6Len-header.UDPLen:
		return nil, drop.TooBig
	}
	off -= header.UDPLen
	udp := b[off:]
	binary.BigEndian.PutUint16(udp, cmp.Or(from.Port(), port))
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], 0)
	var sum uint32
	if s.outer == 4 {
		off -= header.IPv4Len
		ip := header.IPv4(b[off:])
		clear(ip[:header.IPv4Len])
		ip[0], ip[8], ip[9] = 0x45, datagramTTL(s.options.TTL), header.UDP
		if to.Addr().IsMulticast() { // to this link only
			ip[8] = 1
		}
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		if ports.Unsummed {
			binary.BigEndian.PutUint16(ip[6:], header.DF)
		} else {
			binary.BigEndian.PutUint16(ip[4:], s.record.nextID4())
		}
		copy(ip.Source(), src.AsSlice())
		copy(ip.Dest(), to.Addr().AsSlice())
		ip.SetChecksum()
		sum = header.PseudoSum(ip.Source(), ip.Dest(), len(udp), header.UDP)
	} else {
		off -= header.IPv6Len
		ip := header.IPv6(b[off:])
		clear(ip[:header.IPv6Len])
		ip[0], ip[6], ip[7] = 6<<4, header.UDP, datagramTTL(s.options.HopLimit)
		binary.BigEndian.PutUint16(ip[4:], uint16(len(udp)))
		copy(ip.Source(), src.AsSlice())
		copy(ip.Dest(), to.Addr().AsSlice())
		sum = header.PseudoSum(ip.Source(), ip.Dest(), len(udp), header.UDP)
	}
	if !ports.Unsummed {
		header.SetUDPChecksum(udp, ^header.Sum(udp, sum))
	}
	return b[off:], drop.None
}

// datagramTTL returns the TTL of a packet without an inner one.
func datagramTTL(ttl int) byte {
	if ttl == InheritTTL {
		ttl = DefaultOptions.TTL
	}
	return byte(ttl)
}
