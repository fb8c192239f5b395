package mape

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// DHCPv6 options (RFC 7598).
const (
	optRule  = 89
	optBR    = 90
	optBind  = 92
	optPorts = 93
	optMAPE  = 94
	optLW    = 96
)

// Domain is what a DHCPv6 server says of MAP-E or lightweight 4over6.
type Domain struct {
	Rules []Rule       // of MAP-E; the one whose IPv6 prefix contains the customer's is its basic rule
	BRs   []netip.Addr // border relays, or AFTRs
	Bind  *Binding     // of lightweight 4over6; nil: there is none
}

// Binding is the address of one customer of lightweight 4over6 (RFC 7598 section 4.4).
type Binding struct {
	IPv4   netip.Addr
	Prefix netip.Prefix // in which the customer's tunnel address is
	Ports  Ports
}

// Parse reads an option of a container of MAP-E (94) or of lightweight 4over6 (96), with its
// code and length.
func Parse(b []byte) (Domain, error) {
	var d Domain
	code, value, rest, err := cut(b)
	switch {
	case err != nil:
		return d, err
	case len(rest) > 0:
		return d, fmt.Errorf("%d bytes follow the option", len(rest))
	case code != optMAPE && code != optLW:
		return d, fmt.Errorf("the option has code %d: it must be %d (MAP-E) or %d (lightweight 4over6)", code, optMAPE, optLW)
	}
	for len(value) > 0 {
		kind, inner, after, err := cut(value)
		if err != nil {
			return d, err
		}
		value = after
		switch {
		case kind == optRule && code == optMAPE:
			err = d.addRule(inner)
		case kind == optBR:
			err = d.addBR(inner)
		case kind == optBind && code == optLW:
			err = d.setBinding(inner)
		}
		if err != nil {
			return d, err
		}
	}
	if len(d.Rules) == 0 && d.Bind == nil {
		return d, errors.New("the option has no rule and no binding")
	}
	return d, nil
}

var errShort = errors.New("the option ends too early")

// cut returns the first option, and what follows it.
func cut(b []byte) (code int, value, rest []byte, err error) {
	if len(b) < 4 {
		return 0, nil, nil, errShort
	}
	code, n := int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
	if len(b) < 4+n {
		return 0, nil, nil, errShort
	}
	return code, b[4 : 4+n], b[4+n:], nil
}

func (d *Domain) addRule(b []byte) error {
	if len(b) < 8 {
		return errShort
	}
	r := Rule{Forwarding: b[0]&1 != 0, EABits: int(b[1]), Ports: Ports{Offset: DefaultOffset}}
	var err error
	if r.IPv4, err = netip.AddrFrom4([4]byte(b[3:7])).Prefix(int(b[2])); err != nil {
		return fmt.Errorf("the rule's IPv4 prefix has length %d", b[2])
	}
	rest, err := readPrefix6(b[7:], &r.IPv6)
	if err == nil {
		err = readPorts(rest, &r.Ports)
	}
	if err == nil {
		if r.psidBits() > 0 { // the EA bits say it
			r.Ports.PSIDLen, r.Ports.PSID = 0, 0
		}
		err = r.Check()
	}
	d.Rules = append(d.Rules, r)
	return err
}

func (d *Domain) addBR(b []byte) error {
	if len(b) != 16 {
		return fmt.Errorf("the address of a border relay has %d bytes", len(b))
	}
	d.BRs = append(d.BRs, netip.AddrFrom16([16]byte(b)))
	return nil
}

func (d *Domain) setBinding(b []byte) error {
	if len(b) < 5 {
		return errShort
	}
	d.Bind = &Binding{IPv4: netip.AddrFrom4([4]byte(b))}
	rest, err := readPrefix6(b[4:], &d.Bind.Prefix)
	if err == nil {
		err = readPorts(rest, &d.Bind.Ports)
	}
	return err
}

// readPrefix6 reads the length of a prefix and as many bytes as it needs.
func readPrefix6(b []byte, p *netip.Prefix) (rest []byte, err error) {
	bits := int(b[0])
	n := (bits + 7) / 8
	if bits > 128 || len(b) < 1+n {
		return nil, errShort
	}
	var a [16]byte
	copy(a[:], b[1:1+n])
	*p = netip.PrefixFrom(netip.AddrFrom16(a), bits).Masked()
	return b[1+n:], nil
}

// readPorts reads the options of a rule or binding, of which only one is known.
func readPorts(b []byte, p *Ports) error {
	for len(b) > 0 {
		code, value, rest, err := cut(b)
		if err != nil {
			return err
		}
		b = rest
		if code != optPorts {
			continue
		}
		if len(value) != 4 {
			return fmt.Errorf("port parameters of %d bytes", len(value))
		}
		*p = Ports{Offset: int(value[0]), PSIDLen: int(value[1])}
		if p.PSIDLen <= 16 {
			p.PSID = uint16(uint32(binary.BigEndian.Uint16(value[2:])) >> (16 - p.PSIDLen)) // it is on the left
		}
		if err := p.Check(); err != nil {
			return err
		}
	}
	return nil
}
