package decode

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
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

// message decodes the type and code of an ICMP message.
func (d *decoder) message(name string, b []byte, types map[byte]string) *Layer {
	l := d.add(name, min(len(b), icmpHeader))
	words := types[b[0]]
	if words == "" {
		words = fmt.Sprintf("type %d", b[0])
	}
	l.say("type", b[0], words)
	l.say("code", b[1], "")
	l.say("name", words, "")
	return l
}

func (d *decoder) echo(l *Layer, b []byte) {
	l.field("identifier", binary.BigEndian.Uint16(b[4:]))
	l.field("sequence", binary.BigEndian.Uint16(b[6:]))
	d.rest(b[icmpHeader:])
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
	if len(b) < icmpHeader {
		d.odd("ICMP", b)
		return
	}
	l := d.message("ICMP", b, types4)
	switch b[0] {
	case 0, 8:
		d.echo(l, b)
	case 3, 4, 5, 11, 12:
		if b[0] == 3 {
			if name := codes4[b[1]]; name != "" {
				l.note("%s", name)
			} else {
				l.note("code %d", b[1])
			}
			if b[1] == 4 {
				l.say("mtu", binary.BigEndian.Uint16(b[6:]), fmt.Sprintf("MTU %d", binary.BigEndian.Uint16(b[6:])))
			}
		}
		d.quote(b[icmpHeader:])
	default:
		d.rest(b[icmpHeader:])
	}
}

func (d *decoder) icmp6(b []byte) {
	if len(b) < icmpHeader {
		d.odd("ICMPv6", b)
		return
	}
	l := d.message("ICMPv6", b, types6)
	arg := binary.BigEndian.Uint32(b[4:])
	switch b[0] {
	case 128, 129:
		d.echo(l, b)
	case 1, 2, 3, 4:
		switch b[0] {
		case 1:
			if name := codes6[b[1]]; name != "" {
				l.note("%s", name)
			}
		case 2:
			l.say("mtu", arg, fmt.Sprintf("MTU %d", arg))
		case 4:
			l.field("pointer", arg)
		}
		d.quote(b[icmpHeader:])
	case 135, 136:
		if len(b) < icmpHeader+16 {
			l.note("cut off")
			return
		}
		l.Bytes += 16
		target := netip.AddrFrom16([16]byte(b[icmpHeader:]))
		l.say("target", target, "target "+target.String())
		d.neighbourOptions(l, b[icmpHeader+16:])
	case 134:
		l.field("router_lifetime", binary.BigEndian.Uint16(b[6:]))
		if len(b) >= 16 {
			l.Bytes += 8
			d.neighbourOptions(l, b[16:])
		}
	case 133:
		d.neighbourOptions(l, b[icmpHeader:])
	default:
		d.rest(b[icmpHeader:])
	}
}

// neighbourOptions lists the options of a neighbour discovery message (RFC 4861 section
// 4.6).
func (d *decoder) neighbourOptions(l *Layer, b []byte) {
	var prefixes []string
	for len(b) >= 8 {
		n := int(b[1]) * 8
		if n == 0 || n > len(b) {
			l.note("an option is cut off")
			return
		}
		switch {
		case b[0] == 3 && n == 32:
			p := netip.PrefixFrom(netip.AddrFrom16([16]byte(b[16:])), int(min(b[2], 128)))
			prefixes = append(prefixes, p.String())
			l.note("prefix %v", p)
		case b[0] == 5 && n == 8:
			l.say("mtu", binary.BigEndian.Uint32(b[4:]), fmt.Sprintf("MTU %d", binary.BigEndian.Uint32(b[4:])))
		}
		l.Bytes += n
		b = b[n:]
	}
	if len(prefixes) > 0 {
		l.say("prefixes", prefixes, "")
	}
	d.rest(b)
}

// tcpFlags are the names of the flags from the lowest bit on.
var tcpFlags = [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"}

func (d *decoder) tcp(b []byte) {
	if len(b) < 20 || int(b[12]>>4)*4 < 20 || int(b[12]>>4)*4 > len(b) {
		d.odd("TCP", b)
		return
	}
	n := int(b[12]>>4) * 4
	l := d.add("TCP", n)
	d.ports(l, b)
	var set []string
	for i, name := range tcpFlags {
		if b[13]>>i&1 != 0 {
			set = append(set, name)
		}
	}
	l.say("flags", set, strings.Join(set, " "))
	l.field("sequence", binary.BigEndian.Uint32(b[4:]))
	if b[13]&0x10 != 0 {
		l.field("acknowledgement", binary.BigEndian.Uint32(b[8:]))
	}
	l.field("window", binary.BigEndian.Uint16(b[14:]))
	for o := b[20:n]; len(o) > 0 && o[0] != 0; {
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		if len(o) < 2 || int(o[1]) < 2 || int(o[1]) > len(o) {
			l.note("an option is cut off")
			break
		}
		if o[0] == 2 && o[1] == 4 {
			l.say("mss", binary.BigEndian.Uint16(o[2:]), fmt.Sprintf("MSS %d", binary.BigEndian.Uint16(o[2:])))
		}
		o = o[o[1]:]
	}
	d.rest(b[n:])
}

func (d *decoder) udp(b []byte) {
	if len(b) < 8 {
		d.odd("UDP", b)
		return
	}
	l := d.add("UDP", 8)
	d.ports(l, b)
	l.field("length", binary.BigEndian.Uint16(b[4:]))
	if binary.BigEndian.Uint16(b[6:]) == 0 {
		l.note("no checksum")
	}
	d.rest(b[8:])
}

func (d *decoder) ports(l *Layer, b []byte) {
	src, dst := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	l.say("source_port", src, fmt.Sprintf("%d > %d", src, dst))
	l.say("destination_port", dst, "")
}
