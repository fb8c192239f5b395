package encap

import (
	"encoding/binary"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// template is the headers of a layer and of all outside it, for packets of one IP
// version, prepared once with everything that does not depend on the packet.
// Encapsulating is one copy of them, and then a patch for each layer.
type template struct {
	parts      []part       // innermost first
	bytes      []byte       // ends with the innermost header
	head       *[short]byte // the same, if they are short
	size       int          // bytes in use, the last ones
	limit      int          // the largest packet that fits, in bytes, and the length fields
	limited    int          // how many layers take one off the encapsulation limit that a packet carries
	unfinished bool         // headers have fields beside those that put writes
	outside    *template    // for the packets that the innermost layer makes; nil: they leave the host
}

// short covers the headers of most stacks: two layers and an option.
const short = 72

// part is what a packet changes in one layer's header.
type part struct {
	over    int  // IP version of the header
	carries int  // IP version of the packet inside
	size    int  // with extension headers and GRE header
	gre     int  // of that the GRE header, which ends it
	keep    byte // TOS = inner & keep | set
	set     byte
	ttl     byte // InheritTTL: the inner one

	// IPv4.
	sum      uint32           // over the header's words, without those that are patched
	df       fragmentation    // whether the packet may be fragmented
	record   *Record          // gives identifications
	resolver resolve.Resolver // gives the destination; nil: it is there
	plain    bool             // destination, DF and identification are there

	// IPv6.
	label   FlowLabel
	limited bool // the encapsulation limit is what is left of the packet's

	options GRE
}

// fragmentation says whether an IPv4 delivery header has DF set.
type fragmentation uint8

const (
	dfSet   fragmentation = iota // always
	dfClear                      // never
	dfInner                      // if the inner IPv4 packet has
)

// template makes the headers for packets of an IP version that enter the stack at
// a layer.
func (b *builder) template(entry, version int) *template {
	t := new(template)
	var reversed []byte // the innermost header last, when turned around
	carries := version
	for i := entry; i < len(b.layers); i++ {
		p, bytes := b.part(i, carries)
		t.parts = append(t.parts, p)
		if p.limited {
			t.limited++
		}
		t.unfinished = t.unfinished || p.limited || p.sealed()
		reversed = append(bytes, reversed...)
		carries = p.over
	}
	t.write(reversed)
	t.limit = b.room(entry, version)
	if entry+1 < len(b.layers) {
		t.outside = b.template(entry+1, b.layers[entry].Kind.Over())
	}
	return t
}

// write makes headers the template's bytes.
func (t *template) write(headers []byte) {
	t.size = len(headers)
	t.bytes = append(make([]byte, max(0, short-t.size)), headers...)
	if t.size <= short {
		t.head = (*[short]byte)(t.bytes)
	}
}

// builder is what the headers of a stack follow from.
type builder struct {
	layers []Layer
	path   PathMTU
	Options
	record  *Record
	entry   int  // the layer at which the packets enter
	limited bool // they carry an encapsulation limit
}

// room is the largest packet of an IP version that fits into a layer. IPv6 has at
// least its 1280 bytes in IPv4, which is fragmented then (RFC 4213 3.2.2, RFC 7588
// section 3.2), unless that must enter IPv6 in turn.
func (b *builder) room(layer, version int) int {
	n := b.delivery(layer) - b.overhead(layer)
	if version == 6 && !slices.ContainsFunc(b.layers[layer:], func(l Layer) bool { return l.Kind.Over() == 6 }) {
		n = max(n, int(MinTunnelMTU6))
	}
	return n
}

// overhead is what a layer adds to the packets.
func (b *builder) overhead(layer int) int {
	o := b.Options
	o.EncapLimit = b.encapLimit(layer)
	return b.layers[layer].overhead(o)
}

// delivery is the largest packet that a layer may make.
func (b *builder) delivery(layer int) int {
	switch {
	case layer+1 < len(b.layers):
		return b.room(layer+1, b.layers[layer].Kind.Over())
	case b.StaticMTU:
		return maxIPv4
	}
	return min(int(b.path), maxIPv4)
}

// fragmentation is the rule for a layer's header, over packets of an IP version.
// IPv6 is never cut, so that it must be told of what is too large for the path,
// but for the 1280 bytes that every path must carry (RFC 4213 section 3.2.2). An
// IPv4 packet that forbids fragmentation forbids it outside, too (RFC 2003
// section 3.1); one of ours that does not was made for a narrow path.
func (b *builder) fragmentation(layer, carries int) fragmentation {
	switch {
	case carries == 4 && (b.StaticMTU || layer > b.entry):
		return dfInner
	case b.StaticMTU:
		return dfClear
	case carries == 6 && b.delivery(layer)-b.overhead(layer) < int(MinTunnelMTU6):
		return dfClear
	}
	return dfSet
}

// part prepares the header of a layer over packets of an IP version.
func (b *builder) part(layer, carries int) (part, []byte) {
	l := b.layers[layer]
	p := part{over: l.Kind.Over(), carries: carries, keep: 0xff, record: b.record, label: b.FlowLabel, resolver: l.Resolver, options: l.GRE}
	if b.DSCP != InheritDSCP {
		p.keep, p.set = header.ECNMask, byte(b.DSCP)<<2
	}
	if b.ECNCompat { // RFC 6040 section 4.3; otherwise normal mode (4.1): the field is copied
		p.keep &^= header.ECNMask
	}
	var h []byte
	if p.over == 4 {
		h = b.header4(&p, layer, l)
	} else {
		h = b.header6(&p, layer, l)
	}
	if l.Kind.IsGRE() {
		p.gre = l.GRE.overhead()
		h = l.GRE.append(h, carries)
	}
	p.size = len(h)
	return p, h
}

func (b *builder) header4(p *part, layer int, l Layer) []byte {
	p.ttl, p.df = byte(b.TTL), b.fragmentation(layer, p.carries)
	h := make([]byte, header.IPv4Len)
	h[0] = 0x45
	h[9] = l.Kind.Protocol()
	copy(h[12:], l.Local.AsSlice())
	if l.Resolver == nil {
		copy(h[16:], l.Remote.AsSlice())
	}
	if p.df == dfSet {
		binary.BigEndian.PutUint16(h[6:], header.DF)
	}
	p.sum = uint32(header.Sum(h, 0))
	p.plain = p.df == dfSet && p.resolver == nil
	return h
}

func (b *builder) header6(p *part, layer int, l Layer) []byte {
	p.ttl = byte(b.HopLimit)
	h := make([]byte, header.IPv6Len)
	h[6] = l.Kind.Protocol()
	copy(h[8:], l.Local.AsSlice())
	copy(h[24:], l.Remote.AsSlice())
	if value := b.encapLimit(layer); value != NoEncapLimit {
		limit := header.EncapLimit(h[6], byte(value))
		h = append(h, limit[:]...)
		h[6] = header.DestOptions
		p.limited = b.limited && b.nested6(layer) == layer-b.entry
	}
	return h
}

// protocolOf is the protocol number that announces an IP version inside.
func protocolOf(version int) byte {
	if version == 4 {
		return header.ProtoIPv4
	}
	return header.ProtoIPv6
}

// fields are what a delivery header takes over from the packet inside.
type fields struct {
	tos, ttl byte
	df       bool // of IPv4
}

// fieldsOf reads them from a header.
func fieldsOf(pkt []byte) fields {
	if header.Version(pkt) == 4 {
		ip := header.IPv4(pkt)
		return fields{tos: ip.TOS(), ttl: ip.TTL(), df: !ip.MayFragment()}
	}
	ip := header.IPv6(pkt)
	return fields{tos: ip.TrafficClass(), ttl: ip.HopLimit()}
}

// put writes the headers in front of the inner packet b[off:], which goes on for
// tail bytes elsewhere and is within the limit, and returns where they begin. If the template is unfinished,
// finish must follow.
func (t *template) put(b []byte, off, tail int, f fields) (int, drop.Reason) {
	start := off - t.size
	if from := t.head; from != nil { // in registers: assigning the array would call memmove
		to := (*[short]byte)(b[off-short:])
		binary.NativeEndian.PutUint64(to[0:], binary.NativeEndian.Uint64(from[0:]))
		binary.NativeEndian.PutUint64(to[8:], binary.NativeEndian.Uint64(from[8:]))
		binary.NativeEndian.PutUint64(to[16:], binary.NativeEndian.Uint64(from[16:]))
		binary.NativeEndian.PutUint64(to[24:], binary.NativeEndian.Uint64(from[24:]))
		binary.NativeEndian.PutUint64(to[32:], binary.NativeEndian.Uint64(from[32:]))
		binary.NativeEndian.PutUint64(to[40:], binary.NativeEndian.Uint64(from[40:]))
		binary.NativeEndian.PutUint64(to[48:], binary.NativeEndian.Uint64(from[48:]))
		binary.NativeEndian.PutUint64(to[56:], binary.NativeEndian.Uint64(from[56:]))
		binary.NativeEndian.PutUint64(to[64:], binary.NativeEndian.Uint64(from[64:]))
	} else {
		copy(b[start:off], t.bytes)
	}
	end := off // of the header in turn
	for i := range t.parts {
		p := &t.parts[i]
		f.tos = f.tos&p.keep | p.set
		if p.ttl != InheritTTL {
			f.ttl = p.ttl
		}
		n := len(b) - end + tail + p.size // from this header on
		if p.over == 6 {
			h := (*[header.IPv6Len]byte)(b[end-p.size:])
			word := 6<<28 | uint32(f.tos)<<20
			if p.label.Source == FlowLabelFixed {
				word |= p.label.Fixed
			} else {
				word |= p.label.of(b[end:], p.carries)
			}
			binary.BigEndian.PutUint32(h[0:], word)
			binary.BigEndian.PutUint16(h[4:], uint16(n-header.IPv6Len))
			h[7] = f.ttl
		} else {
			h := (*[header.IPv4Len]byte)(b[end-p.size:])
			sum := p.sum
			if p.plain {
				f.df = true
			} else {
				var r drop.Reason
				if sum, f.df, r = p.vary(h, b[end:], n, f.df); r != drop.None {
					return 0, r
				}
			}
			sum += uint32(f.tos) + uint32(n) + uint32(f.ttl)<<8
			h[1] = f.tos
			binary.BigEndian.PutUint16(h[2:], uint16(n))
			h[8] = f.ttl
			binary.BigEndian.PutUint16(h[10:], ^header.Fold(sum))
		}
		end -= p.size
	}
	return start, drop.None
}

// encapsulate is put and finish, for a packet that goes on with tail and carries an
// encapsulation limit, if the template is for those that do.
func (t *template) encapsulate(b []byte, off int, tail []byte, f fields, limit byte) (int, drop.Reason) {
	start, r := t.put(b, off, len(tail), f)
	if r == drop.None && t.unfinished {
		t.finish(b, off, tail, limit)
	}
	return start, r
}

// finish writes what put has left out, from the innermost header on: the checksum
// of a GRE header covers all that is inside.
func (t *template) finish(b []byte, off int, tail []byte, limit byte) {
	end := off
	for i := range t.parts {
		p := &t.parts[i]
		if p.limited {
			limit--
			b[end-p.size+limitOffset] = limit
		}
		if p.sealed() {
			p.options.finish(b[end-p.gre:end], b[end:], tail, p.record)
		}
		end -= p.size
	}
}

// sealed reports whether the GRE header has fields that each packet has of its own.
func (p *part) sealed() bool { return p.gre != 0 && (p.options.Checksum || p.options.Sequence) }

// vary writes into an IPv4 header of a packet of n bytes what only some have of their
// own: destination, DF and identification. It returns what the rest of the header
// adds up to, and whether DF is set; inner is the packet inside, and df its DF.
func (p *part) vary(h *[header.IPv4Len]byte, inner []byte, n int, df bool) (sum uint32, set bool, r drop.Reason) {
	sum, rule := p.sum, p.df
	if p.resolver != nil {
		if sum, rule, r = p.resolve(h, inner, n); r != drop.None {
			return 0, false, r
		}
	}
	switch {
	case rule == dfSet: // the template has it
		return sum, true, drop.None
	case rule == dfInner && df:
		binary.BigEndian.PutUint16(h[6:], header.DF)
		return sum + header.DF, true, drop.None
	}
	id := p.record.nextID4()
	binary.BigEndian.PutUint16(h[4:], id)
	return sum + uint32(id), false, drop.None
}

// resolve writes the destination that the layer finds in the packet inside into an
// IPv4 header of a packet of n bytes. It returns what the rest of the header adds up
// to, and whether it may have DF.
func (p *part) resolve(h *[header.IPv4Len]byte, inner []byte, n int) (sum uint32, rule fragmentation, r drop.Reason) {
	dst, r := p.resolver.To(header.IPv6(inner))
	if r != drop.None {
		return 0, 0, r
	}
	binary.BigEndian.PutUint32(h[16:], dst)
	sum, rule = p.sum+dst>>16+dst&0xffff, p.df
	if mtu := p.record.mtuTo(dst); mtu != 0 && rule == dfSet {
		least := int(MinTunnelMTU6) + header.IPv4Len
		switch {
		case n > max(int(mtu), least):
			return 0, 0, drop.TooBig
		case int(mtu) < least: // RFC 4213 section 3.2.2
			binary.BigEndian.PutUint16(h[6:], 0)
			sum, rule = sum+(0xffff-header.DF), dfClear
		}
	}
	return sum, rule, drop.None
}
