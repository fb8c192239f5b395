// Package node has the three kinds of Teredo nodes: client, server and relay (RFC 4380, RFC
// 5991, RFC 6081). Each is a resolve.Mechanism, whose resolver is an agent that is passed the
// time and opens no sockets.
package node

import (
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/teredo"
)

// isGlobal reports whether an address is a unicast address of the Internet outside Teredo.
func isGlobal(a header.Word6) bool { return a.Hi>>61 == 1 && !teredo.Is(a) }

// entry describes a peer for status.
func (p *peer) entry() (e resolve.Entry) {
	e.Node, e.State = p.addr.Addr(), "incomplete"
	if v := p.link.Load(); v != 0 {
		e.Link, e.State = unpack(v).AddrPort(), "reachable"
		if p.asking {
			e.State = "probe"
		}
	}
	return e
}

// framed is embedded in the mechanisms: their framing has their port.
type framed struct{ Port uint16 }

// Framing returns the framing of the node's packets.
func (f framed) Framing() framing.Framing { return framing.SixInUDP{Local: f.Port} }
