package decode

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"sixfour/encap/header"
	"sixfour/internal/pcapng"
)

// decoder decodes one packet.
type decoder struct {
	layers []*Layer
	quoted bool
}

// maxLayers bounds the number of layers that are decoded, whatever the packet contains.
const maxLayers = 64

func (d *decoder) add(name string, bytes int) *Layer {
	l := &Layer{Name: name, Bytes: bytes, Quoted: d.quoted}
	d.layers = append(d.layers, l)
	return l
}

// rest adds the data after the last known header.
func (d *decoder) rest(b []byte) {
	if len(b) > 0 {
		d.add("payload", len(b))
	}
}

// odd adds data that should be a header but cannot be one.
func (d *decoder) odd(name string, b []byte) {
	d.add(name, len(b)).note("cut off")
}

// link decodes the link-layer header.
func (d *decoder) link(b []byte, link int) {
	switch link {
	case pcapng.LinkRaw, pcapng.LinkRawDLT, LinkIPv4, LinkIPv6:
		d.ip(b)
	case LinkEthernet:
		d.ethernet(b)
	case LinkSLL:
		d.cooked(b, 16, 14)
	case LinkSLL2:
		d.cooked(b, 20, 0)
	case LinkNull:
		if len(b) < 4 {
			d.odd("loopback", b)
			return
		}
		d.add("loopback", 4)
		d.ip(b[4:])
	default:
		d.add("unknown", len(b)).note("link type %d", link)
	}
}

func (d *decoder) ethernet(b []byte) {
	if len(b) < 14 {
		d.odd("Ethernet", b)
		return
	}
	l := d.add("Ethernet", 14)
	src, dst := net.HardwareAddr(b[6:12]).String(), net.HardwareAddr(b[:6]).String()
	l.say("source", src, src+" > "+dst)
	l.say("destination", dst, "")
	kind := binary.BigEndian.Uint16(b[12:])
	l.say("type", kind, fmt.Sprintf("type %#04x", kind))
	b = b[14:]
	for (kind == 0x8100 || kind == 0x88a8) && len(b) >= 4 && len(d.layers) < maxLayers {
		v := d.add("VLAN", 4)
		v.field("id", binary.BigEndian.Uint16(b)&0xfff)
		kind = binary.BigEndian.Uint16(b[2:])
		b = b[4:]
	}
	d.etherType(kind, b)
}

func (d *decoder) cooked(b []byte, size, protocol int) {
	if len(b) < size {
		d.odd("Linux", b)
		return
	}
	d.add("Linux", size)
	d.etherType(binary.BigEndian.Uint16(b[protocol:]), b[size:])
}

func (d *decoder) etherType(kind uint16, b []byte) {
	switch kind {
	case header.EtherTypeIPv4, header.EtherTypeIPv6:
		d.ip(b)
	default:
		d.rest(b)
	}
}

// ip decodes a packet that begins with its IP header.
func (d *decoder) ip(b []byte) {
	switch {
	case len(d.layers) >= maxLayers:
		d.rest(b)
	case header.Version(b) == 4:
		d.ipv4(b)
	case header.Version(b) == 6:
		d.ipv6(b)
	case len(b) == 0:
	default:
		d.add("unknown", len(b)).note("no IP version %d", header.Version(b))
	}
}

func (d *decoder) ends(l *Layer, src, dst netip.Addr) {
	l.say("source", src, src.String()+" > "+dst.String())
	l.say("destination", dst, "")
}

func (d *decoder) ipv4(b []byte) {
	ip := header.IPv4(b)
	if len(b) < header.IPv4Len || len(b) < ip.HeaderLen() || ip.HeaderLen() < header.IPv4Len {
		d.odd("IPv4", b)
		return
	}
	n := ip.HeaderLen()
	l := d.add("IPv4", n)
	d.ends(l, ip.Src(), ip.Dst())
	d.protocol(l, "protocol", ip.Protocol())
	l.say("ttl", ip.TTL(), fmt.Sprintf("TTL %d", ip.TTL()))
	l.say("tos", ip.TOS(), fmt.Sprintf("TOS %#02x", ip.TOS())+ecn(ip.TOS()))
	l.say("id", ip.ID(), fmt.Sprintf("ID %d", ip.ID()))
	df, mf, offset := ip.Fragment()&header.DF != 0, ip.Fragment()&header.MF != 0, int(ip.Fragment()&header.OffsetMask)*8
	l.say("df", df, map[bool]string{true: "DF"}[df])
	d.fragment(l, offset, mf)
	l.field("length", ip.TotalLen())
	right := header.Sum(ip[:n], 0) == 0xffff
	l.say("checksum_right", right, fmt.Sprintf("checksum %#04x %s", ip.Checksum(), map[bool]string{true: "right", false: "WRONG"}[right]))
	if n > header.IPv4Len {
		l.field("options", n-header.IPv4Len)
	}
	body, ok := d.cut(l, b, n, ip.TotalLen())
	switch {
	case !ok:
	case offset > 0:
		d.rest(body)
	default:
		d.upper(ip.Protocol(), body)
	}
}

// fragment adds which part of a packet a fragment is.
func (d *decoder) fragment(l *Layer, offset int, more bool) {
	if offset == 0 && !more {
		return
	}
	last := ""
	if !more {
		last = ", the last"
	}
	l.say("fragment_offset", offset, fmt.Sprintf("fragment at %d%s", offset, last))
	l.say("more_fragments", more, "")
}

// cut returns the payload of an IP packet, without trailing bytes. If the payload is
// incomplete, the layer says so.
func (d *decoder) cut(l *Layer, b []byte, head, total int) (body []byte, ok bool) {
	switch {
	case total < head:
		l.note("which is less than the header")
		d.rest(b[head:])
		return nil, false
	case total > len(b):
		l.say("missing", total-len(b), fmt.Sprintf("%d bytes of it are not here", total-len(b)))
		return b[head:], true
	case total < len(b):
		l.say("trailing", len(b)-total, fmt.Sprintf("%d bytes follow it", len(b)-total))
	}
	return b[head:total], true
}

func (d *decoder) ipv6(b []byte) {
	ip := header.IPv6(b)
	if len(b) < header.IPv6Len {
		d.odd("IPv6", b)
		return
	}
	l := d.add("IPv6", header.IPv6Len)
	d.ends(l, ip.Src(), ip.Dst())
	d.protocol(l, "next_header", ip.NextHeader())
	l.field("hop_limit", ip.HopLimit())
	l.say("traffic_class", ip.TrafficClass(), fmt.Sprintf("traffic class %#02x", ip.TrafficClass())+ecn(ip.TrafficClass()))
	l.say("flow_label", ip.FlowLabel(), fmt.Sprintf("flow label %#05x", ip.FlowLabel()))
	l.say("payload", ip.PayloadLen(), fmt.Sprintf("payload %d", ip.PayloadLen()))
	if body, ok := d.cut(l, b, header.IPv6Len, header.IPv6Len+ip.PayloadLen()); ok {
		d.extensions(ip.NextHeader(), body)
	}
}

// extensions decodes the extension headers of IPv6 (RFC 8200 section 4).
func (d *decoder) extensions(next byte, b []byte) {
	for len(d.layers) < maxLayers {
		n := 8
		switch next {
		case header.HopByHop, header.DestOptions, header.Routing:
			if len(b) >= 2 {
				n = (int(b[1]) + 1) * 8
			}
		case header.FragmentHdr:
		default:
			d.upper(next, b)
			return
		}
		name := extensionNames[next]
		if len(b) < n {
			d.odd(name, b)
			return
		}
		l := d.add(name, n)
		d.protocol(l, "next_header", b[0])
		switch next {
		case header.FragmentHdr:
			offset, more := int(binary.BigEndian.Uint16(b[2:]))&^7, b[3]&1 != 0
			d.fragment(l, offset, more)
			l.say("id", binary.BigEndian.Uint32(b[4:]), fmt.Sprintf("ID %#08x", binary.BigEndian.Uint32(b[4:])))
			if offset > 0 {
				d.rest(b[n:])
				return
			}
		case header.Routing:
			l.field("type", b[2])
			l.field("segments_left", b[3])
		default:
			d.options(l, b[2:n])
		}
		next, b = b[0], b[n:]
	}
	d.rest(b)
}

var extensionNames = map[byte]string{
	header.HopByHop: "hop-by-hop", header.DestOptions: "options", header.Routing: "routing", header.FragmentHdr: "fragment",
}

// options decodes a header with options: the tunnel encapsulation limit (RFC 2473
// section 5.1), and other options by number.
func (d *decoder) options(l *Layer, o []byte) {
	for len(o) > 0 {
		if o[0] == 0 {
			o = o[1:]
			continue
		}
		if len(o) < 2 || len(o) < 2+int(o[1]) {
			l.note("an option is cut off")
			return
		}
		switch {
		case o[0] == 4 && o[1] == 1:
			l.field("encapsulation_limit", o[2])
		case o[0] != 1: // padding
			l.note("option %d of %d bytes", o[0], o[1])
		}
		o = o[2+int(o[1]):]
	}
}

// ecn returns the name of the ECN field of a TOS or traffic class, if it is not 0 (RFC
// 3168).
func ecn(tos byte) string {
	return [...]string{"", " (ECT(1))", " (ECT(0))", " (CE)"}[tos&header.ECNMask]
}

// protocol adds the protocol of what follows.
func (d *decoder) protocol(l *Layer, field string, n byte) {
	words := fmt.Sprintf("%s %d", strings.ReplaceAll(field, "_", " "), n)
	if name := protocolNames[n]; name != "" {
		words += " (" + name + ")"
	}
	l.say(field, n, words)
}

var protocolNames = map[byte]string{
	header.HopByHop: "hop-by-hop", header.ICMP: "ICMP", 2: "IGMP", header.ProtoIPv4: "IPv4 inside", header.TCP: "TCP", header.UDP: "UDP",
	header.ProtoIPv6: "IPv6 inside", header.Routing: "routing", header.FragmentHdr: "fragment", header.GRE: "GRE", 50: "ESP", 51: "AH",
	header.ICMPv6: "ICMPv6", header.NoNextHeader: "nothing", header.DestOptions: "options", header.SCTP: "SCTP",
}

// upper decodes the payload of an IP packet.
func (d *decoder) upper(protocol byte, b []byte) {
	switch protocol {
	case header.ProtoIPv4, header.ProtoIPv6:
		d.ip(b)
	case header.GRE:
		d.gre(b)
	case header.ICMP:
		d.icmp4(b)
	case header.ICMPv6:
		d.icmp6(b)
	case header.TCP:
		d.tcp(b)
	case header.UDP:
		d.udp(b)
	case header.NoNextHeader:
		d.rest(b)
	default:
		if len(b) > 0 {
			d.add("payload", len(b)).note("of protocol %d", protocol)
		}
	}
}

func (d *decoder) gre(b []byte) {
	h, ok := header.PeekGRE(b)
	if !ok {
		d.odd("GRE", b)
		return
	}
	l := d.add("GRE", h.Len)
	l.say("protocol", h.Protocol, fmt.Sprintf("protocol %#04x", h.Protocol))
	if v := h.Flags & 7; v != 0 {
		l.field("version", v)
	}
	if h.Flags&header.GREChecksum != 0 {
		right := header.Sum(b, 0) == 0xffff
		l.say("checksum_right", right, "checksum "+map[bool]string{true: "right", false: "WRONG"}[right])
	}
	if h.Flags&header.GREKey != 0 {
		l.field("key", h.Key)
	}
	if h.Flags&header.GRESequence != 0 {
		l.field("sequence", h.Sequence)
	}
	d.etherType(h.Protocol, b[h.Len:])
}
