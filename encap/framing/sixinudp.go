package framing

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/sixa44"
	"sixfour/encap/sixbed4"
	"sixfour/encap/teredo"
)

// The ports of Teredo servers, of 6a44 nodes and of 6bed4 routers.
const (
	TeredoPort  = teredo.Port
	SixA44Port  = sixa44.Port
	SixBed4Port = sixbed4.Port
)

// SixInUDP is the framing of mechanisms whose nodes find each other's ports, such as Teredo and
// 6bed4: an IPv6 packet follows a UDP header. What else follows it, such as bubbles and
// packets of the link itself, is a control message. Packets from any port are received.
type SixInUDP struct {
	Local      uint16 // our port
	Control    uint16 // another port of ours, at which only control messages arrive; 0: there is none
	Group      uint16 // the same for a multicast group
	Keepalives bool   // a datagram without payload is a control message, too
	Plain      bool   // there are packets of protocol 41, too
	NoChecksum bool   // the UDP checksum is 0
}

// Properties returns the properties of the headers.
func (f SixInUDP) Properties() Properties {
	fou := f.fou()
	p := fou.properties(header.UDPLen)
	p.Ports.Control, p.Ports.Group = f.Control, f.Group
	p.Ports.Unsummed = f.NoChecksum
	if f.Plain {
		p.Ports.Beside = header.ProtoIPv6
	}
	return p
}

func (f SixInUDP) fou() FOU { return FOU{Local: f.Local, Version: 6, NoChecksum: f.NoChecksum} }

// Matches reports whether a UDP header has our port.
func (f SixInUDP) Matches(b []byte) bool { return f.ports().matches(b) }

func (f SixInUDP) ports() Ports { return Ports{Local: f.Local, Control: f.Control, Group: f.Group} }

// Codec returns the codec for the headers.
func (f SixInUDP) Codec(s *State) Codec {
	return &sixInUDPCodec{fouCodec{newUDPCodec(f.fou(), header.UDPLen, s)}, f}
}

type sixInUDPCodec struct {
	fouCodec
	framing SixInUDP
}

// Open removes the UDP header, and verifies its checksum.
func (c *sixInUDPCodec) Open(pkt []byte, at int) (inner []byte, version int, r drop.Reason) {
	b, r := openUDP(pkt, at, c.framing.ports())
	if r != drop.None {
		return nil, 0, r
	}
	_, to := header.Ports(pkt[at:])
	return c.dataOrControl(b, to)
}

// Unquote removes the UDP header. An error about a datagram without payload is ignored: that was
// to keep a mapping of a NAT, or to find out whether a node can be reached, and says nothing of
// packets.
func (c *sixInUDPCodec) Unquote(b []byte, size int) (inner []byte, innerSize, version int, ok bool) {
	inner, innerSize, version, ok = c.fouCodec.Unquote(b, size)
	return inner, innerSize, version, ok && size > header.UDPLen
}

// OpenDatagram tells packets from control messages.
func (c *sixInUDPCodec) OpenDatagram(b []byte, o header.Outer) (inner []byte, version int, r drop.Reason) {
	return c.dataOrControl(b, o.At.Port())
}

func (c *sixInUDPCodec) dataOrControl(b []byte, to uint16) (inner []byte, version int, r drop.Reason) {
	switch {
	case len(b) == 0 && !c.framing.Keepalives:
		return nil, 0, drop.Truncated
	case to == c.framing.Local && teredo.IsData(b):
		return b, 6, drop.None
	}
	return b, 6, drop.UnknownProtocol
}
