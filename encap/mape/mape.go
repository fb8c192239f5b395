// Package mape has the arithmetic of MAP-E (RFC 7597) and lightweight 4over6 (RFC 7596): which
// IPv4 address and which ports belong to an IPv6 prefix, and at which IPv6 address a customer
// edge is.
package mape

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Rule is a mapping rule (RFC 7597 section 5): IPv4 addresses and ports in IPv4 correspond to
// IPv6 prefixes in IPv6.
type Rule struct {
	IPv6 netip.Prefix
	IPv4 netip.Prefix
	// EABits is how many bits after those of IPv6 have the rest of the IPv4 address and the
	// port set identifier.
	EABits int
	// Ports is how ports are shared. If EABits has the port set identifier, PSIDLen and PSID
	// are 0: they follow from the others.
	Ports Ports
	// Forwarding means that customer edges may use the rule to reach each other directly.
	Forwarding bool
	// Draft03 means that interface identifiers are those of draft-ietf-softwire-map-03, which
	// some providers still use.
	Draft03 bool
}

// DefaultOffset is the number of bits before the port set identifier in ports, so that the
// ports below 1024 belong to nobody (RFC 7597 section 5.1).
const DefaultOffset = 6

// Check returns an error if the rule contradicts itself.
func (r *Rule) Check() error {
	switch {
	case !r.IPv6.IsValid() || !r.IPv6.Addr().Is6() || r.IPv6.Addr().Is4In6():
		return errors.New("the IPv6 prefix of a rule must be one of IPv6, such as 2001:db8::/40")
	case !r.IPv4.IsValid() || !r.IPv4.Addr().Is4():
		return errors.New("the IPv4 prefix of a rule must be one of IPv4, such as 192.0.2.0/24")
	case r.EABits < 0 || r.EABits > 48:
		return fmt.Errorf("a rule with %d EA bits: there can be 0 to 48", r.EABits)
	case r.IPv6.Bits()+r.EABits > 64:
		return fmt.Errorf("the prefix of a customer would have %d bits, which is more than 64: %d of the IPv6 prefix and %d EA bits", r.IPv6.Bits()+r.EABits, r.IPv6.Bits(), r.EABits)
	case r.psidBits() > 0 && r.Ports.PSIDLen > 0 && r.Ports.PSIDLen != r.psidBits():
		return fmt.Errorf("a port set identifier of %d bits, but the EA bits have one of %d: leave the first one out", r.Ports.PSIDLen, r.psidBits())
	case r.EABits+r.IPv4.Bits() < 32 && r.Ports.PSIDLen > 0:
		return errors.New("an IPv4 prefix cannot be shared: leave the port set identifier out, or add EA bits")
	}
	p := r.Ports
	if n := r.psidBits(); n > 0 {
		p.PSIDLen = n
	}
	return p.Check()
}

// psidBits is how many EA bits the port set identifier has.
func (r *Rule) psidBits() int { return max(0, r.EABits+r.IPv4.Bits()-32) }

// Edge is a customer edge: what one end of a tunnel has.
type Edge struct {
	Prefix netip.Prefix // the IPv6 prefix delegated to it
	IPv4   netip.Prefix // its address (a /32) or prefix
	Ports  Ports        // those that belong to it
	IPv6   netip.Addr   // where it is
}

// Edge returns the customer edge with an IPv6 address or prefix in the rule's prefix.
func (r *Rule) Edge(a netip.Addr) (Edge, error) {
	if err := r.Check(); err != nil {
		return Edge{}, err
	}
	if !r.IPv6.Contains(a) {
		return Edge{}, fmt.Errorf("%v is not in %v, the IPv6 prefix of the rule", a, r.IPv6)
	}
	b := a.As16()
	hi := binary.BigEndian.Uint64(b[:8])
	bits := r.IPv6.Bits() + r.EABits
	ea := uint64(0)
	if r.EABits > 0 {
		ea = hi << r.IPv6.Bits() >> (64 - r.EABits)
	}
	suffix := min(r.EABits, 32-r.IPv4.Bits())
	v4 := binary.BigEndian.Uint32(r.IPv4.Masked().Addr().AsSlice())
	v4 |= uint32(ea >> (r.EABits - suffix) << (32 - r.IPv4.Bits() - suffix))
	e := Edge{Ports: r.Ports}
	e.Prefix, _ = a.Prefix(bits)
	e.IPv4 = netip.PrefixFrom(addr4(v4), r.IPv4.Bits()+suffix)
	if n := r.psidBits(); n > 0 {
		e.Ports.PSIDLen, e.Ports.PSID = n, uint16(ea&(1<<n-1))
	}
	e.IPv6 = r.address(e.Prefix, v4, e.Ports.PSID)
	return e, nil
}

// To returns the customer edge that has an IPv4 address and, if addresses are shared, a port.
func (r *Rule) To(a netip.Addr, port uint16) (Edge, error) {
	if err := r.Check(); err != nil {
		return Edge{}, err
	}
	if !r.IPv4.Contains(a) {
		return Edge{}, fmt.Errorf("%v is not in %v, the IPv4 prefix of the rule", a, r.IPv4)
	}
	p := r.Ports
	if n := r.psidBits(); n > 0 {
		p.PSIDLen = n
		p.PSID, _ = p.SetOf(port)
	}
	if p.PSIDLen > 0 && !p.Has(port) {
		return Edge{}, fmt.Errorf("port %d of %v belongs to no customer edge", port, a)
	}
	ea := uint64(binary.BigEndian.Uint32(a.AsSlice())) & (1<<(32-r.IPv4.Bits()) - 1)
	if n := r.psidBits(); n > 0 {
		ea = ea<<n | uint64(p.PSID)
	} else {
		ea >>= 32 - r.IPv4.Bits() - r.EABits
	}
	b := r.IPv6.Masked().Addr().As16()
	hi := binary.BigEndian.Uint64(b[:8])
	if r.EABits > 0 {
		hi |= ea << (64 - r.IPv6.Bits() - r.EABits)
	}
	binary.BigEndian.PutUint64(b[:8], hi)
	return r.Edge(netip.AddrFrom16(b))
}

// address returns the address of a customer edge (RFC 7597 section 6): its prefix, zeros, and
// an interface identifier:
//
//	| 0 (16) | IPv4 (32) | PSID (16) |
//	| 0 (8)  | IPv4 (32) | PSID (16) | 0 (8) |    in draft 03
func (r *Rule) address(prefix netip.Prefix, v4 uint32, psid uint16) netip.Addr {
	b := prefix.Addr().As16()
	id := uint64(v4)<<16 | uint64(psid)
	if r.Draft03 {
		id <<= 8
	}
	binary.BigEndian.PutUint64(b[8:], id)
	return netip.AddrFrom16(b)
}

func addr4(a uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], a)
	return netip.AddrFrom4(b)
}
