package decode

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// icmpHeader is the length of the header of ICMP and ICMPv6 messages in bytes, including
// the part that depends on the type.
const icmpHeader = 8

var types4 = map[byte]string{
	0: "echo reply", 3: "unreachable", 4: "source quench", 5: "redirect", 8: "echo request", 9: "router advertisement",
	10: "router solicitation", 11: "time exceeded", 12: "parameter problem", 13: "timestamp request", 14: "timestamp reply",
}

var codes4 = map[byte]string{
	0: "network", 1: "host", 2: "protocol", 3: "port", 4: "fragmentation needed", 5: "source route failed",
	9: "network prohibited", 10: "host prohibited", 13: "prohibited",
}

var types6 = map[byte]string{
	1: "unreachable", 2: "packet too big", 3: "time exceeded", 4: "parameter problem", 128: "echo request", 129: "echo reply",
	130: "multicast listener query", 131: "multicast listener report", 132: "multicast listener done", 133: "router solicitation",
	134: "router advertisement", 135: "neighbour solicitation", 136: "neighbour advertisement", 137: "redirect", 143: "multicast listener report",
}

var codes6 = map[byte]string{
	0: "no route", 1: "prohibited", 2: "beyond scope", 3: "address", 4: "port", 5: "source address refused", 6: "reject route",
}

// message adds a message with its type and code.
func (d *decoder) message(name string, bytes int, kind, code byte, types map[byte]string) *Layer {
	l := d.add(name, bytes)
	words := types[kind]
	if words == "" {
		words = fmt.Sprintf("type %d", kind)
	}
	l.add("type", kind, words)
	l.add("code", code, "")
	l.add("name", words, "")
	return l
}

// quote decodes the packet that an ICMP error quotes.
func (d *decoder) quote(b []byte) {
	if d.quoted {
		d.rest(b)
		return
	}
	d.quoted = true
	d.ip(b)
	d.quoted = false
}

func (d *decoder) icmp4(b []byte) {
	var m layers.ICMPv4
	if err := m.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		d.truncated("ICMP", b)
		return
	}
	kind, code := m.TypeCode.Type(), m.TypeCode.Code()
	l := d.message("ICMP", len(m.Contents), kind, code, types4)
	switch kind {
	case layers.ICMPv4TypeEchoReply, layers.ICMPv4TypeEchoRequest:
		l.field("identifier", m.Id)
		l.field("sequence", m.Seq)
		d.rest(m.Payload)
	case layers.ICMPv4TypeDestinationUnreachable:
		if name := codes4[code]; name != "" {
			l.note("%s", name)
		} else {
			l.note("code %d", code)
		}
		if code == layers.ICMPv4CodeFragmentationNeeded {
			l.add("mtu", m.Seq, fmt.Sprintf("MTU %d", m.Seq))
		}
		d.quote(m.Payload)
	case layers.ICMPv4TypeSourceQuench, layers.ICMPv4TypeRedirect, layers.ICMPv4TypeTimeExceeded, layers.ICMPv4TypeParameterProblem:
		d.quote(m.Payload)
	default:
		d.rest(m.Payload)
	}
}

func (d *decoder) icmp6(b []byte) {
	var m layers.ICMPv6
	if err := m.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil || len(b) < icmpHeader {
		d.truncated("ICMPv6", b)
		return
	}
	kind, code := m.TypeCode.Type(), m.TypeCode.Code()
	l := d.message("ICMPv6", icmpHeader, kind, code, types6)
	arg, body := binary.BigEndian.Uint32(m.Payload), b[icmpHeader:]
	switch kind {
	case layers.ICMPv6TypeEchoRequest, layers.ICMPv6TypeEchoReply:
		var e layers.ICMPv6Echo
		_ = e.DecodeFromBytes(m.Payload, gopacket.NilDecodeFeedback) // it is long enough
		l.field("identifier", e.Identifier)
		l.field("sequence", e.SeqNumber)
		d.rest(body)
	case layers.ICMPv6TypeDestinationUnreachable:
		if name := codes6[code]; name != "" {
			l.note("%s", name)
		}
		d.quote(body)
	case layers.ICMPv6TypePacketTooBig:
		l.add("mtu", arg, fmt.Sprintf("MTU %d", arg))
		d.quote(body)
	case layers.ICMPv6TypeParameterProblem:
		l.field("pointer", arg)
		d.quote(body)
	case layers.ICMPv6TypeTimeExceeded:
		d.quote(body)
	case layers.ICMPv6TypeNeighborSolicitation, layers.ICMPv6TypeNeighborAdvertisement:
		var n layers.ICMPv6NeighborSolicitation // the advertisement has the same fields
		err := n.DecodeFromBytes(m.Payload, gopacket.NilDecodeFeedback)
		target, ok := netip.AddrFromSlice(n.TargetAddress)
		if !ok {
			l.note("cut off")
			return
		}
		l.Bytes += 16
		l.add("target", target, "target "+target.String())
		d.neighbourOptions(l, n.Options, err)
	case layers.ICMPv6TypeRouterAdvertisement:
		var r layers.ICMPv6RouterAdvertisement
		err := r.DecodeFromBytes(m.Payload, gopacket.NilDecodeFeedback)
		l.field("router_lifetime", binary.BigEndian.Uint16(b[6:]))
		if len(r.Contents) == 0 {
			l.note("cut off")
			return
		}
		l.Bytes += 8
		d.neighbourOptions(l, r.Options, err)
	case layers.ICMPv6TypeRouterSolicitation:
		var r layers.ICMPv6RouterSolicitation
		d.neighbourOptions(l, r.Options, r.DecodeFromBytes(m.Payload, gopacket.NilDecodeFeedback))
	default:
		d.rest(body)
	}
}

// neighbourOptions lists the options of a neighbour discovery message (RFC 4861 section
// 4.6). err is the error of decoding the message.
func (d *decoder) neighbourOptions(l *Layer, options layers.ICMPv6Options, err error) {
	var prefixes []string
	for _, o := range options {
		switch {
		case o.Type == layers.ICMPv6OptPrefixInfo && len(o.Data) == 30: // length, flags, two lifetimes, 4 bytes, prefix
			p := netip.PrefixFrom(netip.AddrFrom16([16]byte(o.Data[14:])), int(min(o.Data[0], 128)))
			prefixes = append(prefixes, p.String())
			l.note("prefix %v", p)
		case o.Type == layers.ICMPv6OptMTU && len(o.Data) == 6:
			mtu := binary.BigEndian.Uint32(o.Data[2:])
			l.add("mtu", mtu, fmt.Sprintf("MTU %d", mtu))
		}
		l.Bytes += 2 + len(o.Data)
	}
	if err != nil {
		l.note("an option is cut off")
	}
	if len(prefixes) > 0 {
		l.add("prefixes", prefixes, "")
	}
}

func (d *decoder) tcp(b []byte) {
	var t layers.TCP
	if err := t.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		d.truncated("TCP", b)
		return
	}
	l := d.add("TCP", len(t.Contents))
	d.ports(l, uint16(t.SrcPort), uint16(t.DstPort))
	var set []string
	for _, f := range []struct {
		set  bool
		name string
	}{{t.FIN, "FIN"}, {t.SYN, "SYN"}, {t.RST, "RST"}, {t.PSH, "PSH"}, {t.ACK, "ACK"}, {t.URG, "URG"}, {t.ECE, "ECE"}, {t.CWR, "CWR"}} {
		if f.set {
			set = append(set, f.name)
		}
	}
	l.add("flags", set, strings.Join(set, " "))
	l.field("sequence", t.Seq)
	if t.ACK {
		l.field("acknowledgement", t.Ack)
	}
	l.field("window", t.Window)
	for _, o := range t.Options {
		if o.OptionType == layers.TCPOptionKindMSS && len(o.OptionData) == 2 {
			mss := binary.BigEndian.Uint16(o.OptionData)
			l.add("mss", mss, fmt.Sprintf("MSS %d", mss))
		}
	}
	if n := len(t.Options); len(t.Padding) > 0 && (n == 0 || t.Options[n-1].OptionType != layers.TCPOptionKindEndList) {
		l.note("an option is cut off")
	}
	d.rest(t.Payload)
}

func (d *decoder) udp(b []byte) {
	var u layers.UDP
	if err := u.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil && len(u.Contents) == 0 {
		d.truncated("UDP", b)
		return
	}
	l := d.add("UDP", len(u.Contents))
	d.ports(l, uint16(u.SrcPort), uint16(u.DstPort))
	l.field("length", u.Length)
	if u.Checksum == 0 {
		l.note("no checksum")
	}
	body := b[len(u.Contents):]
	if !d.tunnel(uint16(u.SrcPort), uint16(u.DstPort), body) && !d.decode(u.NextLayerType(), body) {
		d.rest(body)
	}
}

func (d *decoder) ports(l *Layer, src, dst uint16) {
	l.add("source_port", src, fmt.Sprintf("%d > %d", src, dst))
	l.add("destination_port", dst, "")
}
