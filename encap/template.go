package encap

import (
	"encoding/binary"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// template is the headers of all layers that a packet passes, prepared once
// with everything that does not depend on the packet. Encapsulating is one copy
// of them, and then a patch for each layer.
type template struct {
	parts []part // innermost first
	bytes [Headroom]byte
	size  int // bytes in use, the last ones: the innermost header ends the array
	limit int // the largest packet that fits, in bytes
}

// short covers the headers of most stacks: two layers and an option.
const short = 72

// part is what a packet changes in one layer's header.
type part struct {
	over    int  // IP version of the header
	carries int  // IP version of what follows it
	size    int  // with extension headers
	end     int  // where it ends in the template, counted from the template's end
	keep    byte // TOS = inner & keep | set
	set     byte
	ttl     byte // InheritTTL: the inner one

	sum uint32  // IPv4: over the header's words, without those that are patched
	ids *Record // IPv4: gives the identifications; nil: DF is set

	label FlowLabel // IPv6
}

// add puts a layer's header in front of those that are there.
func (t *template) add(k Kind, pair resolve.Fixed, p PathMTU, o Options, rec *Record) {
	pt := part{over: k.Over(), carries: k.Carries(), size: k.overhead(o), end: t.size, keep: 0xff, label: o.FlowLabel}
	if o.DSCP != InheritDSCP {
		pt.keep, pt.set = header.ECNMask, byte(o.DSCP)<<2
	}
	if o.ECNCompat { // RFC 6040 section 4.3; otherwise normal mode (4.1): the field is copied
		pt.keep &^= header.ECNMask
	}
	t.size += pt.size
	h := t.bytes[len(t.bytes)-t.size:]
	if pt.over == 4 {
		pt.ttl = byte(o.TTL)
		h[0] = 0x45
		h[9] = protocolOf(pt.carries)
		copy(h[12:], pair.Local.AsSlice())
		copy(h[16:], pair.Remote.AsSlice())
		if o.forbidsFragments(p) {
			binary.BigEndian.PutUint16(h[6:], header.DF)
		} else {
			pt.ids = rec
		}
		pt.sum = uint32(header.Sum(h[:header.IPv4Len], 0))
	} else {
		pt.ttl = byte(o.HopLimit)
		h[6] = protocolOf(pt.carries)
		copy(h[8:], pair.Local.AsSlice())
		copy(h[24:], pair.Remote.AsSlice())
		if o.EncapLimit != NoEncapLimit {
			limit := header.EncapLimit(h[6], byte(o.EncapLimit))
			copy(h[header.IPv6Len:], limit[:])
			h[6] = header.DestOptions
		}
	}
	t.parts = append(t.parts, pt)
}

// templates are the headers of each layer of a mode and of all outside it, with
// the largest packets that they fit. All endpoints are there.
func templates(m Mode, e Endpoints, p PathMTU, o Options, rec *Record) []*template {
	all := make([]*template, 0, len(m.Layers))
	for _, k := range m.Layers {
		pair, _ := e.over(k)
		all = append(all, new(template))
		for _, t := range all {
			t.add(k, pair, p, o, rec)
		}
	}
	room := maxIPv4
	if !o.StaticMTU {
		room = min(int(p), maxIPv4)
	}
	for i, k := range slices.Backward(m.Layers) {
		room -= k.overhead(o)
		if k == SixInFour { // RFC 4213 3.2.2: it is the outer packet that is fragmented
			room = max(room, int(MinTunnelMTU6))
		}
		all[i].limit = room
	}
	return all
}

// protocolOf is the protocol number that announces an IP version inside.
func protocolOf(version int) byte {
	if version == 4 {
		return header.ProtoIPv4
	}
	return header.ProtoIPv6
}

// put writes the headers in front of the inner packet b[off:], which goes on for
// tail bytes elsewhere and whose TOS and TTL are given, and returns where they
// begin.
func (t *template) put(b []byte, off, tail int, tos, ttl byte) (int, drop.Reason) {
	start := off - t.size
	if t.size <= short { // a copy of known length is a few instructions, not a call
		*(*[short]byte)(b[off-short:]) = *(*[short]byte)(t.bytes[Headroom-short:])
	} else {
		copy(b[start:off], t.bytes[Headroom-t.size:])
	}
	end := off // of the header in turn
	for i := range t.parts {
		p := &t.parts[i]
		tos = tos&p.keep | p.set
		if p.ttl != InheritTTL {
			ttl = p.ttl
		}
		n := len(b) - end + tail + p.size // from this header on
		if p.over == 6 {
			h := (*[header.IPv6Len]byte)(b[end-p.size:])
			word := 6<<28 | uint32(tos)<<20
			if p.label.Source == FlowLabelFixed {
				word |= p.label.Fixed
			} else {
				word |= p.label.of(b[end:], p.carries)
			}
			if n > header.IPv6Len+65535 {
				return 0, drop.TooBig
			}
			binary.BigEndian.PutUint32(h[0:], word)
			binary.BigEndian.PutUint16(h[4:], uint16(n-header.IPv6Len))
			h[7] = ttl
		} else {
			h := (*[header.IPv4Len]byte)(b[end-p.size:])
			if n > maxIPv4 {
				return 0, drop.TooBig
			}
			sum := p.sum + uint32(tos) + uint32(n) + uint32(ttl)<<8
			if p.ids != nil {
				id := p.ids.nextID4()
				binary.BigEndian.PutUint16(h[4:], id)
				sum += uint32(id)
			}
			h[1] = tos
			binary.BigEndian.PutUint16(h[2:], uint16(n))
			h[8] = ttl
			binary.BigEndian.PutUint16(h[10:], ^header.Fold(sum))
		}
		end -= p.size
	}
	return start, drop.None
}
