package encap

import (
	"encoding/binary"
	"slices"

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
	whole      int          // the same of IPv4 packets with DF, which no header outside may take away
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
	t.whole = t.limit
	if b.StaticMTU && !slices.ContainsFunc(t.parts, func(p part) bool { return p.over == 6 }) {
		t.whole = min(t.limit, int(b.path)-t.size)
	}
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

// delivery is the largest packet that a layer may make. With a static MTU routers cut
// what is too large for the path, but never IPv6.
func (b *builder) delivery(layer int) int {
	switch {
	case layer+1 < len(b.layers):
		return b.room(layer+1, b.layers[layer].Kind.Over())
	case b.StaticMTU && b.layers[layer].Kind.Over() == 4:
		return maxIPv4
	}
	return min(int(b.path), maxIPv4)
}

// fragmentation is the rule for a layer's header, over packets of an IP version.
// IPv6 is never cut, so that it must be told of what is too large for the path,
// but for the 1280 bytes that every path must carry (RFC 4213 section 3.2.2). An
// IPv4 packet that forbids fragmentation forbids it outside, too (RFC 2003
// section 3.1); one of ours that does not was made for a narrow path. At the least
// that routers can bring a path's MTU to, the true one may be less: then routers cut,
// as they do for the kernel.
func (b *builder) fragmentation(layer, carries int) fragmentation {
	switch {
	case b.path <= LeastPathMTU:
		return dfClear
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
