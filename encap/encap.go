// Package encap encapsulates and decapsulates packets. It handles only the bytes of
// packets: it sends and receives nothing.
//
// A tunnel mechanism is a Stack of layers. A layer is a delivery header of an IP version and
// a Framing, which stands between that header and the packet inside. A resolver determines
// the addresses. For encapsulation, the headers of all
// layers are prepared once as a template, which is copied in front of each packet and
// then patched for each layer. For decapsulation, each layer in turn checks its header
// and removes it.
package encap

import (
	"fmt"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/source"
)

// Headroom is the most room in bytes that Encapsulate needs in front of an inner packet:
// the sum of the longest headers of all layers that a stack can have.
const Headroom = MaxDepth * (header.IPv6Len + header.EncapLimitLen + framing.MaxLen)

// Stack encapsulates packets for one peer and decapsulates packets from it. Its methods
// may be called concurrently on different buffers.
type Stack struct {
	layers  []Layer // innermost first
	in      []arriving
	outer   int // IP version of the outermost header
	options Options
	sources *source.Checks
	record  *Record

	enter4 *template // for IPv4 packets; nil: not carried
	enter6 *template // the same for IPv6
	at4    int       // the layer at which IPv4 packets enter
	at6    int
	cut4   *template // the layer at which packets with DF enter to be fragmented; nil: they are not
	loop   loopCheck // recognizes outer packets of this stack, which must not enter it again
	echoes bool      // the framing of the outermost layer has keepalives

	// For IPv6 packets that enter a layer over IPv6: the template for packets that carry
	// an encapsulation limit, and the check for the layer's own packets.
	limited6 *template
	loop6    loopCheck
}

// New prepares a stack of layers, innermost first. The path MTU decides whether IPv4
// headers forbid fragmentation (RFC 4213 3.2.2) and which packets are too large. Sources
// checks the packets that Decapsulate returns; rec is the record of the peer's previous
// stack. New returns an error if an endpoint is missing or of the wrong family, or if a
// layer does not carry the packets of the layer inside it.
func New(layers []Layer, p PathMTU, o Options, sources *source.Checks, rec *Record) (*Stack, error) {
	if len(layers) == 0 || len(layers) > MaxDepth {
		return nil, fmt.Errorf("encap: a stack has 1 to %d layers, not %d", MaxDepth, len(layers))
	}
	layers = withoutZone(layers)
	s := &Stack{layers: layers, options: o, sources: sources, record: rec, outer: layers[len(layers)-1].Kind.Over()}
	s.in = make([]arriving, len(layers))
	b := builder{layers: layers, path: p, Options: o, record: rec}
	var checks [MaxDepth]loopCheck
	for i, l := range layers {
		if err := l.check(); err != nil {
			return nil, err
		}
		b.props[i] = l.Kind.Properties()
		if i < len(layers)-1 && b.props[i].Session {
			return nil, fmt.Errorf("encap: layer %v is inside another one, but a connection is not a packet", l.Kind)
		}
		if i > 0 && !b.props[i].Carries(layers[i-1].Kind.Over()) {
			return nil, fmt.Errorf("encap: layer %v does not carry IPv%d, which layer %v makes", l.Kind, layers[i-1].Kind.Over(), layers[i-1].Kind)
		}
		pair, c := resolve.NewFixed(l.Local, l.Remote), newContent(l.Kind, rec)
		b.codecs[i] = c.codec
		if l.Kind.Over() == 4 {
			_, several := l.Resolver.(resolve.Joiner)
			in := &over4{c, pair, l.Resolver, several && b.props[i].Ports.Local != 0, b.props[i].Ports.Beside, o.StaticMTU}
			s.in[i], checks[i] = in, newLoopCheck(&in.pair, &in.content, l.Resolver != nil)
		} else {
			in := &over6{c, pair, l.Resolver}
			s.in[i], checks[i] = in, newLoopCheck(&in.pair, &in.content, l.Resolver != nil)
		}
	}
	if err := b.checkLimit(); err != nil {
		return nil, err
	}
	// A packet enters at the innermost layer that carries its version.
	if s.at4 = entry(layers, 4); s.at4 < len(layers) {
		b.entry = s.at4
		s.enter4 = b.template(s.at4, 4)
		if s.enter4.parts[0].session { // DF cannot be ignored: the layer's packet cannot be fragmented instead
			s.options.IgnoreDF, o.IgnoreDF = false, false
		}
		if o.IgnoreDF && layers[s.at4].Kind.Over() == 4 {
			loose := b
			loose.StaticMTU, loose.common = true, [MaxDepth]*template{}
			s.cut4, _ = loose.template(s.at4, 4).upTo(0)
		}
	}
	if s.at6 = entry(layers, 6); s.at6 < len(layers) {
		b.entry = s.at6
		s.enter6 = b.template(s.at6, 6)
		if layers[s.at6].Kind.Over() == 6 {
			b.limited = true
			s.limited6, s.loop6 = b.template(s.at6, 6), checks[s.at6]
		}
	}
	if err := s.addBeside(p, b.props[len(layers)-1].Ports.Beside); err != nil {
		return nil, err
	}
	s.loop = checks[len(layers)-1]
	_, s.echoes = layers[len(layers)-1].Kind.framing.(framing.Keepaliver)
	return s, nil
}

// addBeside adds the templates for packets with another protocol in the outermost layer; 0: there
// are none. Each template has one, wherever packets enter the stack.
func (s *Stack) addBeside(p PathMTU, protocol byte) error {
	if protocol == 0 {
		return nil
	}
	layers := slices.Clone(s.layers)
	last := &layers[len(layers)-1]
	last.Kind, last.Resolver = SixInFour, beside{last.Resolver}
	other, err := New(layers, p, s.options, nil, s.record)
	if err != nil {
		return err
	}
	for _, pair := range [...][2]*template{{s.enter4, other.enter4}, {s.enter6, other.enter6}, {s.limited6, other.limited6}} {
		for t, beside := pair[0], pair[1]; t != nil; t, beside = t.outside, beside.outside {
			t.beside = beside
		}
	}
	return nil
}

// beside is the resolver for packets with the other protocol.
type beside struct{ resolve.Resolver }

func (b beside) To(inner []byte) (resolve.Endpoint, drop.Reason) {
	e, r := b.Resolver.To(inner)
	if r == drop.None && e.Form != 1 {
		r = drop.NoRoute
	}
	e.Form, e.Port = 0, 0
	return e, r
}

// otherForm is what template.put returns for a packet that has the other protocol. It leaves
// this package never.
const otherForm = drop.Count

// withoutZone returns the layers with addresses as headers carry them: a zone has a
// meaning only on this host (RFC 4007 section 6).
func withoutZone(layers []Layer) []Layer {
	last := layers[len(layers)-1]
	if last.Local.Zone() == "" && last.Remote.Zone() == "" {
		return layers
	}
	last.Local, last.Remote = last.Local.WithZone(""), last.Remote.WithZone("")
	return append(slices.Clone(layers[:len(layers)-1]), last)
}

// entry returns the layer at which packets of an IP version enter: the innermost one
// that carries them. If there is none, it returns len(layers).
func entry(layers []Layer, version int) int {
	for i, l := range layers {
		if l.Kind.Carries(version) {
			return i
		}
	}
	return len(layers)
}

// Depth returns the number of layers.
func (s *Stack) Depth() int { return len(s.layers) }

// Limit returns the size in bytes of the largest packet of an IP version that is carried
// whole. Senders of larger packets are told this size. It is at least 1280 for IPv6 (RFC
// 8200 section 5), and 0 if the stack does not carry the version.
func (s *Stack) Limit(version int) TunnelMTU {
	switch t4, t6 := s.enter4, s.enter6; {
	case version == 4 && t4 != nil:
		return TunnelMTU(t4.limit)
	case version == 6 && t6 != nil:
		return max(TunnelMTU(t6.limit), MinTunnelMTU6)
	}
	return 0
}

// LimitBack returns the size of the largest packet that a peer which behaves like Linux
// can send back whole over a path; it is at most Limit. Such a peer may add an
// encapsulation limit where we add none (RFC 2473 section 6.6), and does not send IPv6
// packets of 1280 bytes whose outer packets would need fragments.
func (s *Stack) LimitBack(version int, p PathMTU) TunnelMTU {
	t := s.enter4
	if version == 6 {
		t = s.enter6
	}
	if t == nil {
		return 0
	}
	room := int(p) - t.size - t.hidden
	for _, part := range t.parts {
		if part.over == 6 && part.size-part.framing == header.IPv6Len && !part.session {
			room -= header.EncapLimitLen
		}
	}
	for _, l := range s.layers {
		p := l.Kind.Properties()
		room -= max(0, p.OverheadBack-p.Overhead)
	}
	return max(MinTunnelMTU4, min(s.Limit(version), TunnelMTU(room)))
}

// LimitTo is Limit for one packet. It depends on the packet's destination, its
// encapsulation limit and its DF; inner needs only the IP header.
func (s *Stack) LimitTo(inner []byte) TunnelMTU {
	version := header.Version(inner)
	limit := s.Limit(version)
	if limit == 0 {
		return 0
	}
	if version == 4 && s.keepsWhole(inner) {
		limit = TunnelMTU(s.enter4.whole)
	}
	if version == 6 {
		if t, _, found := s.limited(header.IPv6(inner)); found {
			limit = max(TunnelMTU(t.limit), MinTunnelMTU6)
		}
	}
	if mtu := s.mtuFor(inner); mtu != 0 {
		limit = min(limit, TunnelMTU(max(int(mtu), s.leastWhole())-s.Overhead(version)))
		if version == 6 {
			limit = max(limit, MinTunnelMTU6)
		}
	}
	return limit
}

// keepsWhole reports whether an inner IPv4 packet must not be fragmented.
func (s *Stack) keepsWhole(inner []byte) bool {
	return !s.options.IgnoreDF && !header.IPv4(inner).MayFragment()
}

// NeedsPathMTU reports whether some packets must fit the path MTU. With a static MTU,
// routers fragment the others; but no router fragments IPv6, or an outer IPv4 packet
// that has the DF of its inner packet.
func (s *Stack) NeedsPathMTU() bool {
	return !s.options.StaticMTU || s.outer == 6 || s.enter4 != nil && s.enter4.first6() < 0 && !s.options.IgnoreDF
}

// leastWhole returns the size of the outer packets that every destination of a resolver
// counts as carrying: over IPv4 the outermost layer carries inner packets of 1280 bytes even
// over a path with a smaller MTU.
func (s *Stack) leastWhole() int {
	if s.outer == 4 {
		return int(MinTunnelMTU6) + header.IPv4Len
	}
	return int(MinTunnelMTU6)
}

// mtuFor returns the recorded path MTU to the outer destination that a resolver finds
// for a packet, or 0 if none is recorded.
func (s *Stack) mtuFor(inner []byte) PathMTU {
	last := len(s.layers) - 1
	outer := s.layers[last]
	if outer.Resolver == nil {
		return 0
	}
	ip := make([]byte, header.IPv6Len) // the resolver may write to it
	if s.enters(last, inner) {
		copy(ip, inner)
	} else { // the packet that arrives at this layer is the one of the layer inside
		ip[0] = 6 << 4
		copy(ip[8:], s.layers[last-1].Local.AsSlice())
		copy(ip[24:], s.layers[last-1].Remote.AsSlice())
	}
	dst, r := outer.Resolver.To(ip)
	if r != drop.None {
		return 0
	}
	return s.record.mtuTo(dst)
}

// Overhead returns how many bytes the stack adds on the wire to a packet of an IP version
// that it carries. They include Properties.Hidden, which Encapsulate does not add.
func (s *Stack) Overhead(version int) int {
	t := s.enter6
	if version == 4 {
		t = s.enter4
	}
	return t.size + t.hidden
}

// Encapsulate wraps the inner packet b[off:] for the peer. It writes the headers in
// front of it, so off must be at least Headroom. It returns the outer packet, a part of
// b. The inner packet itself is not changed, but padding after it is cut off.
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
	return s.EncapsulateSegment(b[:off+size], off, nil)
}

// EncapsulateSegment is Encapsulate for a packet whose headers are in b[off:] and whose
// payload, tail, is elsewhere. It does not check the headers: use it for packets that
// this process has made or has checked.
func (s *Stack) EncapsulateSegment(b []byte, off int, tail []byte) ([]byte, drop.Reason) {
	return s.encapsulate(b, off, tail, false)
}

// EncapsulateUnsummed is EncapsulateSegment for a sender that writes the checksum of the
// outermost UDP header. If that has one, any number but 0 is in its place, and
// header.WriteUDPChecksum replaces it.
func (s *Stack) EncapsulateUnsummed(b []byte, off int, tail []byte) ([]byte, drop.Reason) {
	return s.encapsulate(b, off, tail, true)
}

func (s *Stack) encapsulate(b []byte, off int, tail []byte, unsummed bool) ([]byte, drop.Reason) {
	var t *template
	var f fields
	if header.Version(b[off:]) == 4 {
		ip := header.IPv4(b[off:])
		if s.outer == 4 && s.loop.is4(ip) {
			return nil, drop.Loop
		}
		t, f = s.enter4, fields{tos: ip.TOS(), ttl: ip.TTL(), df: !s.options.IgnoreDF && !ip.MayFragment()}
	} else {
		ip := header.IPv6(b[off:])
		t, f = s.enter6, fields{tos: ip.TrafficClass(), ttl: ip.HopLimit()}
		if s.outer == 6 && s.loop.is6(ip) {
			return nil, drop.Loop
		}
		if s.limited6 != nil {
			if s.loop6.is6(ip) { // RFC 2473 4.1.2
				return nil, drop.Loop
			}
			if t, limit, found := s.limited(ip); found {
				return s.encapsulateLimited(b, off, tail, t, limit, unsummed)
			}
		}
	}
	switch {
	case t == nil:
		return nil, drop.WrongFamily
	case len(b)-off+len(tail) > t.limit, f.df && len(b)-off+len(tail) > t.whole:
		return nil, drop.TooBig
	}
	start, r := t.put(b, off, len(tail), f)
	if r == otherForm {
		t, start, r = t.putBeside(b, off, len(tail), f)
	}
	if r != drop.None {
		return nil, r
	}
	if t.unfinished {
		t.finish(b, off, tail, 0, unsummed)
	}
	return b[start:], drop.None
}
