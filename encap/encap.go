// Package encap encapsulates and decapsulates packets: what is on the wire, and
// nothing else.
//
// A mechanism is a Stack of layers. A layer knows the bytes of one delivery
// header: it writes it in front of an inner packet, and checks and strips it
// again. Its resolver knows the addresses. What every packet of a layer has in
// common is prepared once as a template and patched per packet.
package encap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// Layer is one encapsulation between two endpoints.
type Layer interface {
	// Encapsulate puts the layer's header in front of b[off:], which is a
	// whole packet of the version that the layer carries, and returns the
	// offset of the header. There must be room for it below off.
	Encapsulate(b []byte, off int) (int, drop.Reason)

	// Decapsulate checks pkt, which header.Parse has passed, and returns the
	// packet inside it, which then header.Parse has passed too. It shares
	// pkt's memory, and its ECN field is written to. If pkt is not for this
	// layer, taken is false and pkt is somebody else's inner packet.
	Decapsulate(pkt []byte) (inner []byte, taken bool, r drop.Reason)
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

// over is the pair for a layer delivered over the IP version.
func (e Endpoints) over(version int) resolve.Fixed {
	if version == 4 {
		return resolve.NewFixed(e.Local, e.Remote)
	}
	return resolve.NewFixed(e.Local6, e.Remote6)
}

// Stack encapsulates for one peer, and decapsulates what comes from it. Its
// methods may be called by several goroutines at once, on different buffers.
type Stack struct {
	layers  []Layer // innermost first
	enter4  int8    // the first layer that carries IPv4; -1: none
	enter6  int8    // the first layer that carries IPv6
	outer   int     // IP version of the outermost header
	loop4   uint32  // the outermost IPv4 destination; an inner packet to it would come back
	sources *resolve.Sources
}

// New prepares the stack of a mode between two endpoints. The path MTU decides
// whether IPv4 headers forbid fragmentation (RFC 4213 3.2.2); sources judges
// what Decapsulate returns. An endpoint that is missing or of the wrong family
// is an error.
func New(m Mode, e Endpoints, p PathMTU, o Options, sources *resolve.Sources) (*Stack, error) {
	if len(m.Layers) == 0 {
		return nil, errors.New("encap: a stack needs a layer")
	}
	s := &Stack{
		sources: sources,
		outer:   m.Layers[len(m.Layers)-1].Over(),
		enter4:  m.entry(4),
		enter6:  m.entry(6),
	}
	for _, k := range m.Layers {
		pair := e.over(k.Over())
		var layer Layer
		switch {
		case k.Over() == 4 && pair.Local.Is4() && pair.Remote.Is4():
			layer = newOver4(pair, k.Carries(), p, o)
		case k.Over() == 6 && pair.Local.Is6() && pair.Remote.Is6():
			layer = newOver6(pair, k.Carries(), o)
		default:
			return nil, fmt.Errorf("encap: layer %v needs a local and a remote IPv%d address, has %v and %v", k, k.Over(), pair.Local, pair.Remote)
		}
		s.layers = append(s.layers, layer)
	}
	if s.outer == 4 {
		remote := e.Remote.As4()
		s.loop4 = binary.BigEndian.Uint32(remote[:])
	}
	return s, nil
}

// Encapsulate wraps the inner packet b[off:] for the peer: headers are written
// in front of it, so that there must be Headroom bytes below off. It returns
// the outer packet, a part of b. The inner packet itself is not changed, but
// for padding behind it, which is cut off.
func (s *Stack) Encapsulate(b []byte, off int) ([]byte, drop.Reason) {
	var inner []byte
	var r drop.Reason
	var enter int8
	switch header.Version(b[off:]) {
	case 4:
		inner, r = header.CutIPv4(b[off:])
		enter = s.enter4
		if r == drop.None && s.outer == 4 && binary.BigEndian.Uint32(inner[16:]) == s.loop4 {
			r = drop.Loop
		}
	case 6:
		inner, r = header.ParseIPv6(b[off:])
		enter = s.enter6
	default:
		r = drop.WrongVersion
	}
	if r != drop.None {
		return nil, r
	}
	if enter < 0 {
		return nil, drop.WrongFamily
	}
	b = b[:off+len(inner)]
	for _, l := range s.layers[enter:] {
		if off, r = l.Encapsulate(b, off); r != drop.None {
			return nil, r
		}
	}
	return b[off:], drop.None
}

// Decapsulate checks and strips every header of an outer packet and returns the
// inner one, which shares its memory: for the interface, or, where it is
// addressed to this host's end of a layer, for whoever answers there.
func (s *Stack) Decapsulate(outer []byte) ([]byte, drop.Reason) {
	pkt, r := header.Parse(outer, s.outer)
	if r != drop.None {
		return nil, r
	}
	for i := len(s.layers) - 1; i >= 0; i-- {
		inner, taken, r := s.layers[i].Decapsulate(pkt)
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
