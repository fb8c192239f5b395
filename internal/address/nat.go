package address

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"sixfour/encap/header"
	"sixfour/encap/mape"
	"sixfour/encap/sixbed4"
)

// Sharing says how several hosts share an IPv4 address.
type Sharing struct {
	Inside netip.Addr `json:"inside,omitzero"` // 6a44: the address behind the NAT

	// map_e
	PSID    *uint16  `json:"psid,omitempty"`
	PSIDLen int      `json:"psid_len,omitempty"`
	Offset  int      `json:"psid_offset,omitempty"`
	Ports   []string `json:"ports,omitempty"` // ranges
}

// sixBed4 takes an IPv4 address for a peer's, whose network is Prefix or that of the router
// Server.
func sixBed4(a netip.Addr, o Options) (Answer, error) {
	if a.Is4() {
		var network uint64
		switch {
		case o.Prefix.IsValid() && o.Prefix.Bits() == 64 && o.Prefix.Addr().Is6():
			b := o.Prefix.Addr().As16()
			network = binary.BigEndian.Uint64(b[:])
		case o.Prefix.IsValid():
			return Answer{}, fmt.Errorf("6bed4: prefix %v: networks are IPv6 prefixes of 64 bits", o.Prefix)
		default:
			return Answer{}, errors.New("6bed4: which network? give the router's --prefix, such as fc64:bad:cb00:7114::/64, and the peer's --port")
		}
		if o.Port == 0 {
			return Answer{}, errors.New("6bed4: a peer's address has its UDP port outside the NAT in it: give --port")
		}
		a = sixbed4.Address(network, header.MappingOf(netip.AddrPortFrom(a, o.Port)), 1).Addr()
	}
	w, _ := header.Word6Of(a)
	if !sixbed4.IsNative(w) && !(o.Prefix.IsValid() && o.Prefix.Bits() == 64 && o.Prefix.Contains(a)) || !sixbed4.Fits(w) {
		return Answer{}, other("%v is not a 6bed4 address: those are in fc64::/16, or in the router's --prefix", a)
	}
	at := sixbed4.MappingOf(w).AddrPort()
	answer := Answer{IPv4: at.Addr(), Port: at.Port(), IPv6: a}
	if at.Addr().IsUnspecified() { // no peer's: that of the router's interface
		answer.IPv4, answer.Port = netip.Addr{}, 0
	}
	answer.Prefix, _ = a.Prefix(64)
	if sixbed4.IsNative(w) {
		answer.Server = header.Mapping{Addr: sixbed4.RouterOf(w)}.AddrPort().Addr()
	}
	return answer, nil
}

// sixA44 has addresses with a provider's /48, the site's IPv4 address, the port of a client
// outside the NAT, and its address inside (RFC 6751 section 5).
func sixA44(a netip.Addr, o Options) (Answer, error) {
	if !o.Prefix.IsValid() || o.Prefix.Bits() != 48 || !o.Prefix.Addr().Is6() {
		return Answer{}, errors.New("6a44: which provider? give its --prefix, a /48 such as 2001:db8:44::/48")
	}
	if a.Is4() {
		return Answer{}, errors.New("6a44: a client's address has its IPv4 address outside and inside the NAT in it: give an IPv6 address to see them")
	}
	if !o.Prefix.Contains(a) {
		return Answer{}, other("%v is not in %v, the prefix of the 6a44 provider", a, o.Prefix)
	}
	b := a.As16()
	answer := Answer{IPv4: netip.AddrFrom4([4]byte(b[6:10])), Port: binary.BigEndian.Uint16(b[10:]), IPv6: a, Sharing: &Sharing{Inside: netip.AddrFrom4([4]byte(b[12:]))}}
	answer.Prefix, _ = a.Prefix(96)
	return answer, nil
}

// mapE takes an IPv6 address for one of a customer edge's prefix, and an IPv4 address, with a
// port, for one that a customer edge has.
func mapE(a netip.Addr, o Options) (Answer, error) {
	if o.Rule == nil {
		return Answer{}, errors.New("map_e: which rule? give --rule, such as 2001:db8::/40,192.0.2.0/24,16: its IPv6 prefix, its IPv4 prefix, and the number of EA bits; or --option94 as the DHCPv6 server sends it")
	}
	var e mape.Edge
	var err error
	if a.Is4() {
		e, err = o.Rule.To(a, o.Port)
	} else {
		if !o.Rule.IPv6.Contains(a) && o.Rule.Check() == nil {
			return Answer{}, other("%v is not in %v, the IPv6 prefix of the MAP rule", a, o.Rule.IPv6)
		}
		e, err = o.Rule.Edge(a)
	}
	if err != nil {
		return Answer{}, fmt.Errorf("map_e: %w", err)
	}
	answer := Answer{IPv4: e.IPv4.Addr(), Prefix: e.Prefix, IPv6: e.IPv6, Sharing: &Sharing{}}
	if e.Ports.PSIDLen > 0 {
		s := answer.Sharing
		s.PSID, s.PSIDLen, s.Offset = &e.Ports.PSID, e.Ports.PSIDLen, e.Ports.Offset
		for r := range e.Ports.Ranges() {
			s.Ports = append(s.Ports, r.String())
		}
	}
	return answer, nil
}

// ParseRule reads a MAP rule: its IPv6 prefix, its IPv4 prefix and the number of EA bits,
// separated by commas. The PSID offset can follow, then length and value of a PSID that is not
// in the EA bits, and the word draft03.
func ParseRule(text string) (*mape.Rule, error) {
	fail := fmt.Errorf("--rule %q is not a rule: give an IPv6 prefix, an IPv4 prefix and the number of EA bits, such as 2001:db8::/40,192.0.2.0/24,16; then, if needed, the PSID offset (%d if left out), and length and value of a PSID that is not in the EA bits; and draft03 for the addresses of draft 03", text, mape.DefaultOffset)
	r := &mape.Rule{Ports: mape.Ports{Offset: mape.DefaultOffset}}
	text, r.Draft03 = strings.CutSuffix(text, ",draft03")
	parts := strings.Split(text, ",")
	numbers := []*int{&r.EABits, &r.Ports.Offset, &r.Ports.PSIDLen, new(int)}
	if len(parts) < 3 || len(parts) > 2+len(numbers) || len(parts) == 5 {
		return nil, fail
	}
	var err6, err4 error
	r.IPv6, err6 = netip.ParsePrefix(parts[0])
	r.IPv4, err4 = netip.ParsePrefix(parts[1])
	if err6 != nil || err4 != nil {
		return nil, fail
	}
	for i, part := range parts[2:] {
		n, err := strconv.ParseUint(part, 10, 16)
		if err != nil {
			return nil, fail
		}
		*numbers[i] = int(n)
	}
	r.Ports.PSID = uint16(*numbers[3])
	return r, nil
}

// ParseOption94 reads the rules of a DHCPv6 option of MAP-E in hexadecimal digits, with its
// code and length, and returns the one for an address.
func ParseOption94(text string, a netip.Addr) (*mape.Rule, error) {
	digits := strings.NewReplacer(":", "", " ", "", "0x", "").Replace(text)
	b, err := hex.DecodeString(digits)
	if err != nil {
		return nil, fmt.Errorf("--option94 %q is not hexadecimal digits", text)
	}
	d, err := mape.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("--option94: %w", err)
	}
	for i := range d.Rules {
		if r := &d.Rules[i]; r.IPv6.Contains(a) || r.IPv4.Contains(a) {
			return r, nil
		}
	}
	if len(d.Rules) == 0 {
		return nil, errors.New("--option94 has no rule of MAP-E")
	}
	return &d.Rules[0], nil
}
