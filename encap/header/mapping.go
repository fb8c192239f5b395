package header

import (
	"encoding/binary"
	"net/netip"
)

// Mapping is the IPv4 address and the UDP port that a node has outside its NAT.
type Mapping struct {
	Addr uint32
	Port uint16
}

// MappingOf returns the mapping at an outer address, which is one of IPv4.
func MappingOf(a netip.AddrPort) Mapping {
	b := a.Addr().Unmap().As4()
	return Mapping{binary.BigEndian.Uint32(b[:]), a.Port()}
}

// AddrPort returns the address and the port.
func (m Mapping) AddrPort() netip.AddrPort {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], m.Addr)
	return netip.AddrPortFrom(netip.AddrFrom4(b), m.Port)
}
