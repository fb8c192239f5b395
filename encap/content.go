package encap

import (
	"encoding/binary"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// content describes what follows a layer's delivery header: the inner packet itself, or
// a GRE header and then the inner packet.
type content struct {
	protocol byte // in the delivery header
	carries  int  // IP version; 0: the GRE header gives it
	gre      GRE
	record   *Record
}

func newContent(l Layer, rec *Record) content {
	return content{l.Kind.Protocol(), kinds[l.Kind].carries, l.GRE, rec}
}

// open checks and removes what is in front of the inner packet, and copies the
// congestion mark of the delivery header into the inner packet.
func (c *content) open(payload []byte, outerTOS byte) ([]byte, drop.Reason) {
	version := c.carries
	if version == 0 {
		var r drop.Reason
		if payload, version, r = c.openGRE(payload); r != drop.None {
			return nil, r
		}
	}
	inner, r := header.Parse(payload, version)
	if outer := outerTOS & header.ECNMask; r == drop.None && outer != header.NotECT {
		r = decapsulateECN(inner, version, outer, c.record)
	}
	return inner, r
}

// openGRE removes a GRE header. The header must have the same optional fields as ours
// (RFC 2890 section 2); the kernel requires the same. A sequence number that is not
// configured is ignored.
func (c *content) openGRE(b []byte) (inner []byte, version int, r drop.Reason) {
	h, r := header.ParseGRE(b)
	switch {
	case r != drop.None:
		return nil, 0, r
	case !c.gre.Takes(&h):
		return nil, 0, drop.Key
	case h.Flags&header.GREChecksum != 0 != c.gre.Checksum:
		return nil, 0, drop.BadChecksum
	case c.gre.Sequence && (h.Flags&header.GRESequence == 0 || !c.record.inSequence(h.Sequence)):
		return nil, 0, drop.Sequence
	}
	if version = h.Version(); version == 0 {
		return nil, 0, drop.UnknownProtocol
	}
	return b[h.Len:], version, drop.None
}

// unquote removes what is in front of the quoted inner packet, which may be cut off.
// Version is the IP version of the inner packet, or 0 if the quote ends before it. Ok is
// false if we do not send such a header.
func (c *content) unquote(b []byte, size int) (inner []byte, innerSize, version int, ok bool) {
	if c.carries != 0 {
		return b, size, c.carries, true
	}
	if len(b) < header.GRELen {
		return nil, 0, 0, true
	}
	h, whole := header.PeekGRE(b)
	if h.Flags != c.gre.flags() || whole && h.Key != c.gre.Key {
		return nil, 0, 0, false
	}
	if version = h.Version(); version == 0 {
		return nil, 0, 0, false
	}
	if !whole {
		return nil, 0, version, true
	}
	return b[h.Len:], size - h.Len, version, true
}

// flags returns the first 16 bits of our GRE headers.
func (g GRE) flags() uint16 {
	var f uint16
	if g.Checksum {
		f |= header.GREChecksum
	}
	if g.Keyed {
		f |= header.GREKey
	}
	if g.Sequence {
		f |= header.GRESequence
	}
	return f
}

// append appends our GRE header for packets of an IP version. Fields that differ from
// packet to packet are 0.
func (g GRE) append(b []byte, version int) []byte {
	b = binary.BigEndian.AppendUint16(b, g.flags())
	b = binary.BigEndian.AppendUint16(b, header.EtherType(version))
	if g.Checksum {
		b = append(b, 0, 0, 0, 0)
	}
	if g.Keyed {
		b = binary.BigEndian.AppendUint32(b, g.Key)
	}
	if g.Sequence {
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

// finish writes the fields that differ from packet to packet into the GRE header h,
// which ends where packet begins. The packet continues with tail. The checksum covers
// all of them.
func (g GRE) finish(h, packet, tail []byte, rec *Record) {
	if g.Sequence {
		binary.BigEndian.PutUint32(h[len(h)-4:], rec.nextSequence())
	}
	if g.Checksum {
		sum := uint32(header.Sum(h, 0)) + uint32(header.Sum(packet, 0))
		rest := header.Sum(tail, 0)
		if len(packet)%2 != 0 { // the 16-bit words of tail begin in the middle of ours
			rest = rest<<8 | rest>>8
		}
		binary.BigEndian.PutUint16(h[header.GRELen:], ^header.Fold(sum+uint32(rest)))
	}
}
