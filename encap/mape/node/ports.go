package node

import (
	"encoding/binary"

	"sixfour/encap/header"
	"sixfour/encap/icmp"
)

// ports are the two ports of an IPv4 packet. In ICMP the identifier of a query takes the place
// of both, and an error has those of the packet that it quotes, in the other direction (RFC
// 7597 section 8.1, RFC 7596 section 8.1).
type ports struct{ src, dst port }

// port is the port of one end.
type port struct {
	number uint16
	state  portState
}

type portState uint8

const (
	noPort     portState = iota // the protocol has none, it is cut off, or it is that of another address
	withPort                    // number is valid
	laterPiece                  // a later fragment, which does not have its packet's ports
)

// Protocols whose header begins with two ports.
const (
	protoTCP     = 6
	protoDCCP    = 33
	protoSCTP    = 132
	protoUDPLite = 136
)

// portsOf returns the ports of a packet with a whole IPv4 header. What follows may be cut off.
func portsOf(ip header.IPv4) (p ports) {
	if !ip.FirstBytes() {
		p.src.state, p.dst.state = laterPiece, laterPiece
		return p
	}
	at := min(max(ip.HeaderLen(), header.IPv4Len), len(ip))
	b := ip[at:]
	if ip.Protocol() != header.ICMP {
		p.read(ip.Protocol(), b)
		return p
	}
	if len(b) < 1 {
		return p
	}
	switch b[0] {
	case icmp.Unreachable4, sourceQuench, icmp.TimeExceeded4, icmp.Parameter4:
		p.quote(ip, b)
	default:
		p.read(header.ICMP, b)
	}
	return p
}

// ICMP types with an identifier (RFC 792, RFC 950), and an error that is obsolete.
const (
	sourceQuench     = 4
	timestamp        = 13
	timestampReply   = 14
	information      = 15
	informationReply = 16
	mask             = 17
	maskReply        = 18
)

// read reads the ports of what follows an IPv4 header.
func (p *ports) read(protocol byte, b []byte) {
	switch protocol {
	case protoTCP, header.UDP, protoDCCP, protoSCTP, protoUDPLite:
		if len(b) >= 4 {
			src, dst := header.Ports(b)
			p.src, p.dst = port{src, withPort}, port{dst, withPort}
		}
	case header.ICMP:
		if len(b) < icmp.HeaderLen {
			return
		}
		switch b[0] {
		case icmp.EchoReply4, icmp.EchoRequest4, timestamp, timestampReply, information, informationReply, mask, maskReply:
			p.src = port{binary.BigEndian.Uint16(b[4:]), withPort}
			p.dst = p.src
		}
	}
}

// quote reads the ports of the packet that an ICMP error quotes. That packet was sent by the host
// to which the error goes; to the host that sends the error, if that is not a router.
func (p *ports) quote(about header.IPv4, b []byte) {
	if len(b) < icmp.HeaderLen+header.IPv4Len || b[icmp.HeaderLen]>>4 != 4 {
		return
	}
	ip := header.IPv4(b[icmp.HeaderLen:])
	at := ip.HeaderLen()
	if at < header.IPv4Len || at > len(ip) || !ip.FirstBytes() {
		return
	}
	p.read(ip.Protocol(), ip[at:])
	p.src, p.dst = p.dst, p.src
	if [4]byte(ip.Dest()) != [4]byte(about.Source()) {
		p.src.state = noPort
	}
	if [4]byte(ip.Source()) != [4]byte(about.Dest()) {
		p.dst.state = noPort
	}
}
