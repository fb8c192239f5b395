package resolve

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// SixRD is 6rd (RFC 5969). The prefix delegated to a customer is the provider's IPv6
// prefix, followed by the bits of the customer's IPv4 address that differ between
// customers. Customer edges (CE) find each other's outer addresses in the inner
// addresses, and reach all other destinations through a border relay (BR). The mapping
// is a shift of the upper half of an address. Link-local and multicast packets are
// drop.Martian. An inner address, source or destination, that contradicts an outer one
// is drop.Spoof.
type SixRD struct {
	Prefix  netip.Prefix // of the whole domain
	MaskLen int          // leading IPv4 bits that all CEs have in common and that the prefix omits: 0 to 32
	Common  netip.Addr   // an IPv4 address that begins with those bits; zero: the local address
	Relays  []Host       // for a CE its BRs, of which it uses the first; for a BR the other BRs
	Role    Role         // RoleCE or RoleBR
}

// fault returns what is wrong with the domain, or nil.
func (m SixRD) fault() error {
	n := m.Prefix.Bits()
	switch {
	case !m.Prefix.IsValid() || !m.Prefix.Addr().Is6() || m.Prefix.Addr().Is4In6():
		return fmt.Errorf("6rd: prefix %v: use an IPv6 prefix such as 2001:db8::/32", m.Prefix)
	case m.MaskLen < 0 || m.MaskLen > 32:
		return fmt.Errorf("6rd: mask length %d: use 0 to 32, the number of IPv4 bits that are left out", m.MaskLen)
	case n+32-m.MaskLen > 64:
		return fmt.Errorf("6rd: prefix /%d and %d IPv4 bits make a delegated prefix of %d bits, longer than the 64 of a subnet: use a shorter prefix or a longer mask length", n, 32-m.MaskLen, n+32-m.MaskLen)
	}
	return nil
}

// Delegated returns the prefix of the CE with an IPv4 address (RFC 5969 section 4).
func (m SixRD) Delegated(local netip.Addr) (netip.Prefix, error) {
	if err := m.fault(); err != nil {
		return netip.Prefix{}, err
	}
	v4, ok := word4(local)
	if !ok {
		return netip.Prefix{}, fmt.Errorf("6rd: %v is not an IPv4 address", local)
	}
	d := m.domain(v4)
	if !d.has(v4) {
		return netip.Prefix{}, fmt.Errorf("6rd: %v does not begin with the %d bits of %v that the domain has in common", local, m.MaskLen, m.Common)
	}
	return netip.PrefixFrom(d.of(v4).Addr(), m.Prefix.Bits()+32-m.MaskLen), nil
}

// IPv4 returns the address of the CE to whose delegated prefix an address belongs. The
// IPv6 address holds only the bits after MaskLen; the others are taken from Common, or
// are 0.
func (m SixRD) IPv4(a netip.Addr) (netip.Addr, bool) {
	if m.fault() != nil || !a.Is6() || !m.Prefix.Contains(a) {
		return netip.Addr{}, false
	}
	b := a.As16()
	d := m.domain(0)
	return addr4(d.v4(header.ReadWord6(b[:]))), true
}

// domain returns the mapping of the domain. The common bits are those of Common, or of
// local if Common is zero.
func (m SixRD) domain(local uint32) domain {
	if c, ok := word4(m.Common); ok {
		local = c
	}
	d := domain{prefix: header.NewPrefix6(m.Prefix)}
	d.suffix = uint32(uint64(1)<<(32-m.MaskLen) - 1)
	d.common = local &^ d.suffix
	d.shift = uint8(64 - m.Prefix.Bits() - (32 - m.MaskLen))
	d.rest = uint64(1)<<d.shift - 1
	return d
}

// domain is a 6rd domain in a form that is fast to use. All of its values apply to the
// upper half of an address.
type domain struct {
	prefix header.Prefix6
	common uint32 // IPv4 bits that all CEs have in common
	suffix uint32 // mask of the IPv4 bits that are embedded
	shift  uint8  // of these bits in the upper half
	rest   uint64 // mask of the subnet bits after them
}

func (d *domain) v4(a header.Word6) uint32 { return d.common | uint32(a.Hi>>d.shift)&d.suffix }
func (d *domain) has(v4 uint32) bool       { return v4&^d.suffix == d.common }
func (d *domain) of(v4 uint32) header.Word6 {
	return header.Word6{Hi: d.prefix.Value.Hi | uint64(v4&d.suffix)<<d.shift}
}
func (d *domain) own(v4 uint32) header.Prefix6 {
	return header.Prefix6{Value: d.of(v4), Mask: header.Word6{Hi: ^d.rest}}
}

// Hosts returns the BRs.
func (m SixRD) Hosts() []Host { return m.Relays }

// NeedsHosts reports whether this is a CE: the list of a BR has only the other BRs, and may
// have none.
func (m SixRD) NeedsHosts() bool { return m.Role == RoleCE }

// Sources returns the prefix that is delegated to a CE.
func (m SixRD) Sources(local netip.Addr) (netip.Prefix, bool) {
	p, err := m.Delegated(local)
	return p, err == nil && m.Role == RoleCE
}

// ProbeAddress returns the first address in the prefix that is delegated to local: a BR
// returns packets to it.
func (m SixRD) ProbeAddress(local netip.Addr) netip.Addr {
	p, err := m.Delegated(local)
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr().Next()
}

// Resolver returns the resolver for a site. A CE's address must be in the domain; a BR's
// need not.
func (m SixRD) Resolver(at Site) (Resolver, error) {
	p, err := newPlace(at, "6rd")
	if err != nil {
		return nil, err
	}
	if err := m.fault(); err != nil {
		return nil, err
	}
	r := &sixRD{place: p, domain: m.domain(p.local), relays: p.outer4(m.Relays, at)}
	inside := r.has(p.local)
	if inside {
		r.delegated6 = r.own(p.local)
		r.home = []header.Prefix6{r.delegated6}
		r.delegated = slices.DeleteFunc(r.delegated, func(d header.Prefix6) bool { return d == r.delegated6 })
	}
	switch m.Role {
	case RoleCE:
		if !inside {
			return nil, fmt.Errorf("6rd: local address %v is not in the domain, whose addresses begin with the %d bits of %v: correct mask_len or local", at.Local, m.MaskLen, m.Common)
		}
		if len(m.Relays) == 0 {
			return nil, errors.New("6rd: no border relay: without one only the domain can be reached; set border_relay")
		}
		return (*sixRDCE)(r), nil
	case RoleBR:
		r.inside = inside
		return (*sixRDBR)(r), nil
	}
	return nil, fmt.Errorf("6rd: role %q: use ce or br", m.Role)
}

type sixRD struct {
	place
	domain
	delegated6 header.Prefix6 // our delegated prefix
	inside     bool           // for a BR: it has a delegated prefix
	relays     []uint32       // for a CE its BRs, for a BR the other BRs
}

type (
	sixRDCE sixRD
	sixRDBR sixRD
)

// To sends packets for the domain directly, and all others to the BR. A packet to an
// unused subnet of our own delegated prefix is refused: it would come straight back (RFC
// 5969 section 7.1.1).
func (r *sixRDCE) To(inner []byte) (Endpoint, drop.Reason) {
	ip := header.IPv6(inner)
	src, to := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	if noLink(src) || noLink(to) {
		return Endpoint{}, drop.Martian
	}
	var dst uint32
	switch {
	case r.delegated6.Contains(to):
		return Endpoint{}, drop.Loop
	case !r.delegated6.Contains(src):
		return Endpoint{}, drop.Spoof
	case r.prefix.Contains(to):
		dst = r.v4(to)
	case len(r.relays) == 0: // the name does not resolve
		return Endpoint{}, drop.NoPeer
	default:
		dst = r.relays[0]
	}
	if !r.reachable4(dst) {
		return Endpoint{}, drop.Martian
	}
	return Endpoint4(dst), r.leads(ip, dst)
}

// From checks addresses by RFC 5969 section 12: a packet from the BR has a source
// outside the domain, a packet from a CE has one inside the CE's prefix.
func (r *sixRDCE) From(from, at Endpoint, b []byte) drop.Reason {
	inner := header.IPv6(b)
	src, to, src4 := header.ReadWord6(inner.Source()), header.ReadWord6(inner.Dest()), from.IPv4()
	switch {
	case !r.reachable4(src4), noLink(src), noLink(to):
		return drop.Martian
	case r.delegated6.Contains(src):
		return drop.OwnSource
	case !r.delegated6.Contains(to), r.mine(src4):
		return drop.Spoof
	case r.prefix.Contains(src):
		if r.v4(src) != src4 {
			return drop.Spoof
		}
	case !slices.Contains(r.relays, src4):
		return drop.ForeignSource
	case r.returns(src):
		return drop.Loop
	}
	return drop.None
}

// To sends packets only to the CE to whose prefix the destination belongs.
func (r *sixRDBR) To(inner []byte) (Endpoint, drop.Reason) {
	ip := header.IPv6(inner)
	src, to := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	dst := r.v4(to)
	switch {
	case noLink(src), noLink(to):
		return Endpoint{}, drop.Martian
	case !r.prefix.Contains(to):
		return Endpoint{}, drop.NoPeer
	case r.inside && r.delegated6.Contains(to), slices.Contains(r.relays, dst):
		return Endpoint{}, drop.Loop
	case !r.reachable4(dst):
		return Endpoint{}, drop.Martian
	}
	return Endpoint4(dst), r.leads(ip, dst)
}

// From accepts packets from CEs whose source is in their prefix (RFC 5969 section 12),
// except from addresses that are those of relays and not of CEs. A packet to a
// destination in the domain is forwarded, because CEs test the BR by sending packets to
// themselves (section 8). A packet to our own delegated prefix is only for the
// interface.
func (r *sixRDBR) From(from, at Endpoint, b []byte) drop.Reason {
	inner := header.IPv6(b)
	src, to, src4 := header.ReadWord6(inner.Source()), header.ReadWord6(inner.Dest()), from.IPv4()
	switch {
	case !r.reachable4(src4), noLink(src), noLink(to):
		return drop.Martian
	case src4>>8 == 0xc05863, slices.Contains(r.relays, src4): // 192.88.99.0/24
		return drop.ForeignSource
	case r.inside && r.delegated6.Contains(src):
		return drop.OwnSource
	case r.mine(src4), !r.prefix.Contains(src), r.v4(src) != src4:
		return drop.Spoof
	case r.inside && r.delegated6.Contains(to) && !slices.Contains(r.own6, to), !r.prefix.Contains(to) && r.returns(to):
		return drop.Loop
	}
	return drop.None
}
