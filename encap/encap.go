// Package encap encapsulates and decapsulates packets: what is on the wire, and
// nothing else.
//
// A mechanism is a Stack of layers. Each layer knows the bytes of one delivery
// header, and its resolver knows the addresses. To encapsulate, the headers of
// all layers are prepared once as a template, which is copied in front of each
// packet and patched, layer by layer. To decapsulate, each layer in turn checks
// its header and takes it off.
package encap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// layer is one delivery header as it comes in.
type layer interface {
	// decapsulate checks pkt, which header.Parse has passed, and returns the
	// packet inside it, which then header.Parse has passed too. It shares
	// pkt's memory, and its ECN field is written to. If pkt is not for this
	// layer, taken is false and pkt is somebody else's inner packet. If it is a
	// fragment of a packet for this layer, the reason is drop.Fragment.
	decapsulate(pkt []byte) (inner []byte, taken bool, r drop.Reason)

	// unquote is decapsulate for a packet that went out and is quoted in an ICMP
	// error: size is its length, of which the beginning is in pkt. Inner is
	// shorter than a header if that is not quoted; ok is false if it is not a
	// packet that this layer sends.
	unquote(pkt []byte, size int) (inner []byte, innerSize int, taken, ok bool)
}

// Headroom is how much room Encapsulate may need in front of an inner packet:
// the sum of the longest headers of all layers that a stack can have.
const Headroom = 128

// Endpoints are a tunnel's outer addresses. Local6 and Remote6 are those of the
// layer over IPv6, if the mode has one.
type Endpoints struct {
	Local, Remote   netip.Addr
	Local6, Remote6 netip.Addr
}

// Stack encapsulates for one peer, and decapsulates what comes from it. Its
// methods may be called by several goroutines at once, on different buffers.
type Stack struct {
	from    []*template // the headers of a layer and all outside it; innermost first
	enter4  *template   // that of the layer at which IPv4 packets enter; nil: not carried
	enter6  *template   // the same for IPv6
	layers  []layer     // innermost first
	outer   int         // IP version of the outermost header
	loop4   uint32      // the outermost IPv4 destination; an inner packet to it would come back
	sources *resolve.Sources
	record  *Record

	// Where IPv6 packets enter a layer over IPv6: enter6 for those that carry an
	// encapsulation limit, and the layer's ends.
	limited6 *template
	ends6    resolve.Fixed
}

// New prepares the stack of a mode between two endpoints. The path MTU decides
// whether IPv4 headers forbid fragmentation (RFC 4213 3.2.2), and which packets
// are too large; sources judges what Decapsulate returns; the record is that of
// the peer's stack before. An endpoint that is missing or of the wrong family is
// an error.
func New(m Mode, e Endpoints, p PathMTU, o Options, sources *resolve.Sources, rec *Record) (*Stack, error) {
	if len(m.Layers) == 0 {
		return nil, errors.New("encap: a stack needs a layer")
	}
	s := &Stack{sources: sources, outer: m.Layers[len(m.Layers)-1].Over(), record: rec}
	for _, k := range m.Layers {
		pair, err := e.over(k)
		if err != nil {
			return nil, err
		}
		if k.Over() == 4 {
			s.layers = append(s.layers, &over4{pair, k.Carries(), o.StaticMTU, rec})
		} else {
			s.layers = append(s.layers, &over6{pair, k.Carries(), rec})
		}
	}
	s.from = templates(m, e, p, o, rec)
	// A packet enters at the innermost layer that carries its version.
	for i, k := range slices.Backward(m.Layers) {
		if k.Carries() == 4 {
			s.enter4 = s.from[i]
			continue
		}
		s.enter6, s.limited6 = s.from[i], nil
		if k.Over() == 6 {
			o.EncapLimit = 0 // the value is the packet's
			s.limited6 = templates(m, e, p, o, rec)[i]
			s.ends6, _ = e.over(k)
		}
	}
	if s.outer == 4 {
		remote := e.Remote.As4()
		s.loop4 = binary.BigEndian.Uint32(remote[:])
	}
	return s, nil
}

// Limit is the largest packet of an IP version that goes whole, and which
// senders of larger ones are told: at least 1280 for IPv6 (RFC 8200 section 5),
// 0 if the stack does not carry it.
func (s *Stack) Limit(version int) TunnelMTU {
	switch t4, t6 := s.enter4, s.enter6; {
	case version == 4 && t4 != nil:
		return TunnelMTU(t4.limit)
	case version == 6 && t6 != nil:
		return max(TunnelMTU(t6.limit), MinTunnelMTU6)
	}
	return 0
}

// Overhead is what the stack adds to a packet of an IP version that it carries,
// in bytes.
func (s *Stack) Overhead(version int) int {
	if version == 4 {
		return s.enter4.size
	}
	return s.enter6.size
}

// over is the pair of addresses for a layer.
func (e Endpoints) over(k Kind) (resolve.Fixed, error) {
	local, remote := e.Local, e.Remote
	ok := local.Is4() && remote.Is4()
	if k.Over() == 6 {
		local, remote = e.Local6, e.Remote6
		ok = local.Is6() && remote.Is6()
	}
	if !ok {
		return resolve.Fixed{}, fmt.Errorf("encap: layer %v needs a local and a remote IPv%d address, has %v and %v", k, k.Over(), local, remote)
	}
	return resolve.NewFixed(local, remote), nil
}

// Encapsulate wraps the inner packet b[off:] for the peer: headers are written
// in front of it, so that there must be Headroom bytes below off. It returns
// the outer packet, a part of b. The inner packet itself is not changed, but
// for padding behind it, which is cut off.
func (s *Stack) Encapsulate(b []byte, off int) ([]byte, drop.Reason) {
	var size int
	switch header.Version(b[off:]) {
	case 4:
		ip, r := header.CutIPv4(b[off:])
		if r != drop.None {
			return nil, r
		}
		size = len(ip)
	case 6:
		ip, r := header.ParseIPv6(b[off:])
		if r != drop.None {
			return nil, r
		}
		size = len(ip)
	default:
		return nil, drop.WrongVersion
	}
	return s.EncapsulateSegment(b[:off+size], off, 0)
}

// EncapsulateSegment is Encapsulate for a packet of which only the headers stand
// in b[off:], while tail bytes of payload follow elsewhere. What the headers say
// is not checked: it is for packets that this process has made.
func (s *Stack) EncapsulateSegment(b []byte, off, tail int) ([]byte, drop.Reason) {
	var t *template
	var tos, ttl byte
	if header.Version(b[off:]) == 4 {
		ip := header.IPv4(b[off:])
		if s.outer == 4 && binary.BigEndian.Uint32(ip.Dest()) == s.loop4 {
			return nil, drop.Loop
		}
		t, tos, ttl = s.enter4, ip.TOS(), ip.TTL()
	} else {
		ip := header.IPv6(b[off:])
		t, tos, ttl = s.enter6, ip.TrafficClass(), ip.HopLimit()
		if s.limited6 != nil {
			if s.ends6.Sends6(ip) { // RFC 2473 4.1.2
				return nil, drop.Loop
			}
			if at, found := header.FindEncapLimit(ip); found {
				return s.encapsulateLimited(b, off, tail, ip[at])
			}
		}
	}
	switch {
	case t == nil:
		return nil, drop.WrongFamily
	case len(b)-off+tail > t.limit:
		return nil, drop.TooBig
	}
	start, r := t.put(b, off, tail, tos, ttl)
	if r != drop.None {
		return nil, r
	}
	return b[start:], drop.None
}

// Decapsulate checks and strips every header of an outer packet and returns the
// inner one, which shares its memory: for the interface, or, where it is
// addressed to this host's end of a layer, for whoever answers there. If the
// reason is drop.Fragment, what it returns is a fragment of the IPv6 packet of a
// layer, for reassembly, after which DecapsulateReassembled goes on.
func (s *Stack) Decapsulate(outer []byte) ([]byte, drop.Reason) {
	pkt, r := header.Parse(outer, s.outer)
	if r != drop.None {
		return nil, r
	}
	return s.strip(pkt, len(s.layers))
}

// DecapsulateReassembled is Decapsulate for the packet that its fragments made.
func (s *Stack) DecapsulateReassembled(whole []byte) ([]byte, drop.Reason) {
	pkt, r := header.Parse(whole, 6)
	if r != drop.None {
		return nil, r
	}
	for i := len(s.layers); i > 0; i-- {
		if _, ok := s.layers[i-1].(*over6); ok {
			return s.strip(pkt, i)
		}
	}
	return nil, drop.UnknownProtocol
}

// strip takes off the headers of the n innermost layers.
func (s *Stack) strip(pkt []byte, n int) ([]byte, drop.Reason) {
	for i := n - 1; i >= 0; i-- {
		inner, taken, r := s.layers[i].decapsulate(pkt)
		if r == drop.Fragment && header.Version(pkt) == 6 {
			return pkt, r
		}
		if r != drop.None {
			return nil, r
		}
		if !taken {
			break
		}
		pkt = inner
	}
	if r := s.sources.Check(pkt); r != drop.None {
		return nil, r
	}
	return pkt, drop.None
}
