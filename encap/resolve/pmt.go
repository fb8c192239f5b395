package resolve

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// PMTMode is the method that keeps transport checksums valid when addresses change.
type PMTMode string

// The modes.
const (
	PMTRewrite PMTMode = "rewrite" // the checksums are updated
	PMTNPT     PMTMode = "npt"     // a word of the address compensates the change (RFC 6296 section 3)
)

// PMT is the relay of 6to4 provider managed tunnels (RFC 6732). Customers behind a
// carrier's translator have no public IPv4 address, but their routers use 6to4 with the
// address that they have. They send to the relay at the 6to4 anycast address. The relay
// changes the prefix 2002:V4ADDR::/48 of the source into a prefix of the provider, which
// embeds the bits of V4ADDR that differ between customers. It changes the destination of
// answers back. It keeps no state. Unlike a 6to4 relay, it receives the answers itself.
// If the provider's prefix for a customer is longer than /48, there is no room for the
// customer's subnets: then each customer has only one.
//
// Addresses in packets that ICMPv6 errors quote are changed too. A transport checksum
// must be complete when it is updated, not one that a device still has to complete.
// Link-local and multicast packets are drop.Martian.
type PMT struct {
	ProviderPrefix netip.Prefix
	Common         netip.Prefix // IPv4: the bits that all customers have in common and that the prefix omits
	Customers      []netip.Prefix
	Subnet         uint16 // the subnet of each customer, if only one is possible
	Mode           PMTMode
}

// Hosts returns nothing: the customers send to the relay.
func (m PMT) Hosts() []Host { return nil }

// external returns the length of a customer's prefix outside.
func (m PMT) external() int { return m.ProviderPrefix.Bits() + 32 - m.Common.Bits() }

// Resolver returns the resolver for a site, to whose local address the customers send.
func (m PMT) Resolver(at Site) (Resolver, error) {
	p, err := newPlace(at, "6to4-pmt")
	if err != nil {
		return nil, err
	}
	if !m.Common.IsValid() {
		m.Common = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	d := SixRD{Prefix: m.ProviderPrefix, MaskLen: m.Common.Bits(), Common: m.Common.Addr()}.domain(0)
	r := &pmt{place: p, domain: d, customers: prefixes4(m.Customers), subnet: uint64(m.Subnet), npt: m.Mode == PMTNPT, wide: m.external() <= 48}
	if r.wide { // the subnet stays in its place
		r.rest &^= 0xffff
	}
	return r, nil
}

func (m PMT) check() error {
	switch {
	case !m.ProviderPrefix.IsValid() || !m.ProviderPrefix.Addr().Is6() || m.ProviderPrefix.Addr().Is4In6():
		return fmt.Errorf("6to4-pmt: provider prefix %v: use an IPv6 prefix such as 2001:db8::/32", m.ProviderPrefix)
	case m.ProviderPrefix.Overlaps(netip.MustParsePrefix("2002::/16")):
		return fmt.Errorf("6to4-pmt: provider prefix %v is 6to4's: use one that is routed to you", m.ProviderPrefix)
	case !m.Common.Addr().Is4():
		return fmt.Errorf("6to4-pmt: common bits %v: use an IPv4 prefix that holds all customers, such as 100.64.0.0/10", m.Common)
	case m.external() > 64:
		return fmt.Errorf("6to4-pmt: prefix /%d and %d IPv4 bits are %d, more than the 64 in front of an interface identifier: use a shorter provider prefix or a longer common one", m.ProviderPrefix.Bits(), 32-m.Common.Bits(), m.external())
	case len(m.Customers) == 0:
		return errors.New("6to4-pmt: no customers: set customers to the IPv4 prefixes that are theirs")
	case m.Mode != PMTRewrite && m.Mode != PMTNPT:
		return fmt.Errorf("6to4-pmt: mode %q: use rewrite or npt", m.Mode)
	case m.external() <= 48 && m.Subnet != 0:
		return fmt.Errorf("6to4-pmt: subnet %d: the provider prefix has room for all subnets, leave it out", m.Subnet)
	}
	for _, c := range m.Customers {
		if !c.Addr().Is4() || c.Bits() < m.Common.Bits() || !m.Common.Contains(c.Addr()) {
			return fmt.Errorf("6to4-pmt: customers %v are not all inside the common bits %v", c, m.Common)
		}
	}
	return nil
}

type pmt struct {
	place
	domain
	customers []prefix4
	subnet    uint64
	npt       bool
	wide      bool // there is room for the customer's subnets
}

// From accepts a customer's packet and writes a source in the provider's prefix.
func (r *pmt) From(from, at Endpoint, b []byte) drop.Reason {
	inner := header.IPv6(b)
	src, to, src4 := header.ReadWord6(inner.Source()), header.ReadWord6(inner.Dest()), from.IPv4()
	switch {
	case noLink(src), noLink(to), to.Hi>>48 == 0, !r.reachable4(src4):
		return drop.Martian
	case !within4(r.customers, src4):
		return drop.ForeignSource
	case !is6to4(src), v4of6to4(src) != src4:
		return drop.Spoof
	case is6to4(to), r.customer(to): // customers do not reach each other through the relay
		return drop.NoPeer
	case r.mine(src4), r.returns(to):
		return drop.Loop
	}
	outside, ok := r.outward(src)
	if !ok {
		return drop.Spoof // a subnet that the customer does not have
	}
	r.change(inner, inner.Source(), src, outside)
	r.changeQuote(inner, true)
	return drop.None
}

// To writes the customer's destination into an answer.
func (r *pmt) To(inner []byte) (Endpoint, drop.Reason) {
	ip := header.IPv6(inner)
	src, to := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	if noLink(src) || noLink(to) {
		return Endpoint{}, drop.Martian
	}
	inside, ok := r.inward(to)
	dst := v4of6to4(inside)
	switch {
	case !ok, !within4(r.customers, dst):
		return Endpoint{}, drop.NoPeer
	case is6to4(src), r.customer(src): // not from outside
		return Endpoint{}, drop.Spoof
	case !r.reachable4(dst):
		return Endpoint{}, drop.Martian
	case r.mine(dst), r.returns(src):
		return Endpoint{}, drop.Loop
	}
	r.change(ip, ip.Dest(), to, inside)
	r.changeQuote(ip, false)
	return Endpoint4(dst), drop.None
}

// customer reports whether an address is in the outside prefix of a customer.
func (r *pmt) customer(a header.Word6) bool {
	inside, ok := r.inward(a)
	return ok && within4(r.customers, v4of6to4(inside))
}

// outward returns the provider's address for a customer's.
func (r *pmt) outward(a header.Word6) (header.Word6, bool) {
	out := header.Word6{Hi: r.of(v4of6to4(a)).Hi, Lo: a.Lo}
	switch {
	case r.wide:
		out.Hi |= a.Hi & 0xffff
	case a.Hi&0xffff != r.subnet:
		return a, false
	}
	return r.neutral(a, out)
}

// inward returns the customer's address for a provider's.
func (r *pmt) inward(a header.Word6) (header.Word6, bool) {
	if !r.prefix.Contains(a) || a.Hi&r.rest != 0 {
		return a, false
	}
	out := header.Word6{Hi: prefix6to4(r.v4(a)).Hi, Lo: a.Lo}
	if r.wide {
		out.Hi |= a.Hi & 0xffff
	} else {
		out.Hi |= r.subnet
	}
	return r.neutral(a, out)
}

// neutral changes an address so that its checksum is that of the old one (RFC 6296
// sections 3.1 to 3.7). It changes the subnet or, if the prefix leaves none, the first
// word of the interface identifier that is not 0xffff. The reverse change uses the same
// word, because the result is never 0xffff.
func (r *pmt) neutral(old, changed header.Word6) (header.Word6, bool) {
	if !r.npt {
		return changed, true
	}
	diff := difference(changed, old)
	if r.wide {
		word := uint16(changed.Hi)
		if word == 0xffff {
			return old, false
		}
		changed.Hi = changed.Hi&^0xffff | uint64(notOnes(header.Fold(uint32(word)+uint32(diff))))
		return changed, true
	}
	for shift := 48; shift >= 0; shift -= 16 {
		if word := uint16(changed.Lo >> shift); word != 0xffff {
			sum := notOnes(header.Fold(uint32(word) + uint32(diff)))
			changed.Lo = changed.Lo&^(0xffff<<shift) | uint64(sum)<<shift
			return changed, true
		}
	}
	return old, false
}

// notOnes returns a sum in which zero is written as 0, not as 0xffff.
func notOnes(sum uint16) uint16 {
	if sum == 0xffff {
		return 0
	}
	return sum
}

// difference returns the number to add to the one's complement sum of one address to get
// that of another.
func difference(from, to header.Word6) uint16 {
	return header.Fold(uint32(^sum6(from)) + uint32(sum6(to)))
}

func sum6(a header.Word6) uint16 {
	var b [16]byte
	a.Put(b[:])
	return header.Sum(b[:], 0)
}

// change writes an address of a packet, and updates its transport checksum, which covers
// the pseudo-header.
func (r *pmt) change(ip header.IPv6, at []byte, before, after header.Word6) {
	after.Put(at)
	if r.npt {
		return
	}
	if sum, udp := checksumOf(ip); sum != nil {
		mend(sum, difference(before, after), udp)
	}
}

// mend updates a checksum by a difference in what it covers (RFC 1624). A UDP checksum
// of zero means that there is none.
func mend(sum []byte, diff uint16, udp bool) {
	old := binary.BigEndian.Uint16(sum)
	if udp && old == 0 {
		return
	}
	mended := header.Update(old, 0, diff)
	if udp && mended == 0 {
		mended = 0xffff
	}
	binary.BigEndian.PutUint16(sum, mended)
}

// checksumOf returns the transport checksum of a packet, or nil if there is none in it.
func checksumOf(ip header.IPv6) (sum []byte, udp bool) {
	up, ok := header.FindUpper(ip)
	if !ok || up.Later {
		return nil, false
	}
	off := up.Offset
	switch up.Protocol {
	case header.TCP:
		off += 16
	case header.UDP:
		off += 6
	case header.ICMPv6:
		off += 2
	default:
		return nil, false
	}
	if len(ip) < off+2 {
		return nil, false
	}
	return ip[off : off+2], up.Protocol == header.UDP
}

// changeQuote changes the address in the packet that an ICMPv6 error quotes. That packet
// went in the other direction, so the customer is its destination if the customer sends
// the error (outbound), and its source if the customer receives it. The error's own
// checksum covers all changes.
func (r *pmt) changeQuote(ip header.IPv6, outbound bool) {
	up, ok := header.FindUpper(ip)
	off := up.Offset
	if !ok || up.Protocol != header.ICMPv6 || up.Later || len(ip) < off+icmpHeader+header.IPv6Len || ip[off] >= icmpInformation {
		return
	}
	quote := ip[off+icmpHeader:]
	at, translate := quote.Source(), r.inward
	if outbound {
		at, translate = quote.Dest(), r.outward
	}
	before := header.ReadWord6(at)
	if outbound && !is6to4(before) || header.Version(quote) != 6 {
		return
	}
	after, ok := translate(before)
	if !ok {
		return
	}
	diff := difference(before, after)
	field, _ := checksumOf(quote)
	if field != nil {
		diff = header.Fold(uint32(diff) + uint32(^binary.BigEndian.Uint16(field)))
	}
	r.change(quote, at, before, after)
	if r.npt {
		return
	}
	if field != nil {
		diff = header.Fold(uint32(diff) + uint32(binary.BigEndian.Uint16(field)))
	}
	mend(ip[off+2:off+4], diff, false)
}

// The length of an ICMPv6 error's header, and the first type that is no error (RFC 4443
// section 2.1).
const (
	icmpHeader      = 8
	icmpInformation = 128
)

// Warnings returns what a customer cannot detect.
func (m PMT) Warnings() []string {
	return []string{"6to4 provider managed tunnels are historic (RFC 7526), and their customers do not know the address that they are seen with: protocols that pass it on break"}
}
