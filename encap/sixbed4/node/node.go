// Package node has the two kinds of 6bed4 nodes: peer and router (draft-vanrein-6bed4-04).
// Each is a resolve.Mechanism, whose resolver is an agent that is passed the time and opens no
// sockets.
package node

import (
	"sixfour/encap/agent"
	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/nd"
	"sixfour/encap/sixbed4"
	"sixfour/encap/teredo"
)

// framed is embedded in the mechanisms: their framing has their port.
type framed struct{ Port uint16 }

// Framing returns the framing of the node's packets.
func (f framed) Framing() framing.Framing {
	return framing.SixInUDP{Local: f.Port, Keepalives: true}
}

// isGlobal reports whether an address is a unicast address of the Internet.
func isGlobal(a header.Word6) bool { return a.Hi>>61 == 1 }

// router returns the router of an address in another network of fc64::/16.
func router(a header.Word6) header.Mapping {
	return header.Mapping{Addr: sixbed4.RouterOf(a), Port: sixbed4.Port}
}

// from returns the reason why an inner source cannot be at a mapping, or drop.None.
func from(b *agent.Base, src header.Word6, at header.Mapping) drop.Reason {
	switch {
	case !b.Reachable(at):
		return drop.Martian
	case !sixbed4.Fits(src), sixbed4.MappingOf(src) != at:
		return drop.Spoof
	}
	return drop.None
}

// isData reports whether the payload of a datagram is a packet for the interface, and not a
// message of the link.
func isData(b []byte) bool { return teredo.IsData(b) && !nd.Is(header.IPv6(b)) }
