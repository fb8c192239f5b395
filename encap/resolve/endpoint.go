package resolve

import (
	"encoding/binary"
	"net/netip"

	"sixfour/encap/header"
)

// Endpoint is an outer address, with a port where there are ports. The address is two
// numbers, because netip.AddrPort costs 15 ns more in each direction of a packet.
type Endpoint struct {
	hi, lo uint64 // the IPv6 address; an IPv4 address is mapped (RFC 4291 section 2.5.5.2)
	Port   uint16
	// Form is 0 for the framing of the layer. A mechanism that has another one beside it,
	// such as 6a44, which sends UDP or protocol 41, numbers it.
	Form uint8
}

const mapped = 0xffff << 32

// Endpoint4 returns the endpoint at an IPv4 address, without a port.
func Endpoint4(a uint32) Endpoint { return Endpoint{lo: mapped | uint64(a)} }

// Endpoint6 returns the endpoint at an IPv6 address, without a port.
func Endpoint6(a header.Word6) Endpoint { return Endpoint{hi: a.Hi, lo: a.Lo} }

// EndpointOf returns the endpoint at an address and a port.
func EndpointOf(a netip.AddrPort) Endpoint {
	b := a.Addr().As16()
	return Endpoint{hi: binary.BigEndian.Uint64(b[:]), lo: binary.BigEndian.Uint64(b[8:]), Port: a.Port()}
}

// IsPlain4 reports whether the address is one of IPv4, and Form is 0. It is one comparison,
// because it is asked for every packet.
func (e Endpoint) IsPlain4() bool { return e.hi|(e.lo>>32^0xffff)|uint64(e.Form) == 0 }

// IsPlain6 reports whether the address is one of IPv6, and Form is 0.
func (e Endpoint) IsPlain6() bool { return e.hi|e.lo>>32^0xffff != 0 && e.Form == 0 }

// IPv6 returns the address, which is one of IPv6, as two numbers.
func (e Endpoint) IPv6() header.Word6 { return header.Word6{Hi: e.hi, Lo: e.lo} }

// IPv4 returns the address, which is one of IPv4, as a number.
func (e Endpoint) IPv4() uint32 { return uint32(e.lo) }

// Addr returns the address.
func (e Endpoint) Addr() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], e.hi)
	binary.BigEndian.PutUint64(b[8:], e.lo)
	return netip.AddrFrom16(b).Unmap()
}

// AddrPort returns the address and the port.
func (e Endpoint) AddrPort() netip.AddrPort { return netip.AddrPortFrom(e.Addr(), e.Port) }
