package decode

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"sixfour/encap/header"
)

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

// addresses adds the two addresses of a packet.
func (d *decoder) addresses(l *Layer, src, dst net.IP) {
	from, _ := netip.AddrFromSlice(src)
	to, _ := netip.AddrFromSlice(dst)
	l.add("source", from, from.String()+" > "+to.String())
	l.add("destination", to, "")
}

func (d *decoder) ipv4(b []byte) {
	n := int(b[0]&0xf) * 4
	if len(b) < header.IPv4Len || n < header.IPv4Len || n > len(b) {
		d.truncated("IPv4", b)
		return
	}
	var ip layers.IPv4
	total := header.IPv4(b).TotalLen()
	if err := ip.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil || total == 0 {
		// Wrong options or a wrong length: decode the fixed header alone.
		fixed := slices.Clone(b[:header.IPv4Len])
		fixed[0] = 4<<4 | header.IPv4Len/4
		fixed[2], fixed[3] = 0, header.IPv4Len
		if err := ip.DecodeFromBytes(fixed, gopacket.NilDecodeFeedback); err != nil {
			d.truncated("IPv4", b)
			return
		}
	}
	l := d.add("IPv4", n)
	d.addresses(l, ip.SrcIP, ip.DstIP)
	d.protocol(l, "protocol", ip.Protocol)
	l.add("ttl", ip.TTL, fmt.Sprintf("TTL %d", ip.TTL))
	l.add("tos", ip.TOS, fmt.Sprintf("TOS %#02x", ip.TOS)+ecn(ip.TOS))
	l.add("id", ip.Id, fmt.Sprintf("ID %d", ip.Id))
	df, offset := ip.Flags&layers.IPv4DontFragment != 0, int(ip.FragOffset)*8
	l.add("df", df, map[bool]string{true: "DF"}[df])
	d.fragment(l, offset, ip.Flags&layers.IPv4MoreFragments != 0)
	l.field("length", total)
	right := header.Sum(b[:n], 0) == 0xffff
	l.add("checksum_right", right, fmt.Sprintf("checksum %#04x %s", ip.Checksum, map[bool]string{true: "right", false: "WRONG"}[right]))
	if n > header.IPv4Len {
		l.field("options", n-header.IPv4Len)
	}
	body, ok := d.payload(l, b, n, total)
	switch {
	case !ok:
	case offset > 0:
		d.rest(body)
	case ip.Protocol == layers.IPProtocolIPv6Fragment:
		d.seal(body)
	default:
		d.upper(ip.Protocol, body)
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
	l.add("fragment_offset", offset, fmt.Sprintf("fragment at %d%s", offset, last))
	l.add("more_fragments", more, "")
}

// payload returns the payload of an IP packet, without trailing bytes. If the payload is
// incomplete, that is noted in the layer.
func (d *decoder) payload(l *Layer, b []byte, head, total int) (body []byte, ok bool) {
	switch {
	case total < head:
		l.note("which is less than the header")
		d.rest(b[head:])
		return nil, false
	case total > len(b):
		l.add("missing", total-len(b), fmt.Sprintf("%d bytes of it are missing", total-len(b)))
		return b[head:], true
	case total < len(b):
		l.add("trailing", len(b)-total, fmt.Sprintf("%d bytes follow it", len(b)-total))
	}
	return b[head:total], true
}

func (d *decoder) ipv6(b []byte) {
	var ip layers.IPv6
	// An error that is not about the fixed header concerns a hop-by-hop header, which is
	// decoded below, or a length of 0, which is right for a packet without a payload.
	err := ip.DecodeFromBytes(b, gopacket.NilDecodeFeedback)
	if err != nil && len(b) < header.IPv6Len {
		d.truncated("IPv6", b)
		return
	}
	l := d.add("IPv6", header.IPv6Len)
	d.addresses(l, ip.SrcIP, ip.DstIP)
	d.protocol(l, "next_header", ip.NextHeader)
	l.field("hop_limit", ip.HopLimit)
	l.add("traffic_class", ip.TrafficClass, fmt.Sprintf("traffic class %#02x", ip.TrafficClass)+ecn(ip.TrafficClass))
	l.add("flow_label", ip.FlowLabel, fmt.Sprintf("flow label %#05x", ip.FlowLabel))
	l.add("payload", ip.Length, fmt.Sprintf("payload %d", ip.Length))
	if body, ok := d.payload(l, b, header.IPv6Len, header.IPv6Len+int(ip.Length)); ok {
		if ip.NextHeader == layers.IPProtocolIPv4 {
			d.shared(l, header.IPv6(b).Src(), header.IPv6(b).Dst(), body)
		}
		d.extensions(ip.NextHeader, body)
	}
}

// extensions decodes the extension headers of IPv6 (RFC 8200 section 4).
func (d *decoder) extensions(next layers.IPProtocol, b []byte) {
	for len(d.layers) < maxLayers {
		name, ok := extensionNames[next]
		if !ok {
			d.upper(next, b)
			return
		}
		if next == layers.IPProtocolIPv6Fragment {
			var f layers.IPv6Fragment
			if err := f.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
				d.truncated(name, b)
				return
			}
			l := d.add(name, len(f.Contents))
			d.protocol(l, "next_header", f.NextHeader)
			d.fragment(l, int(f.FragmentOffset)*8, f.MoreFragments)
			l.add("id", f.Identification, fmt.Sprintf("ID %#08x", f.Identification))
			if f.FragmentOffset > 0 {
				d.rest(f.Payload)
				return
			}
			next, b = f.NextHeader, f.Payload
			continue
		}
		var e layers.IPv6ExtensionSkipper
		if err := e.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
			d.truncated(name, b)
			return
		}
		l := d.add(name, len(e.Contents))
		d.protocol(l, "next_header", e.NextHeader)
		if next == layers.IPProtocolIPv6Routing {
			l.field("type", e.Contents[2])
			l.field("segments_left", e.Contents[3])
		} else {
			d.options(l, e.Contents)
		}
		next, b = e.NextHeader, e.Payload
	}
	d.rest(b)
}

var extensionNames = map[layers.IPProtocol]string{
	layers.IPProtocolIPv6HopByHop: "hop-by-hop", layers.IPProtocolIPv6Destination: "options", layers.IPProtocolIPv6Routing: "routing",
	layers.IPProtocolIPv6Fragment: "fragment",
}

// optionEncapsulationLimit is the tunnel encapsulation limit (RFC 2473 section 5.1).
const optionEncapsulationLimit = 4

// options decodes a header with options: the tunnel encapsulation limit, and other
// options by number.
func (d *decoder) options(l *Layer, b []byte) {
	var o layers.IPv6Destination
	if err := o.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		defer l.note("an option is cut off")
	}
	for _, o := range o.Options {
		switch {
		case o.OptionType == optionEncapsulationLimit && len(o.OptionData) == 1:
			l.field("encapsulation_limit", o.OptionData[0])
		case o.OptionType > 1: // no padding
			l.note("option %d of %d bytes", o.OptionType, len(o.OptionData))
		}
	}
}

// ecn returns the name of the ECN field of a TOS or traffic class, if it is not 0 (RFC
// 3168).
func ecn(tos byte) string {
	return [...]string{"", " (ECT(1))", " (ECT(0))", " (CE)"}[tos&header.ECNMask]
}

// protocol adds the protocol of what follows.
func (d *decoder) protocol(l *Layer, field string, n layers.IPProtocol) {
	words := fmt.Sprintf("%s %d", strings.ReplaceAll(field, "_", " "), n)
	name := protocolNames[n]
	if name == "" && n.LayerType() != gopacket.LayerTypeZero {
		name = n.String()
	}
	if name != "" {
		words += " (" + name + ")"
	}
	l.add(field, byte(n), words)
}

// protocolNames are the names of protocols where gopacket's do not say enough.
var protocolNames = map[layers.IPProtocol]string{
	layers.IPProtocolESP: "ESP", layers.IPProtocolAH: "AH",
	layers.IPProtocolIPv4: "IPv4 inside", layers.IPProtocolIPv6: "IPv6 inside", layers.IPProtocolICMPv4: "ICMP", layers.IPProtocolNoNextHeader: "nothing",
	layers.IPProtocolIPv6HopByHop: "hop-by-hop", layers.IPProtocolIPv6Destination: "options", layers.IPProtocolIPv6Routing: "routing",
	layers.IPProtocolIPv6Fragment: "fragment",
}

// upper decodes the payload of an IP packet.
func (d *decoder) upper(protocol layers.IPProtocol, b []byte) {
	switch protocol {
	case layers.IPProtocolIPv4, layers.IPProtocolIPv6:
		d.ip(b)
	case layers.IPProtocolNoNextHeader:
		d.rest(b)
	default:
		kind := protocol.LayerType()
		if layers.LayerClassIPv6Extension.Contains(kind) { // behind IPv4, where there are none
			kind = gopacket.LayerTypeZero
		}
		if !d.decode(kind, b) && len(b) > 0 {
			d.add("payload", len(b)).note("of protocol %d", protocol)
		}
	}
}

func (d *decoder) gre(b []byte) {
	var g layers.GRE
	if err := g.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		d.truncated("GRE", b)
		return
	}
	l := d.add("GRE", len(g.Contents))
	l.add("protocol", uint16(g.Protocol), fmt.Sprintf("protocol %#04x", uint16(g.Protocol)))
	if g.Version != 0 {
		l.field("version", g.Version)
	}
	if g.ChecksumPresent {
		right := header.Sum(b, 0) == 0xffff
		l.add("checksum_right", right, "checksum "+map[bool]string{true: "right", false: "WRONG"}[right])
	}
	if g.KeyPresent {
		l.field("key", g.Key)
	}
	if g.SeqPresent {
		l.field("sequence", g.Seq)
	}
	d.etherType(g.Protocol, g.Payload)
}
