// Package source checks what comes out of a tunnel: whether an inner source address is valid
// here, and whether the peer that sent the packet may use it. The same table says which peer
// an inner packet is for.
package source

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync/atomic"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// Checks are those of the packets that come out of a tunnel, whatever the peer: the source
// address must be valid on a network and not be an address of ours, and the packet must
// not be a tunnel packet to the tunnel's own endpoint (mechanisms 1.8, 1.10, 1.11). The value
// is immutable and may be used concurrently.
type Checks struct {
	own4, end4 []uint32
	own6, end6 []header.Word6
	ports      []uint16 // of UDP, at which packets of tunnels arrive at end4 and end6
	strict     bool
	compatible bool // a resolver checks ::/96

	at   *atomic.Pointer[Interface] // nil: the host's other interfaces are not known
	peer []netip.Prefix             // prefixes of the peer, even if another interface has them
}

// New returns the checks of one tunnel. Own are the addresses that its
// configuration gives the interface, endpoints its outer addresses; neither may be an
// inner source. At adds the host's other addresses. Strict adds documentation and
// benchmarking prefixes to the IPv4 addresses that must not be embedded in an IPv6
// source.
func New(own, endpoints []netip.Addr, strict bool) *Checks {
	s := &Checks{strict: strict}
	s.own4, s.own6 = split(slices.Concat(own, endpoints))
	s.end4, s.end6 = split(endpoints)
	return s
}

// At returns s for the packets of a peer that leave the tunnel through an interface.
// Behind are the peer's prefixes, which it may use even if another interface has them.
func (s *Checks) At(i *atomic.Pointer[Interface], behind []netip.Prefix) *Checks {
	t := *s
	t.at, t.peer = i, behind
	return &t
}

// Ports returns s for a tunnel whose packets may also arrive at UDP ports of its endpoints.
func (s *Checks) Ports(ports []uint16) *Checks {
	t := *s
	t.ports = ports
	return &t
}

// here returns the interface, or nil if the host's other interfaces are not known.
func (s *Checks) here() *Interface {
	if s.at == nil {
		return nil
	}
	return s.at.Load()
}

// For returns s for the packets that a resolver accepts.
func (s *Checks) For(r resolve.Resolver) *Checks {
	if _, ok := r.(resolve.CompatibleResolver); !ok {
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
func (s *Checks) Check(inner []byte) drop.Reason {
	if header.Version(inner) == 4 {
		return s.check4(header.IPv4(inner))
	}
	return s.check6(header.IPv6(inner))
}

func (s *Checks) check4(ip header.IPv4) drop.Reason {
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
	case s.tunnels(ip.Protocol()) && slices.Contains(s.end4, dst) && s.isTunnel(ip.Protocol(), ip.Payload(), ip.Fragment()&header.OffsetMask != 0):
		return drop.Nested
	case ip.TTL() == 0:
		return drop.TTLExpired
	}
	return drop.None
}

func (s *Checks) check6(ip header.IPv6) drop.Reason {
	src := header.ReadWord6(ip.Source())
	switch {
	case resolve.Martian6(src, ip, s.strict) && (!s.compatible || src.Hi != 0 || src.Lo>>32 != 0):
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
	case s.tunnels(up.Protocol) && slices.Contains(s.end6, header.ReadWord6(ip.Dest())) && s.isTunnel(up.Protocol, ip[min(up.Offset, len(ip)):], up.Later):
		return drop.Nested
	}
	return drop.None
}

// tunnels reports whether some packets of a protocol are those of tunnels. Most packets have
// another protocol, and need no further look.
func (s *Checks) tunnels(protocol byte) bool {
	switch protocol {
	case header.ProtoIPv4, header.ProtoIPv6, header.GRE:
		return true
	}
	return protocol == header.UDP && len(s.ports) > 0
}

// isTunnel reports whether a packet to one of our endpoints, with a protocol that tunnels has
// accepted, may be that of a tunnel. Later says that the payload is that of a later fragment;
// without the first, which has the ports, the kernel delivers no packet.
func (s *Checks) isTunnel(protocol byte, payload []byte, later bool) bool {
	if protocol != header.UDP {
		return true
	}
	_, to := header.Ports(payload)
	return !later && slices.Contains(s.ports, to)
}
