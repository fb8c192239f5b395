package differential

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// ethernetLen is the length of an Ethernet header in bytes.
const ethernetLen = 14

// Protocol numbers, IPv4's and IPv6's.
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoIPv4     = 4
	protoTCP      = 6
	protoUDP      = 17
	protoIPv6     = 41
	protoFragment = 44
	protoGRE      = 47
	protoICMPv6   = 58
	protoDestOpts = 60
)

// routers are the addresses of the recording router. Fields that it chose at random in
// headers from them are not compared: IPv4 identification and IPv6 flow label.
var routers = map[netip.Addr]bool{}

func init() {
	for _, a := range []string{"192.168.1.1", "203.0.113.1", "10.0.0.1", "2001:db8:1::1", "2001:db8:ffff::1", "fc00::1", "fc00:1::1",
		"2002:cb00:7101:1::1", "2002:cb00:7101::1", "2001:db8:cb00:7101::2", "2001:db8:100::2", "fe80::200:5efe:cb00:7101"} {
		routers[netip.MustParseAddr(a)] = true
	}
}

// decode formats an Ethernet frame as one line with every field except checksums, fragment
// identifications of IPv6, and bytes of payload. A wrong checksum is shown as "BADSUM". The
// code shares nothing with the daemon's.
func decode(frame []byte) string {
	to, ours := "", marks[string(frame[6:12])].injected
	if _, usual := marks[string(frame[:6])]; !usual {
		to = fmt.Sprintf("[to %v] ", net.HardwareAddr(frame[:6]))
	}
	return to + decodeIP(frame[ethernetLen:], ours)
}

// decodeIP decodes a packet, or the quoted packet of an ICMP error, which may be truncated
// and has no random fields.
func decodeIP(b []byte, quoted bool) string {
	switch {
	case len(b) == 0:
		return "EMPTY"
	case b[0]>>4 == 4 && len(b) >= 20 && len(b) >= int(b[0]&15)*4 && b[0]&15 >= 5:
		return decode4(b, quoted)
	case b[0]>>4 == 6 && len(b) >= 40:
		return decode6(b, quoted)
	}
	return fmt.Sprintf("RAW[%d] %x", len(b), b)
}

func decode4(b []byte, quoted bool) string {
	hl, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	there := len(b)
	b = b[:max(min(len(b), total), hl)] // what follows is padding
	src, dst := netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	var s strings.Builder
	fmt.Fprintf(&s, "IP4 %v>%v tos=%02x ttl=%d id=", src, dst, b[1], b[8])
	if routers[src] && !quoted {
		s.WriteString("rnd")
	} else {
		fmt.Fprintf(&s, "%x", binary.BigEndian.Uint16(b[4:]))
	}
	flags := binary.BigEndian.Uint16(b[6:])
	df, mf, offset := flags&0x4000 != 0, flags&0x2000 != 0, int(flags&0x1fff)*8
	if df {
		s.WriteString(" DF")
	}
	if mf {
		s.WriteString(" MF")
	}
	if offset > 0 {
		fmt.Fprintf(&s, " off=%d", offset)
	}
	fmt.Fprintf(&s, " len=%d%s", total, have(there, total))
	if hl > 20 {
		fmt.Fprintf(&s, " opt=%x", b[20:hl])
	}
	s.WriteString(bad(sum(0, b[:hl])))
	if offset > 0 {
		return s.String() + fmt.Sprintf(" | proto %d fragment[%d]", b[9], len(b)-hl)
	}
	// The pseudo-header of RFC 9293 section 3.1 and RFC 768.
	return s.String() + " | " + decodeUpper(b[9], b[hl:], sum(uint32(b[9])+uint32(total-hl), b[12:20]), len(b) == total && !mf, quoted)
}

func decode6(b []byte, quoted bool) string {
	plen := int(binary.BigEndian.Uint16(b[4:]))
	there := len(b) - 40
	b = b[:min(len(b), 40+plen)] // what follows is padding
	src, dst := netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	word := binary.BigEndian.Uint32(b)
	label := fmt.Sprintf("%x", word&0xfffff)
	if routers[src] && !quoted {
		label = "rnd"
	}
	var s strings.Builder
	fmt.Fprintf(&s, "IP6 %v>%v tc=%02x fl=%s hl=%d plen=%d%s", src, dst, word>>20&0xff, label, b[7], plen, have(there, plen))
	proto, rest, all := b[6], b[40:], len(b) == 40+plen
	for {
		name := map[byte]string{protoHopByHop: "HBH", protoDestOpts: "DSTOPT", protoFragment: "FRAG"}[proto]
		if name == "" || len(rest) < 8 {
			break
		}
		n := 8
		if proto == protoFragment {
			field := binary.BigEndian.Uint16(rest[2:])
			offset, mf := int(field&^7), field&1
			fmt.Fprintf(&s, " | FRAG off=%d mf=%d", offset, mf)
			if offset > 0 {
				return s.String() + fmt.Sprintf(" | proto %d fragment[%d]", rest[0], len(rest)-8)
			}
			all = all && mf == 0
		} else {
			n = min(8+8*int(rest[1]), len(rest))
			fmt.Fprintf(&s, " | %s %x", name, rest[2:n])
		}
		proto, rest = rest[0], rest[n:]
	}
	// The pseudo-header of RFC 8200 section 8.1.
	return s.String() + " | " + decodeUpper(proto, rest, sum(uint32(proto)+uint32(len(rest)), b[8:40]), all, quoted)
}

// decodeUpper decodes the payload of IP, with the sum of the pseudo-header. Its checksum
// can be verified only if the payload is complete.
func decodeUpper(proto byte, b []byte, pseudo uint32, all bool, quoted bool) string {
	switch {
	case proto == protoIPv4 || proto == protoIPv6:
		return decodeIP(b, quoted)
	case proto == protoGRE && len(b) >= 4:
		return decodeGRE(b, all, quoted)
	case proto == protoUDP && len(b) >= 8:
		length := int(binary.BigEndian.Uint16(b[4:]))
		s := fmt.Sprintf("UDP %d>%d len=%d%s", binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), length, have(len(b), length))
		if all && length == len(b) && binary.BigEndian.Uint16(b[6:]) != 0 {
			s += bad(sum(pseudo, b))
		}
		return s
	case proto == protoTCP && len(b) >= 20:
		options := b[20:max(20, min(len(b), int(b[12]>>4)*4))]
		s := fmt.Sprintf("TCP %d>%d flags=%02x opt=%x", binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), b[13], options)
		if all {
			s += bad(sum(pseudo, b))
		}
		return s
	case proto == protoICMP && len(b) >= 8:
		isError := b[0] == 3 || b[0] == 4 || b[0] == 5 || b[0] == 11 || b[0] == 12
		return decodeICMP("ICMP", b, isError, all, 0)
	case proto == protoICMPv6 && len(b) >= 8:
		return decodeICMP("ICMP6", b, b[0] < 128, all, pseudo)
	case len(b) == 0:
		return "EMPTY"
	}
	return fmt.Sprintf("proto %d [%d] %x", proto, len(b), b[:min(len(b), 12)])
}

func decodeICMP(name string, b []byte, isError, all bool, pseudo uint32) string {
	s := fmt.Sprintf("%s %d/%d arg=%#x", name, b[0], b[1], binary.BigEndian.Uint32(b[4:]))
	if all {
		s += bad(sum(pseudo, b))
	}
	if isError {
		return s + fmt.Sprintf(" quote[%d] {%s}", len(b)-8, decodeIP(b[8:], true))
	}
	return s + fmt.Sprintf(" data[%d]", len(b)-8)
}

// decodeGRE decodes RFC 2784 with RFC 2890's fields.
func decodeGRE(b []byte, all, quoted bool) string {
	flags, proto := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	s, rest := fmt.Sprintf("GRE flags=%04x proto=%04x", flags, proto), b[4:]
	for _, f := range []struct {
		flag uint16
		text func(word uint32) string
	}{
		{0x8000, func(uint32) string {
			if all && sum(0, b) != 0xffff {
				return " csum=BAD"
			}
			return " csum=ok"
		}},
		{0x2000, func(key uint32) string { return fmt.Sprintf(" key=%08x", key) }},
		{0x1000, func(seq uint32) string { return fmt.Sprintf(" seq=%d", seq) }},
	} {
		if flags&f.flag == 0 {
			continue
		}
		if len(rest) < 4 {
			return s + fmt.Sprintf(" | RAW[%d] %x", len(rest), rest)
		}
		s, rest = s+f.text(binary.BigEndian.Uint32(rest)), rest[4:]
	}
	if proto == 0x0800 || proto == 0x86dd {
		return s + " | " + decodeIP(rest, quoted)
	}
	return s + fmt.Sprintf(" | RAW[%d] %x", len(rest), rest)
}

// have returns how many bytes are there, if some are missing.
func have(n, want int) string {
	if n == want {
		return ""
	}
	return fmt.Sprintf(" (have %d)", n)
}

// sum returns the one's complement sum of RFC 1071, over the words of b and start: 0xffff
// if b contains its own checksum and that is correct.
func sum(start uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		start += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		start += uint32(b[0]) << 8
	}
	for start > 0xffff {
		start = start>>16 + start&0xffff
	}
	return start
}

func bad(sum uint32) string {
	if sum == 0xffff {
		return ""
	}
	return " BADSUM"
}
