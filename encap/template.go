package encap

import (
	"encoding/binary"
	"slices"

	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// template holds the headers of a layer and of all layers outside it, for packets of one
// IP version. Everything that does not depend on the packet is prepared once. To
// encapsulate is to copy the headers and to patch each layer's header.
type template struct {
	parts      []part       // innermost first
	bytes      []byte       // ends with the innermost header
	head       *[short]byte // the same bytes, if the headers are short
	size       int          // bytes in use, at the end of bytes
	hidden     int          // bytes that the outermost framing adds on the wire besides
	limit      int          // size in bytes of the largest packet that fits the path and the length fields
	whole      int          // the same for IPv4 packets with DF if an outer header may not clear it
	limited    int          // how many layers decrement the encapsulation limit that a packet carries
	unfinished bool         // headers have fields that put does not write
	outside    *template    // for the packets of the innermost layer; nil: they leave the host
	beside     *template    // for packets of form 1; nil: there are none
}

// short is long enough for the headers of most stacks, two layers and an option, in
// bytes.
const short = 72

// part holds what differs from packet to packet in one layer's header.
type part struct {
	over    int  // IP version of the header
	carries int  // IP version of the packet inside
	size    int  // with extension headers and the framing's header, in bytes
	framing int  // length of the framing's header at the end, in bytes
	keep    byte // TOS = inner & keep | set
	set     byte
	ttl     byte // InheritTTL: copy the inner TTL
	session bool // the packet is inside a connection, and never a fragment
	halved  bool // a large packet is fragmented in two halves before it enters

	resolved
	ipv4Part
	ipv6Part

	finisher framing.Codec // writes fields of its header for each packet; nil: there are none
}

// ipv4Part is what differs from packet to packet in an IPv4 header.
type ipv4Part struct {
	sum   uint32        // over the header's words except those that are patched
	df    fragmentation // whether the packet may be fragmented
	plain bool          // the template has destination, DF and identification
}

// resolved is how the destination of a header is found for each packet.
type resolved struct {
	resolver resolve.Resolver // nil: the template has the destination
	record   *Record          // path MTUs to destinations, and source of identifications
	beside   bool             // packets of form 1 have another template
	ported   bool             // the framing's header begins with two ports, the second of which the resolver finds
	whole    bool             // the packets are fragmented afterwards: they have any size
}

// ipv6Part is what differs from packet to packet in an IPv6 header.
type ipv6Part struct {
	label   FlowLabel
	limited bool // the encapsulation limit comes from the packet
}

// fragmentation says whether an IPv4 delivery header has DF set.
type fragmentation uint8

const (
	dfSet   fragmentation = iota // always
	dfClear                      // never
	dfInner                      // if the inner IPv4 packet has it
	dfLarge                      // if the packet is larger than every path carries (SEAL)
)

// template builds the headers for packets of an IP version that enter the stack at a
// layer. In front of an IPv6 packet, the layers from one over IPv4 on write the same headers
// whether the packet enters the stack there or comes from the layer inside, so there is one
// template for both.
func (b *builder) template(entry, version int) *template {
	if version == 6 && b.layers[entry].Kind.Over() == 4 {
		if b.common[entry] == nil {
			b.common[entry] = b.newTemplate(entry, version)
		}
		return b.common[entry]
	}
	return b.newTemplate(entry, version)
}

func (b *builder) newTemplate(entry, version int) *template {
	size := 0
	for i := entry; i < len(b.layers); i++ {
		size += b.headers(i)
	}
	t := &template{parts: make([]part, len(b.layers)-entry)}
	t.allocate(size)
	carries, end := version, len(t.bytes)
	for i := range t.parts {
		start := end - b.headers(entry+i)
		p := &t.parts[i]
		b.part(p, entry+i, carries, t.bytes[start:start:end])
		if p.limited {
			t.limited++
		}
		t.unfinished = t.unfinished || p.limited || p.finisher != nil
		carries, end = p.over, start
	}
	t.hidden = b.props[len(b.layers)-1].Hidden
	t.limit = b.room(entry, version)
	t.whole = t.limit
	if b.StaticMTU && !slices.ContainsFunc(t.parts, func(p part) bool { return p.over == 6 }) {
		t.whole = min(t.limit, int(b.path)-t.size-t.hidden)
	}
	if entry+1 < len(b.layers) {
		t.outside = b.template(entry+1, b.layers[entry].Kind.Over())
	}
	return t
}

// allocate makes room for headers of the given size, at the end of bytes.
func (t *template) allocate(size int) {
	t.size, t.bytes = size, make([]byte, max(short, size))
	if size <= short {
		t.head = (*[short]byte)(t.bytes)
	}
}

// builder holds the input from which the headers of a stack are made.
type builder struct {
	layers []Layer
	path   PathMTU
	Options
	record  *Record
	entry   int  // the layer at which the packets enter
	limited bool // the packets carry an encapsulation limit

	codecs [MaxDepth]framing.Codec      // of the layers
	props  [MaxDepth]framing.Properties // of the layers
	common [MaxDepth]*template          // for IPv6 packets at a layer over IPv4; nil: not built yet
}

// room returns the size of the largest packet of an IP version that fits into a layer.
// For IPv6 over IPv4 it is at least 1280 bytes, because the outer packet can be
// fragmented (RFC 4213 3.2.2, RFC 7588 section 3.2), unless it must enter IPv6 in turn.
// What enters a session need not fit: the connection cuts it if necessary.
func (b *builder) room(layer, version int) int {
	n := b.delivery(layer) - b.overhead(layer)
	if version != 6 {
		return n
	}
	for i := layer; i < len(b.layers); i++ {
		if b.layers[i].Kind.Over() == 6 && !b.props[i].Session {
			return n
		}
	}
	return max(n, int(MinTunnelMTU6))
}

// overhead returns how many bytes a layer adds to the packets.
func (b *builder) overhead(layer int) int {
	o := b.Options
	o.EncapLimit = b.encapLimit(layer)
	return overheadOf(b.layers[layer].Kind.Over(), &b.props[layer], o)
}

// headers returns the length of a layer's headers: what overhead returns, without what the
// stack does not write.
func (b *builder) headers(layer int) int {
	return b.overhead(layer) - b.props[layer].Hidden
}

// delivery returns the size of the largest packet that a layer may make. With a static
// MTU, routers fragment what is too large for the path, but never IPv6.
func (b *builder) delivery(layer int) int {
	switch {
	case layer+1 < len(b.layers):
		return b.room(layer+1, b.layers[layer].Kind.Over())
	case b.StaticMTU && b.layers[layer].Kind.Over() == 4 && !b.props[layer].Session:
		return maxIPv4
	}
	return min(int(b.path), maxIPv4)
}

// fragmentation returns the DF rule for a layer's header over packets of an IP version.
// IPv6 is never fragmented by routers, so its sender must be told when a packet is too
// large for the path, except for the 1280 bytes that every path must carry (RFC 4213
// section 3.2.2). If an IPv4 packet forbids fragmentation, so does its outer header (RFC
// 2003 section 3.1); an IPv4 packet of our own without DF was made for a path with a
// small MTU. If the path MTU is at the minimum that routers can report, the true one may
// be smaller: then routers fragment, as they do for the kernel.
func (b *builder) fragmentation(layer, carries int) fragmentation {
	switch {
	case b.path <= LeastPathMTU:
		return dfClear
	case isSEAL(b.layers[layer].Kind):
		return dfLarge
	case carries == 4 && (b.StaticMTU || layer > b.entry):
		return dfInner
	case b.StaticMTU:
		return dfClear
	case carries == 6 && b.delivery(layer)-b.overhead(layer) < int(MinTunnelMTU6):
		return dfClear
	}
	return dfSet
}

// part prepares the header of a layer over packets of an IP version. The header is written
// to h, which has no bytes, but room for the header, all of it 0.
func (b *builder) part(p *part, layer, carries int, h []byte) {
	l := &b.layers[layer]
	*p = part{over: l.Kind.Over(), carries: carries, keep: 0xff, resolved: resolved{resolver: l.Resolver, record: b.record, beside: l.Kind.Properties().Ports.Beside != 0}, ipv6Part: ipv6Part{label: b.FlowLabel}}
	if b.DSCP != InheritDSCP {
		p.keep, p.set = header.ECNMask, byte(b.DSCP)<<2
	}
	if b.ECNCompat { // RFC 6040 section 4.3; otherwise normal mode (4.1): the field is copied
		p.keep &^= header.ECNMask
	}
	f, codec := &b.props[layer], b.codecs[layer]
	if p.over == 4 {
		h = b.header4(p, layer, f.Protocol, h)
	} else {
		h = b.header6(p, layer, f.Protocol, h)
	}
	if f.Finished {
		p.finisher = codec
	}
	p.framing, p.session, p.ported = f.Overhead, f.Session, f.Ports != framing.Ports{}
	_, p.halved = l.Kind.Framing().(framing.Halver)
	p.size = len(codec.Append(h, carries))
}

func (b *builder) header4(p *part, layer int, protocol byte, h []byte) []byte {
	l := &b.layers[layer]
	p.ttl, p.df = byte(b.TTL), b.fragmentation(layer, p.carries)
	h = h[:header.IPv4Len]
	h[0] = 0x45
	h[9] = protocol
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

func (b *builder) header6(p *part, layer int, protocol byte, h []byte) []byte {
	l := &b.layers[layer]
	p.ttl = byte(b.HopLimit)
	h = h[:header.IPv6Len]
	h[6] = protocol
	copy(h[8:], l.Local.AsSlice())
	if l.Resolver == nil {
		copy(h[24:], l.Remote.AsSlice())
	}
	if value := b.encapLimit(layer); value != NoEncapLimit {
		limit := header.EncapLimit(h[6], byte(value))
		h = append(h, limit[:]...)
		h[6] = header.DestOptions
		p.limited = b.limited && b.nested6(layer) == layer-b.entry
	}
	return h
}
