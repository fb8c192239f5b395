package encap

import (
	"cmp"

	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
)

// content is what follows a layer's delivery header: a framing and then the inner packet.
type content struct {
	protocol byte   // in the delivery header
	session  bool   // the packets are inside a connection
	bare     int    // IP version, if nothing stands before the inner packet; 0: codec says it
	port     uint16 // if the framing has ports, ours, so that not everything between the ends is for the layer; 0: it has none
	control  uint16 // the port of control messages, or the same
	group    uint16 // the port of a multicast group, or the same
	codec    framing.Codec
	record   *Record
}

func newContent(k Kind, rec *Record) content {
	p := k.Properties()
	c := content{protocol: p.Protocol, session: p.Session, port: p.Ports.Local, control: cmp.Or(p.Ports.Control, p.Ports.Local), group: cmp.Or(p.Ports.Group, p.Ports.Local), codec: k.framing.Codec(rec.framings()), record: rec}
	if f, ok := k.framing.(framing.Bare); ok {
		c.bare = int(f)
	}
	return c
}

// passes reports whether what follows the delivery header, at pkt[at:], is to another port
// than those of the layer.
func (c *content) passes(pkt []byte, at int) bool {
	if c.port == 0 {
		return false
	}
	_, to := header.Ports(pkt[at:])
	return to != c.port && to != c.control && to != c.group
}

// open checks and removes what is in front of the inner packet at pkt[at:], and copies the
// congestion mark of the delivery header, with which pkt begins, into the inner packet.
func (c *content) open(pkt []byte, at int, outerTOS byte) ([]byte, drop.Reason) {
	inner, version := pkt[at:], c.bare
	if version == 0 {
		var r drop.Reason
		if inner, version, r = c.codec.Open(pkt, at); r != drop.None {
			return inner, r
		}
	}
	inner, r := header.Parse(inner, version)
	if outer := outerTOS & header.ECNMask; r == drop.None && outer != header.NotECT {
		r = decapsulateECN(inner, version, outer, c.record)
	}
	return inner, r
}

// openDatagram is open for a packet whose delivery header, and UDP header if the framing has
// one, the kernel has removed.
func (c *content) openDatagram(b []byte, o header.Outer) ([]byte, drop.Reason) {
	d, ok := c.codec.(framing.DatagramCodec)
	if !ok {
		return c.open(b, 0, o.TOS)
	}
	inner, version, r := d.OpenDatagram(b, o)
	if r != drop.None {
		return inner, r
	}
	inner, r = header.Parse(inner, version)
	if outer := o.TOS & header.ECNMask; r == drop.None && outer != header.NotECT {
		r = decapsulateECN(inner, version, outer, c.record)
	}
	return inner, r
}
