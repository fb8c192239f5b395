package pcapfilter

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// identifier parses an identifier.
func (p *parser) identifier(q qualifiers) (condition, *Error) {
	tok := p.tok
	if !tok.word {
		return nil, p.unexpected("an address, a number or a name is missing")
	}
	switch q.kind {
	case "port", "portrange":
		return p.port(q)
	case "proto":
		return p.number(q)
	}
	if q.proto != "" && q.proto != "ip" && q.proto != "ip6" {
		return nil, p.fail(tok.at, "%s has no hosts or networks: ip and ip6 do", q.proto)
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	bits := -1
	if p.tok.is("/") || p.tok.is("mask") {
		if q.kind == "host" {
			return nil, p.fail(p.tok.at, "a host has no mask: use net")
		}
		var err *Error
		if bits, err = p.mask(); err != nil {
			return nil, err
		}
	}
	if strings.Contains(tok.text, ":") {
		return p.address6(q, tok, bits)
	}
	return p.address4(q, tok, bits)
}

// mask parses the length of a prefix, or a mask in dotted form.
func (p *parser) mask() (int, *Error) {
	dotted := p.tok.is("mask")
	if err := p.advance(); err != nil {
		return 0, err
	}
	tok := p.tok
	if dotted {
		a, err := netip.ParseAddr(tok.text)
		if err != nil || !a.Is4() {
			return 0, p.fail(tok.at, "%q is not a mask such as 255.255.255.0", tok.text)
		}
		b := a.As4()
		m := binary.BigEndian.Uint32(b[:])
		bits := 0
		for ; m&0x80000000 != 0; m <<= 1 {
			bits++
		}
		if m != 0 {
			return 0, p.fail(tok.at, "the mask %s is not contiguous", tok.text)
		}
		return bits, p.advance()
	}
	n, ok := number(tok.text)
	if !ok || n > 128 {
		return 0, p.fail(tok.at, "the length of a prefix is missing")
	}
	return int(n), p.advance()
}

func (p *parser) address6(q qualifiers, tok token, bits int) (condition, *Error) {
	a, err := netip.ParseAddr(tok.text)
	switch {
	case err != nil || a.Zone() != "":
		return nil, p.fail(tok.at, "%q is not an IPv6 address", tok.text)
	case q.proto == "ip":
		return nil, p.fail(tok.at, "%s is not an IPv4 address", tok.text)
	case bits < 0:
		bits = 128
	}
	prefix := netip.PrefixFrom(a, bits).Masked()
	if prefix.Addr() != a {
		return nil, p.fail(tok.at, "%s/%d has bits set after the prefix: use %v", tok.text, bits, prefix)
	}
	return address6(q.side, a.As16(), bits), nil
}

// address4 parses an IPv4 address, or the leading bytes of one for a network.
func (p *parser) address4(q qualifiers, tok token, bits int) (condition, *Error) {
	parts := strings.Split(tok.text, ".")
	text := tok.text + strings.Repeat(".0", max(0, 4-len(parts)))
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return nil, p.fail(tok.at, "%q is neither an address nor a known word of pcap-filter(7); host names are not resolved", tok.text)
	case len(parts) < 4 && q.kind != "net" && bits < 0:
		return nil, p.fail(tok.at, "%q is not an address: use net %s, or port %s", tok.text, tok.text, tok.text)
	case q.proto == "ip6":
		return nil, p.fail(tok.at, "%s is not an IPv6 address", tok.text)
	case bits > 32:
		return nil, p.fail(tok.at, "an IPv4 prefix has at most 32 bits, not %d", bits)
	case bits < 0:
		bits = 8 * len(parts)
	}
	prefix := netip.PrefixFrom(a, bits).Masked()
	if prefix.Addr() != a {
		return nil, p.fail(tok.at, "%s/%d has bits set after the prefix: use %v", tok.text, bits, prefix)
	}
	b := a.As4()
	return address4(q.side, binary.BigEndian.Uint32(b[:]), uint32(uint64(0xffffffff)<<(32-bits))), nil
}

// port parses a port or a range of ports.
func (p *parser) port(q qualifiers) (condition, *Error) {
	tok := p.tok
	names := []string{"tcp", "udp", "sctp"}
	switch q.proto {
	case "":
	case "tcp", "udp", "sctp":
		names = []string{q.proto}
	default:
		return nil, p.fail(tok.at, "%s has no ports: tcp, udp and sctp do", q.proto)
	}
	first, last := tok.text, tok.text
	if q.kind == "portrange" {
		if from, to, ok := strings.Cut(tok.text, "-"); ok {
			first, last = from, to
		}
	}
	low, ok := portNumber(first, names)
	high, ok2 := portNumber(last, names)
	if !ok || !ok2 {
		return nil, p.fail(tok.at, "%q is not a port", tok.text)
	}
	var numbers []byte
	for _, n := range names {
		numbers = append(numbers, protocols[n].number)
	}
	return ports(q.side, numbers, min(low, high), max(low, high)), p.advance()
}

func portNumber(s string, protocols []string) (uint32, bool) {
	n, ok := number(s)
	if !ok {
		n, ok = service(s, protocols)
	}
	return n, ok && n <= 65535
}

// number parses a protocol's number or name.
func (p *parser) number(q qualifiers) (condition, *Error) {
	tok := p.tok
	n, ok := number(tok.text)
	if named, isNamed := protocolNames[tok.text]; isNamed {
		n, ok = uint32(named), true
	}
	switch {
	case !ok || n > 255:
		return nil, p.fail(tok.at, "%q is not a protocol: give a number from 0 to 255", tok.text)
	case q.side != either:
		return nil, p.fail(tok.at, "a protocol has no source and no destination")
	case q.proto == "ip":
		return protocol4(byte(n)), p.advance()
	case q.proto == "ip6":
		return protocol6(byte(n)), p.advance()
	case q.proto != "":
		return nil, p.fail(tok.at, "%s has no protocols: ip and ip6 do", q.proto)
	}
	return or(protocol4(byte(n)), protocol6(byte(n))), p.advance()
}
