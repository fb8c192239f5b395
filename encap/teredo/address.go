// Package teredo reads and writes what Teredo nodes send inside UDP (RFC 4380, RFC 5991, RFC
// 6081): addresses, bubbles, router solicitations and advertisements, and the headers and
// trailers around IPv6 packets.
package teredo

import (
	"net/netip"

	"sixfour/encap/header"
)

// Port is the UDP port of servers.
const Port = 3544

// DiscoveryGroup is the IPv4 multicast group of clients (RFC 4380 section 2.17).
var DiscoveryGroup = netip.AddrFrom4([4]byte{224, 0, 0, 253})

// MTU is that of the Teredo link (RFC 4380 section 5.1.2).
const MTU = 1280

// Prefix is the prefix of all Teredo addresses, in the form of package header.
var Prefix = header.NewPrefix6(netip.MustParsePrefix("2001::/32"))

// Is reports whether an address is a Teredo address.
func Is(a header.Word6) bool { return a.Hi>>32 == Prefix.Value.Hi>>32 }

// Address returns the address of a client (RFC 4380 section 4):
//
//	0        32              64      80           96              127
//	| prefix | IPv4 of server | flags | port ^ ffff | IPv4 ^ ffffffff |
func Address(server uint32, client header.Mapping, flags uint16) header.Word6 {
	return header.Word6{Hi: Prefix.Value.Hi | uint64(server), Lo: uint64(flags)<<48 | uint64(^client.Port)<<32 | uint64(^client.Addr)}
}

// ServerOf returns the server in a Teredo address.
func ServerOf(a header.Word6) uint32 { return uint32(a.Hi) }

// ClientOf returns the mapping in a Teredo address.
func ClientOf(a header.Word6) header.Mapping {
	return header.Mapping{Addr: ^uint32(a.Lo), Port: ^uint16(a.Lo >> 32)}
}

// RandomFlags returns the flags of an address whose twelve random bits are taken from r (RFC
// 5991 section 3.1). The cone bit and the bits u and g are 0.
func RandomFlags(r uint16) uint16 { return r & 0x3cff }

// linkLocal returns the address in fe80::/64 with an interface identifier.
func linkLocal(id uint64) header.Word6 { return header.Word6{Hi: 0xfe80 << 48, Lo: id} }

// NonceAddress returns the link-local source of a bubble that has a nonce as interface
// identifier. The node that answers the bubble sends to this address.
func NonceAddress(nonce uint64) header.Word6 { return linkLocal(nonce) }

// NonceOf returns the nonce in the destination of an answer to a bubble.
func NonceOf(a header.Word6) (nonce uint64, ok bool) { return a.Lo, a.Hi == 0xfe80<<48 }
