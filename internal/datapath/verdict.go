package datapath

import (
	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// verdict says what happens to a packet that arrived.
type verdict uint8

// The verdicts, in the order in which they are considered. If the code for a verdict does not
// handle the packet, the next verdict that fits it is used.
const (
	verdictNone      verdict = iota
	verdictFragment          // a fragment of a layer's packet, for reassembly
	verdictMessage           // a control message of the framing, for the agent or dropped
	verdictProblem           // dropped because of its extension headers; the sender may get an error
	verdictKeepalive         // the keepalive of a router, to be sent back
	verdictDrop              // dropped, unless it is a probe of ours that has come back
	verdictProbe             // possibly an answer to a probe between the two ends
	verdictOurs              // addressed to our end of a layer
	verdictControl           // a control packet of the mechanism, for the agent
	verdictPiece             // a piece of a packet for the interface
	verdictDeliver           // for the interface
)

// decapsulate calls Stack.Decapsulate, and checks that the peer may send the result.
func (e *End) decapsulate(wire *Wire, pkt []byte) ([]byte, drop.Reason) {
	inner, r := wire.Stack.Decapsulate(pkt)
	if r != drop.None {
		return inner, r
	}
	return inner, e.allows(inner)
}

// allows returns a drop reason unless an inner packet may come from the peer or is
// addressed to our end of the layer; the daemon handles the latter itself.
func (e *End) allows(inner []byte) drop.Reason {
	if e.sends(inner) || e.isOurs(inner) {
		return drop.None
	}
	return drop.Spoof
}

// sends reports whether an inner packet may come from the peer. In a tunnel with many
// peers the peer's prefixes decide (RFC 3704), except for packets from the peer's end of
// the layer to ours.
func (e *End) sends(inner []byte) bool {
	table := e.Path.Tunnel.Peers.Table.Load()
	return table == nil || table.Allows(e.Path.Peer, inner) ||
		e.isOurs(inner) && [16]byte(header.IPv6(inner).Source()) == e.remote
}

// isOurs reports whether an inner packet is addressed to our end of the layer.
func (e *End) isOurs(inner []byte) bool {
	return header.Version(inner) == 6 && e.local != [16]byte{} && [16]byte(header.IPv6(inner).Dest()) == e.local
}

// decide returns the first verdict after the given one that fits what decapsulate has
// returned. It changes nothing.
func (e *End) decide(after verdict, wire *Wire, inner []byte, r drop.Reason) verdict {
	switch {
	case r != drop.None:
		return refuse(after, wire.Stack, inner, r)
	case after < verdictKeepalive && wire.Stack.IsKeepalive(inner, false):
		return verdictKeepalive
	case after < verdictProbe && len(wire.Between) > 0:
		return verdictProbe
	case after < verdictOurs && e.isOurs(inner):
		return verdictOurs
	case after < verdictControl && e.Path.Tunnel.wants(inner):
		return verdictControl
	case after < verdictPiece && e.Path.Tunnel.isPiece(inner):
		return verdictPiece
	}
	return verdictDeliver
}

// refuse is decide for a packet that must not be delivered, with the reason. With some
// reasons there is an inner packet, or another packet in its place: see Stack.Decapsulate.
func refuse(after verdict, stack *encap.Stack, inner []byte, r drop.Reason) verdict {
	switch {
	case inner == nil:
	case r == drop.Fragment && after < verdictFragment: // after reassembly there are no more fragments
		return verdictFragment
	case r == drop.UnknownProtocol:
		return verdictMessage
	case r == drop.BadExtension || r == drop.SourceRouting:
		return verdictProblem
	case stack.IsKeepalive(inner, r == drop.OwnSource):
		return verdictKeepalive
	}
	return verdictDrop
}
