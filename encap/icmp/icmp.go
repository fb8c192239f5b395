// Package icmp reads the ICMP errors that come back about outer packets, determines what
// they mean for the inner sender, and builds the errors that the inner sender gets
// (mechanisms 1.6).
package icmp

import (
	"encoding/binary"
	"fmt"

	"sixfour/encap/header"
)

// Types of ICMP for IPv4 (RFC 792), and codes of type 3.
const (
	EchoReply4     = 0
	EchoRequest4   = 8
	Unreachable4   = 3
	sourceQuench4  = 4
	redirect4      = 5
	TimeExceeded4  = 11
	Parameter4     = 12
	netUnreachable = 0
	host           = 1
	protocol       = 2
	port           = 3
	FragNeeded     = 4 // RFC 1191
	netUnknown     = 6
	hostUnknown    = 7
	netProhibited  = 9
	hostProhibited = 10
	netTOS         = 11
	hostTOS        = 12
	prohibited     = 13 // RFC 1812 5.2.7.1
)

// Types of ICMPv6 (RFC 4443 section 2.1); errors are those below 128.
const (
	Unreachable6  = 1
	TooBig6       = 2
	TimeExceeded6 = 3
	Parameter6    = 4
	information6  = 128
	EchoRequest6  = 128
	EchoReply6    = 129
	redirect6     = 137 // RFC 4861
	prohibited6   = 1   // code of type 1
	address6      = 3   // code of type 1
	port6         = 4   // code of type 1
	nextHeader6   = 1   // code of type 4

	NoRoute6        = 0 // code of type 1
	ReassemblyTime6 = 1 // code of type 3
)

// HeaderLen is the length of every error's header: type, code, checksum, and 4 bytes
// that depend on the type. The quoted packet follows.
const HeaderLen = 8

// Error is an ICMP error that was received.
type Error struct {
	Version    int // 4: ICMP, 6: ICMPv6
	Type, Code byte
	Arg        uint32 // MTU or pointer
	Quote      []byte // shares the message's memory
}

// Parse reads an error from an IP packet of the version, which header.Parse has
// accepted. It returns false for any other message, and for a damaged one.
func Parse(pkt []byte) (Error, bool) {
	e := Error{Version: header.Version(pkt)}
	var msg []byte
	var sum uint32
	if e.Version == 4 {
		ip := header.IPv4(pkt)
		msg = ip.Payload()
		if ip.Protocol() != header.ICMP || ip.IsFragment() {
			return e, false
		}
	} else {
		ip := header.IPv6(pkt)
		msg = ip.Payload()
		if ip.NextHeader() != header.ICMPv6 {
			return e, false
		}
		sum = header.PseudoSum(ip.Source(), ip.Dest(), len(msg), header.ICMPv6)
	}
	if len(msg) < HeaderLen || header.Sum(msg, sum) != 0xffff {
		return e, false
	}
	e.Type, e.Code = msg[0], msg[1]
	e.Arg = binary.BigEndian.Uint32(msg[4:])
	if e.Version == 4 && e.Type == Unreachable4 {
		e.Arg &= 0xffff // RFC 1191 section 4; the rest is for the length of the quote (RFC 4884)
	}
	if e.Version == 4 && e.Type == Parameter4 {
		e.Arg >>= 24
	}
	e.Quote = msg[HeaderLen:]
	if n := e.quoteLen(msg); n > 0 && n < len(e.Quote) {
		e.Quote = e.Quote[:n]
	}
	if e.Version == 4 {
		return e, e.Type == Unreachable4 || e.Type == TimeExceeded4 || e.Type == Parameter4 || e.Type == sourceQuench4
	}
	return e, e.Type < information6
}

// quoteLen returns the length of the quote if extensions follow it (RFC 4884 section
// 4.1), or 0 if the message does not give it.
func (e *Error) quoteLen(msg []byte) int {
	switch {
	case e.Version == 4 && (e.Type == Unreachable4 || e.Type == TimeExceeded4 || e.Type == Parameter4):
		return int(msg[5]) * 4
	case e.Version == 6 && (e.Type == Unreachable6 || e.Type == TimeExceeded6):
		return int(msg[4]) * 8
	}
	return 0
}

// Meaning is what an error about an outer packet means for the tunnel.
type Meaning uint8

// The meanings. Those after TooBig are reported to the inner sender.
const (
	Nothing     Meaning = iota // not relayed, and there is nothing to learn from it
	TooBig                     // the path has a smaller MTU
	NoNetwork                  // no route to the peer
	Unreachable                // the peer cannot be reached, or does not know the tunnel
	Prohibited                 // a node on the path forbids it
)

// Meaning returns the meaning of the error by the table of mechanisms 1.6. For the inner
// sender the tunnel is one hop: if the outer TTL expired inside the tunnel, its end
// cannot be reached (RFC 2003 section 4.4, RFC 2473 section 8.3).
func (e Error) Meaning() Meaning {
	if e.Version == 6 {
		return e.meaning6()
	}
	switch e.Type {
	case Unreachable4:
		switch e.Code {
		case netUnreachable, netUnknown, netTOS:
			return NoNetwork
		case host, hostUnknown, hostTOS, protocol:
			return Unreachable
		case port: // Linux sends this where "protocol unreachable" is meant
			return Unreachable
		case FragNeeded:
			return TooBig
		case netProhibited, hostProhibited, prohibited:
			return Prohibited
		}
	case TimeExceeded4:
		if e.Code == 0 { // code 1 is about reassembly
			return Unreachable
		}
	}
	return Nothing
}

func (e Error) meaning6() Meaning {
	switch e.Type {
	case Unreachable6:
		return Unreachable
	case TooBig6:
		return TooBig
	case TimeExceeded6:
		if e.Code == 0 {
			return Unreachable
		}
	case Parameter6:
		// The packet carried an encapsulation limit of 0 into another tunnel (RFC 2473
		// section 6.7). Other parameter problems are about headers that we made.
		if e.Code == 0 && e.Arg < uint32(len(e.Quote)) && e.Quote[e.Arg] == 0 {
			at, found := header.FindEncapLimit(header.IPv6(e.Quote))
			if found && uint32(at) == e.Arg {
				return Unreachable
			}
		}
	}
	return Nothing
}

// String describes the error.
func (e Error) String() string {
	if e.Version == 6 {
		switch {
		case e.Type == Unreachable6 && e.Code == prohibited6:
			return "administratively prohibited"
		case e.Type == Unreachable6 && e.Code == 0:
			return "no route"
		case e.Type == Unreachable6 && e.Code == port6:
			return "port unreachable"
		case e.Type == Unreachable6:
			return "address unreachable"
		case e.Type == TimeExceeded6:
			return "hop limit exceeded"
		case e.Type == TooBig6:
			return fmt.Sprintf("packet too big, MTU %d", e.Arg)
		case e.Type == Parameter6 && e.Code == nextHeader6:
			return "next header unknown"
		}
		return fmt.Sprintf("ICMPv6 type %d code %d", e.Type, e.Code)
	}
	switch {
	case e.Type == Unreachable4 && e.Code == FragNeeded:
		return fmt.Sprintf("fragmentation needed, MTU %d", e.Arg)
	case e.Type == Unreachable4 && e.Code == port:
		return "port unreachable"
	case e.Type == Unreachable4 && e.Code == protocol:
		return "protocol unreachable"
	case e.Type == TimeExceeded4 && e.Code == 0:
		return "TTL exceeded"
	}
	switch e.Meaning() {
	case NoNetwork:
		return "network unreachable"
	case Unreachable:
		return "host unreachable"
	case Prohibited:
		return "administratively prohibited"
	}
	return fmt.Sprintf("ICMP type %d code %d", e.Type, e.Code)
}

// For returns the type and code that an inner sender of the IP version gets. It is valid
// only for meanings after TooBig.
func (m Meaning) For(version int) (typ, code byte) {
	if version == 4 {
		return Unreachable4, map[Meaning]byte{NoNetwork: netUnreachable, Unreachable: host, Prohibited: prohibited}[m]
	}
	if m == Prohibited {
		return Unreachable6, prohibited6
	}
	return Unreachable6, address6
}

// plateaus are MTUs that are common in the Internet (RFC 1191 section 7.1).
var plateaus = [...]int{65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68}

// The least path MTUs: that of IPv4 (RFC 791), and that of IPv6, below which a sender
// never has to go (RFC 8201 section 4).
const (
	leastMTU4 = 68
	leastMTU6 = 1280
)

// MTU returns the path MTU that a TooBig error reports about a packet of size bytes. Old
// routers do not report it: then MTU returns the next plateau below size. It returns 0
// if the value cannot be true: it is not smaller than size, or less than IP allows.
func (e Error) MTU(size int) int {
	mtu := int(min(e.Arg, 1<<16))
	switch {
	case e.Version == 6:
		mtu = max(mtu, leastMTU6)
	case mtu == 0:
		for _, p := range plateaus {
			if p < size {
				mtu = p
				break
			}
		}
	}
	if mtu < leastMTU4 || mtu >= size {
		return 0
	}
	return mtu
}
