package framing

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/teredo"
)

// TeredoPort is the port of servers.
const TeredoPort = teredo.Port

// Teredo is the framing of Teredo: an IPv6 packet follows a UDP header. What else follows it,
// such as bubbles and packets with a header of Teredo before them, is a control message.
// Packets from any port are received.
type Teredo struct {
	Local uint16 // our port
}

// Properties returns the properties of the headers.
func (f Teredo) Properties() Properties {
	p := f.fou()
	return p.properties(header.UDPLen)
}

func (f Teredo) fou() FOU { return FOU{Local: f.Local, Remote: teredo.Port, Version: 6} }

// Matches reports whether a UDP header has our port.
func (f Teredo) Matches(b []byte) bool { return f.fou().Matches(b) }

// Codec returns the codec for the headers.
func (f Teredo) Codec(s *State) Codec {
	return &teredoCodec{fouCodec{newUDPCodec(f.fou(), header.UDPLen, s)}}
}

type teredoCodec struct{ fouCodec }

// Open removes the UDP header, and verifies its checksum.
func (c *teredoCodec) Open(pkt []byte, at int) (inner []byte, version int, r drop.Reason) {
	b, r := openUDP(pkt, at, c.ports())
	if r != drop.None {
		return nil, 0, r
	}
	return dataOrControl(b)
}

// OpenDatagram tells packets from control messages.
func (c *teredoCodec) OpenDatagram(b []byte, _ header.Outer) (inner []byte, version int, r drop.Reason) {
	return dataOrControl(b)
}

func dataOrControl(b []byte) (inner []byte, version int, r drop.Reason) {
	switch {
	case len(b) == 0:
		return nil, 0, drop.Truncated
	case teredo.IsData(b):
		return b, 6, drop.None
	}
	return b, 6, drop.UnknownProtocol
}
