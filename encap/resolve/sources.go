package resolve

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync/atomic"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Sources checks the packets that come out of a tunnel, whatever the peer: the source
// address must be valid on a network and not be an address of ours, and the packet must
// not be a tunnel packet to the tunnel's own endpoint (mechanisms 1.8, 1.10, 1.11). It
// is immutable and may be used concurrently.
type Sources struct {
	own4, end4 []uint32
	own6, end6 []header.Word6
	strict     bool
	compatible bool // a resolver checks ::/96

	at   *atomic.Pointer[Interface] // nil: the host's other interfaces are not known
	peer []netip.Prefix             // prefixes of the peer, even if another interface has them
}

// NewSources returns the checks of one tunnel. Own are the addresses that its
// configuration gives the interface, endpoints its outer addresses; neither may be an
// inner source. At adds the host's other addresses. Strict adds documentation and
// benchmarking prefixes to the IPv4 addresses that must not be embedded in an IPv6
// source.
func NewSources(own, endpoints []netip.Addr, strict bool) *Sources {
	s := &Sources{strict: strict}
	s.own4, s.own6 = split(slices.Concat(own, endpoints))
	s.end4, s.end6 = split(endpoints)
	return s
}

// At returns s for the packets of a peer that leave the tunnel through an interface.
// Behind are the peer's prefixes, which it may use even if another interface has them.
func (s *Sources) At(i *atomic.Pointer[Interface], behind []netip.Prefix) *Sources {
	t := *s
	t.at, t.peer = i, behind
	return &t
}

// here returns the interface, or nil if the host's other interfaces are not known.
func (s *Sources) here() *Interface {
	if s.at == nil {
		return nil
	}
	return s.at.Load()
}

// CompatibleResolver is a Resolver that accepts IPv4-compatible addresses, ::/96, as
// inner sources.
type CompatibleResolver interface {
	Resolver
	Compatible()
}

// For returns s for the packets that a resolver accepts.
func (s *Sources) For(r Resolver) *Sources {
	if _, ok := r.(CompatibleResolver); !ok {
		return s
	}
	t := *s
	t.compatible = true
	return &t
}

func split(addrs []netip.Addr) (v4 []uint32, v6 []header.Word6) {
	for _, a := range addrs {
		if a.Is4() {
			b := a.As4()
			v4 = append(v4, binary.BigEndian.Uint32(b[:]))
		} else if a.Is6() {
			b := a.As16()
			v6 = append(v6, header.ReadWord6(b[:]))
		}
	}
	return v4, v6
}

// Check checks a packet that is about to leave the tunnel towards the interface.
// header.Parse must have accepted it.
func (s *Sources) Check(inner []byte) drop.Reason {
	if header.Version(inner) == 4 {
		return s.check4(header.IPv4(inner))
	}
	return s.check6(header.IPv6(inner))
}

func (s *Sources) check4(ip header.IPv4) drop.Reason {
	src, dst := binary.BigEndian.Uint32(ip.Source()), binary.BigEndian.Uint32(ip.Dest())
	switch {
	case src>>24 == 0 && (src != 0 || dst != 0xffffffff), // 0/8, except for a DHCP client
		src>>24 == 127, src>>28 == 0xe, src == 0xffffffff:
		return drop.Martian
	case slices.Contains(s.own4, src):
		return drop.OwnSource
	}
	if i := s.here(); i != nil {
		if r := i.judge4(src, s.peer); r != drop.None {
			return r
		}
	}
	switch {
	case isTunnel(ip.Protocol()) && slices.Contains(s.end4, dst):
		return drop.Nested
	case ip.TTL() == 0:
		return drop.TTLExpired
	}
	return drop.None
}

func (s *Sources) check6(ip header.IPv6) drop.Reason {
	src := header.ReadWord6(ip.Source())
	switch {
	case martian6(src, ip, s.strict) && (!s.compatible || !isCompat(src)):
		return drop.Martian
	case slices.Contains(s.own6, src):
		return drop.OwnSource
	}
	if i := s.here(); i != nil {
		if r := i.judge6(src, s.peer); r != drop.None {
			return r
		}
	}
	up, r := header.Transit(ip)
	switch {
	case r != drop.None:
		return r
	case ip.HopLimit() == 0:
		return drop.TTLExpired
	case isTunnel(up.Protocol) && slices.Contains(s.end6, header.ReadWord6(ip.Dest())):
		return drop.Nested
	}
	return drop.None
}

// isTunnel reports whether the protocol number is that of a tunnel.
func isTunnel(protocol byte) bool {
	return protocol == header.ProtoIPv4 || protocol == header.ProtoIPv6 || protocol == header.GRE
}

// martian6 implements the list of mechanisms 1.8 for inner IPv6 sources.
func martian6(src header.Word6, ip header.IPv6, strict bool) bool {
	switch {
	case src.Hi == 0: // ::/64 contains ::, ::1, ::/96 and ::ffff:0:0/96
		if src.Lo == 0 { // duplicate address detection and router solicitation
			dst := ip.Dest()
			return dst[0] != 0xff || dst[1] != 0x02
		}
		return src.Lo>>32 == 0 || src.Lo>>32 == 0xffff
	case src.Hi>>56 == 0xff: // multicast
		return true
	case src.Hi>>48 == 0x2002: // 6to4: the IPv4 address that it embeds
		return Martian4(uint32(src.Hi>>16), strict)
	}
	return false
}

// prefix4 is an IPv4 prefix in a form that is fast to compare: a>>shift == value.
type prefix4 struct {
	value uint32
	shift uint8
}

// prefixes4 converts IPv4 prefixes to a form that is fast to compare.
func prefixes4(list []netip.Prefix) (out []prefix4) {
	for _, p := range list {
		if a, ok := word4(p.Addr()); ok && p.IsValid() && p.Addr().Is4() {
			shift := uint8(32 - p.Bits())
			out = append(out, prefix4{a >> shift, shift})
		}
	}
	return out
}

func within4(list []prefix4, a uint32) bool {
	for _, p := range list {
		if a>>p.shift == p.value {
			return true
		}
	}
	return false
}

func mustPrefix4(s string) prefix4 {
	p := netip.MustParsePrefix(s)
	a := p.Addr().As4()
	shift := uint8(32 - p.Bits())
	return prefix4{binary.BigEndian.Uint32(a[:]) >> shift, shift}
}

var (
	// martians4 are the IPv4 addresses that RFC 3964 5.3.1 and RFC 4380 5.2.4 refuse
	// inside IPv6 ones, and the prefix of RFC 6598.
	martians4 = []prefix4{
		mustPrefix4("0.0.0.0/8"), mustPrefix4("10.0.0.0/8"), mustPrefix4("127.0.0.0/8"),
		mustPrefix4("169.254.0.0/16"), mustPrefix4("172.16.0.0/12"), mustPrefix4("192.168.0.0/16"),
		mustPrefix4("224.0.0.0/4"), mustPrefix4("240.0.0.0/4"), mustPrefix4("100.64.0.0/10"),
	}
	// strictMartians4 are further prefixes that are not globally routable (RFC 6890).
	strictMartians4 = []prefix4{
		mustPrefix4("192.0.0.0/24"), mustPrefix4("192.0.2.0/24"), mustPrefix4("198.18.0.0/15"),
		mustPrefix4("198.51.100.0/24"), mustPrefix4("203.0.113.0/24"),
	}
)

// Martian4 reports whether an IPv4 address must not be embedded in an IPv6 one.
func Martian4(a uint32, strict bool) bool {
	in := func(p prefix4) bool { return a>>p.shift == p.value }
	return slices.ContainsFunc(martians4, in) || strict && slices.ContainsFunc(strictMartians4, in)
}
