package resolve

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// SixRD is 6rd (RFC 5969): a provider's IPv6 prefix, followed by the bits of a
// customer's IPv4 address that differ from customer to customer, is the prefix
// delegated to him. Customer edges (CE) find each other in the addresses, and
// reach everybody else through a border relay (BR). The mapping is a shift of the
// upper half of an address. Link-local and multicast packets are drop.Martian.
// An inner address, source or destination, that contradicts an outer one is
// drop.Spoof.
type SixRD struct {
	Prefix  netip.Prefix // of the whole domain
	MaskLen int          // leading IPv4 bits that all CEs have in common, and that are left out: 0 to 32
	Common  netip.Addr   // an IPv4 address that begins with those; zero: the local address
	Relays  []Host       // a CE's BRs, the first of which it uses; a BR's colleagues
	Role    Role         // RoleCE or RoleBR
}

// fault is what is wrong with the domain, if anything is.
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

// Delegated is the prefix of the CE with an IPv4 address (RFC 5969 section 4).
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
	return netip.PrefixFrom(d.of(v4).addr(), m.Prefix.Bits()+32-m.MaskLen), nil
}

// IPv4 is the address of the CE to whose delegated prefix an address belongs. Of
// it only the bits behind MaskLen are in the address; the others are Common's,
// or 0.
func (m SixRD) IPv4(a netip.Addr) (netip.Addr, bool) {
	if m.fault() != nil || !a.Is6() || !m.Prefix.Contains(a) {
		return netip.Addr{}, false
	}
	b := a.As16()
	d := m.domain(0)
	return addr4(d.v4(readWord6(b[:]))), true
}

// domain is the mapping of a domain, whose common bits are those of Common, or
// of local if that is zero.
func (m SixRD) domain(local uint32) domain {
	if c, ok := word4(m.Common); ok {
		local = c
	}
	d := domain{prefix: newPrefix6(m.Prefix)}
	d.suffix = uint32(uint64(1)<<(32-m.MaskLen) - 1)
	d.common = local &^ d.suffix
	d.shift = uint8(64 - m.Prefix.Bits() - (32 - m.MaskLen))
	d.rest = uint64(1)<<d.shift - 1
	return d
}

// domain is a 6rd domain, ready for use: all that it puts together lies in the
// upper half of an address.
type domain struct {
	prefix prefix6
	common uint32 // IPv4 bits that all have
	suffix uint32 // mask of the IPv4 bits that are embedded
	shift  uint8  // of those in the upper half
	rest   uint64 // mask of the subnet bits behind them
}

func (d *domain) v4(a word6) uint32  { return d.common | uint32(a.hi>>d.shift)&d.suffix }
func (d *domain) has(v4 uint32) bool { return v4&^d.suffix == d.common }
func (d *domain) of(v4 uint32) word6 {
	return word6{hi: d.prefix.value.hi | uint64(v4&d.suffix)<<d.shift}
}
func (d *domain) own(v4 uint32) prefix6 {
	return prefix6{d.of(v4), word6{hi: ^d.rest}}
}

// Hosts are the BRs.
func (m SixRD) Hosts() []Host { return m.Relays }

// Resolver is the one for a place. A CE's address must be one of the domain; a
// BR's need not.
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
		r.home = []prefix6{r.delegated6}
		r.delegated = slices.DeleteFunc(r.delegated, func(d prefix6) bool { return d == r.delegated6 })
	}
	switch m.Role {
	case RoleCE:
		if !inside {
			return nil, fmt.Errorf("6rd: local address %v is none of the domain, whose addresses begin with the %d bits of %v: correct mask_len or local", at.Local, m.MaskLen, m.Common)
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
	delegated6 prefix6  // ours
	inside     bool     // of a BR: it has a delegated prefix
	relays     []uint32 // a CE's BRs, a BR's colleagues
}

type (
	sixRDCE sixRD
	sixRDBR sixRD
)

// To sends into the domain directly, and everything else to the BR. What we send
// to our own delegated prefix has no subnet here, and would come straight back
// (RFC 5969 section 7.1.1).
func (r *sixRDCE) To(ip header.IPv6) (uint32, drop.Reason) {
	src, to := readWord6(ip.Source()), readWord6(ip.Dest())
	if noLink(src) || noLink(to) {
		return 0, drop.Martian
	}
	var dst uint32
	switch {
	case r.delegated6.contains(to):
		return 0, drop.Loop
	case !r.delegated6.contains(src):
		return 0, drop.Spoof
	case r.prefix.contains(to):
		dst = r.v4(to)
	case len(r.relays) == 0: // its name does not resolve
		return 0, drop.NoPeer
	default:
		dst = r.relays[0]
	}
	if !r.reachable4(dst) {
		return 0, drop.Martian
	}
	return dst, r.leads(ip, dst)
}

// From is RFC 5969 section 12: what the BR sends has a source outside the domain,
// what a CE sends one inside its prefix.
func (r *sixRDCE) From(outer header.IPv4, inner header.IPv6) drop.Reason {
	src, to, src4 := readWord6(inner.Source()), readWord6(inner.Dest()), source4(outer)
	switch {
	case !r.reachable4(src4), noLink(src), noLink(to):
		return drop.Martian
	case r.delegated6.contains(src):
		return drop.OwnSource
	case !r.delegated6.contains(to), r.mine(src4):
		return drop.Spoof
	case r.prefix.contains(src):
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

// To sends to the CE whose prefix it is, and nowhere else.
func (r *sixRDBR) To(ip header.IPv6) (uint32, drop.Reason) {
	src, to := readWord6(ip.Source()), readWord6(ip.Dest())
	dst := r.v4(to)
	switch {
	case noLink(src), noLink(to):
		return 0, drop.Martian
	case !r.prefix.contains(to):
		return 0, drop.NoPeer
	case r.inside && r.delegated6.contains(to), slices.Contains(r.relays, dst):
		return 0, drop.Loop
	case !r.reachable4(dst):
		return 0, drop.Martian
	}
	return dst, r.leads(ip, dst)
}

// From takes from CEs what has their prefix as source (RFC 5969 section 12), but
// for those addresses that are relays' and no CE's. A destination in the domain
// is forwarded, because CEs test the BR by sending to themselves (section 8);
// that of our own delegated prefix is nobody's but the interface's.
func (r *sixRDBR) From(outer header.IPv4, inner header.IPv6) drop.Reason {
	src, to, src4 := readWord6(inner.Source()), readWord6(inner.Dest()), source4(outer)
	switch {
	case !r.reachable4(src4), noLink(src), noLink(to):
		return drop.Martian
	case src4>>8 == 0xc05863, slices.Contains(r.relays, src4): // 192.88.99.0/24
		return drop.ForeignSource
	case r.inside && r.delegated6.contains(src):
		return drop.OwnSource
	case r.mine(src4), !r.prefix.contains(src), r.v4(src) != src4:
		return drop.Spoof
	case r.inside && r.delegated6.contains(to) && !slices.Contains(r.own6, to), !r.prefix.contains(to) && r.returns(to):
		return drop.Loop
	}
	return drop.None
}
