// Package sixbed4 reads and writes what 6bed4 nodes send inside UDP
// (draft-vanrein-6bed4-04): addresses, the flags in the traffic class, and messages of
// neighbour discovery.
package sixbed4

import (
	"encoding/binary"
	"net/netip"
	"time"

	"sixfour/encap/header"
	"sixfour/encap/nd"
)

// Port is the UDP port of routers.
const Port = 25790

// MTU is that of the link.
const MTU = 1280

// MaxLAN is the largest number of a host behind one UDP port. 0 is the router itself.
const MaxLAN = 1<<14 - 1

// PrefixBits is the length of the prefix of all hosts behind one UDP port.
const PrefixBits = 114

// Address returns the address of a host in a network, which is the first half of the address:
//
//	0        64                 70    72                96     112                114      127
//	| network | IPv4, bits 0..5 | 0 0 | IPv4, 8..31     | port | IPv4, bits 6..7 | lan     |
func Address(network uint64, at header.Mapping, lan uint16) header.Word6 {
	a := uint64(at.Addr)
	lo := (a>>26)<<58 | (a&0xffffff)<<32 | uint64(at.Port)<<16 | (a>>24&3)<<14 | uint64(lan&MaxLAN)
	return header.Word6{Hi: network, Lo: lo}
}

// MappingOf returns the IPv4 address and the port in an address.
func MappingOf(a header.Word6) header.Mapping {
	return header.Mapping{Addr: uint32(a.Lo>>58)<<26 | uint32(a.Lo>>14&3)<<24 | uint32(a.Lo>>32)&0xffffff, Port: uint16(a.Lo >> 16)}
}

// Fits reports whether an address has the two bits that are always 0.
func Fits(a header.Word6) bool { return a.Lo>>56&3 == 0 }

// IsNative reports whether an address is in fc64::/16, whose networks have the address of
// their router.
func IsNative(a header.Word6) bool { return a.Hi>>48 == 0xfc64 }

// NetworkOf returns the network of a router in fc64::/16: fc64:netid:router::/64.
func NetworkOf(netid uint16, router uint32) uint64 {
	return 0xfc64<<48 | uint64(netid)<<32 | uint64(router)
}

// RouterOf returns the IPv4 address of the router of an address in fc64::/16.
func RouterOf(a header.Word6) uint32 { return uint32(a.Hi) }

// Policy says how a packet may travel: bits 7 and 6 of the traffic class. It has a meaning
// only if bits 4 to 2, the last three of the DSCP, are 0.
type Policy uint8

// The policies.
const (
	Proper       Policy = iota // through the router, until the peer is known to be reached directly
	Prohibited                 // always through the router
	Presumptuous               // directly while it is tried, then as Proper
	Persistent                 // never through the router
)

// seen is the flag by which a node says that direct packets of the other one arrive.
const seen = 1 << 5

// hasFlags reports whether a traffic class has a policy and the flag.
func hasFlags(class byte) bool { return class>>2&7 == 0 }

// PolicyOf returns the policy of a packet.
func PolicyOf(class byte) Policy {
	if !hasFlags(class) {
		return Proper
	}
	return Policy(class >> 6)
}

// SetSeen sets or clears the flag in a packet, and returns whether it was set. A packet with
// another DSCP is not changed.
func SetSeen(ip header.IPv6, set bool) (was bool) {
	class := ip.TrafficClass()
	if !hasFlags(class) {
		return false
	}
	was = class&seen != 0
	if was != set {
		ip[0] ^= seen >> 4 // the first byte has the upper half of the class
	}
	return was
}

// AppendSolicitation appends a router solicitation. Its source has a random number, to which
// the advertisement is sent.
func AppendSolicitation(b []byte, nonce uint64) []byte {
	return nd.Append(b, NonceAddress(nonce).Addr(), allRouters, &nd.Message{Type: nd.RouterSolicitation})
}

var (
	allRouters = netip.MustParseAddr("ff02::2")
	allNodes   = netip.MustParseAddr("ff02::1")
)

// NonceAddress returns the link-local source of a solicitation with a number.
func NonceAddress(nonce uint64) header.Word6 { return header.Word6{Hi: 0xfe80 << 48, Lo: nonce} }

// IsSolicitation reports whether a packet is a router solicitation. Unlike RFC 4861, peers send
// it from :: with an option that has their link-layer address.
func IsSolicitation(ip header.IPv6) bool {
	return nd.Intact(ip) && ip.Payload()[0] == nd.RouterSolicitation
}

// AppendAdvertisement appends the router advertisement for a node at a mapping. It goes to the
// source of a solicitation, or to all nodes if that is unspecified.
func AppendAdvertisement(b []byte, network uint64, at header.Mapping, to netip.Addr) []byte {
	if first := to.As16(); first[0]|first[1] == 0 {
		to = allNodes
	}
	return nd.Append(b, routerLinkLocal, to, &nd.Message{
		Type: nd.RouterAdvertisement, Lifetime: 0xffff * time.Second, Reachable: 0xffffffff * time.Millisecond, Retrans: 0xffffffff * time.Millisecond,
		Prefixes: []nd.Prefix{{
			Prefix: netip.PrefixFrom(Address(network, at, 0).Addr(), PrefixBits), OnLink: true, Auto: true, Valid: nd.Infinite, Preferred: nd.Infinite,
		}},
	})
}

// routerLinkLocal is the link-local address of every router.
var routerLinkLocal = netip.MustParseAddr("fe80::")

// Advertisement returns the network and the mapping that a router advertises. Ok is false if
// the packet is not a router advertisement with one prefix of a node.
func Advertisement(ip header.IPv6) (network uint64, at header.Mapping, ok bool) {
	m, ok := nd.Parse(ip)
	if !ok || m.Type != nd.RouterAdvertisement {
		return 0, at, false
	}
	found := 0
	for _, p := range m.Prefixes {
		if p.Prefix.Bits() != PrefixBits || !p.Auto {
			continue
		}
		a, _ := header.Word6Of(p.Prefix.Addr())
		if !Fits(a) || p.Valid == 0 {
			return 0, at, false
		}
		network, at = a.Hi, MappingOf(a)
		found++
	}
	return network, at, found == 1
}

// AppendNeighbour appends the advertisement of a node at a mapping that answers a neighbour
// solicitation. The link-layer address has the port, its low byte first, and the IPv4 address,
// as old peers expect it.
func AppendNeighbour(b []byte, target, to netip.Addr, at header.Mapping) []byte {
	link := []byte{byte(at.Port), byte(at.Port >> 8)}
	link = binary.BigEndian.AppendUint32(link, at.Addr)
	return nd.Append(b, target, to, &nd.Message{Type: nd.NeighborAdvertisement, Router: true, Solicited: true, Target: target, Link: link})
}
