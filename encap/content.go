package encap

import (
	"encoding/binary"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// content is what follows a layer's delivery header: the inner packet itself, or
// a GRE header first.
type content struct {
	protocol byte // in the delivery header
	carries  int  // IP version; 0: the GRE header says
	gre      GRE
	record   *Record
}

func newContent(l Layer, rec *Record) content {
	return content{l.Kind.Protocol(), kinds[l.Kind].carries, l.GRE, rec}
}

// open checks and strips what stands in front of the inner packet, and brings
// the congestion mark of the delivery header into it.
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

// openGRE takes off a GRE header: one that has what ours has (RFC 2890 section 2),
// as the kernel asks. A sequence number that nobody agreed on is ignored.
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

// unquote takes off what stands in front of the quoted inner packet, of which as
// much as there is follows, and says which IP version that has: 0 if it is cut
// off before. Not ok means that we do not send such a header.
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

// flags are the first 16 bits of our GRE headers.
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

// append appends our GRE header for packets of an IP version, with fields of 0
// where each packet has its own.
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

// finish writes what each packet has of its own into the GRE header h, which
// ends where packet begins; that goes on with tail. The checksum covers it all.
func (g GRE) finish(h, packet, tail []byte, rec *Record) {
	if g.Sequence {
		binary.BigEndian.PutUint32(h[len(h)-4:], rec.nextSequence())
	}
	if g.Checksum {
		sum := uint32(header.Sum(h, 0)) + uint32(header.Sum(packet, 0))
		rest := header.Sum(tail, 0)
		if len(packet)%2 != 0 { // its words begin in the middle of ours
			rest = rest<<8 | rest>>8
		}
		binary.BigEndian.PutUint16(h[header.GRELen:], ^header.Fold(sum+uint32(rest)))
	}
}
