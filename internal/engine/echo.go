package engine

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync/atomic"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/pathmtu"
	"sixfour/internal/probe"
)

// echo identifies a peer's probes among other echo requests. Each kind of probe has its own
// sequence numbers.
type echo struct {
	probe.Identity
	probes   atomic.Uint64
	answered atomic.Uint64
	pieces   atomic.Uint64 // identification of the last fragmented answer, with fragmentSeen
}

func newEcho() *echo { return &echo{Identity: probe.NewIdentity()} }

// kind is the purpose of a probe. It follows the cookie.
type kind byte

// The kinds of probes: to find the path MTU, for an operator, or for liveness. Liveness
// probes use kindLife plus their way.
const (
	kindPathMTU kind = iota
	kindAsked
	kindLife
)

// Layout of the probes of a question, behind the cookie: the kind, the index of the
// liveness session, and that of a pair of inner addresses. Offsets are in bytes from the
// start of the ICMP message; askLen is the least length of the message.
const (
	kindAt  = probe.Len
	indexAt = kindAt + 1
	pairAt  = indexAt + 2
	askLen  = pairAt + 1
)

// probe sends a path MTU probe through the tunnel or, if no inner address is known to
// answer, to the peer's outer address. A probe that cannot be sent counts as unanswered.
func (p *path) probe(pr *probing, q pathmtu.Packet) {
	wire := p.Wire.Load()
	if !wire.Is(pr.layers, pr.link) {
		return
	}
	l := wire.Outer()
	local, remote, inside := p.ends(wire)
	size := q.Size
	switch {
	case !inside:
		local, remote = l.Local, l.Remote
	case local.Is6():
		size -= pr.stack.Overhead(6)
	default:
		size -= pr.stack.Overhead(4)
	}
	if size < header.IPv6Len+probe.Len {
		return
	}
	buf := make([]byte, encap.Headroom+size)
	pkt := buf[encap.Headroom:]
	p.echo.Fill(pkt, local, remote, q.Seq)
	if inside {
		if by := p.answersBy(); by.way == wayBetween && by.between.Remote == remote {
			limitHops(pkt, by.between, wire.Options)
		}
		var r drop.Reason
		if pkt, r = pr.stack.Encapsulate(buf, encap.Headroom); r != drop.None {
			return
		}
	}
	p.echo.probes.Add(1) // before an answer can arrive
	m := p.t.Captures.Now()
	defer m.End()
	if wire.Senders[0].SendOne(pkt) == nil {
		p.ShowProbe(m.At, pkt, buf[encap.Headroom:], inside)
	}
}

// sent reports whether a quoted inner packet is a probe.
func (e *echo) sent(inner []byte) bool {
	if header.Version(inner) != 6 || len(inner) < header.IPv6Len+probe.SeqAt {
		return false
	}
	ip := header.IPv6(inner)
	m := ip.Payload()
	return ip.NextHeader() == header.ICMPv6 && m[0] == icmp.EchoRequest6 && binary.BigEndian.Uint16(m[probe.IDAt:]) == e.ID
}

// sentOutside reports whether a quoted packet is a probe of an outer address.
func (e *echo) sentOutside(quote []byte) bool {
	var m []byte
	request := byte(icmp.EchoRequest4)
	if header.Version(quote) == 6 {
		if header.IPv6(quote).NextHeader() != header.ICMPv6 {
			return false
		}
		m, request = quote[header.IPv6Len:], icmp.EchoRequest6
	} else {
		ip := header.IPv4(quote)
		if ip.Protocol() != header.ICMP || ip.HeaderLen() != header.IPv4Len {
			return false
		}
		m = quote[header.IPv4Len:]
	}
	return len(m) >= probe.SeqAt && m[0] == request && binary.BigEndian.Uint16(m[probe.IDAt:]) == e.ID
}

// proves reports whether a quoted inner packet is certainly a probe: the quote includes the
// cookie.
func (e *echo) proves(inner []byte) bool {
	return e.sent(inner) && len(inner) >= header.IPv6Len+probe.Len && [8]byte(inner[header.IPv6Len+probe.CookieAt:]) == e.Cookie
}

// Answer handles a packet to our end, and reports whether it is an answer to a probe, or a
// fragment of one. A far end whose interface MTU is too small sends its answer in
// fragments; the first one is sufficient.
func (p *path) Answer(ip header.IPv6) bool {
	up, ok := header.FindUpper(ip)
	if !ok || up.Protocol != header.ICMPv6 {
		return false
	}
	fragmented := ip.NextHeader() == header.FragmentHdr && len(ip) >= header.IPv6Len+fragment.HeaderLen
	if up.Later {
		return fragmented && uint64(fragmentID(ip))|fragmentSeen == p.echo.pieces.Load()
	}
	m := ip[up.Offset:]
	if !p.echo.IsReply(m, icmp.EchoReply6) {
		return false
	}
	if fragmented {
		p.echo.pieces.Store(uint64(fragmentID(ip)) | fragmentSeen)
	}
	p.PassReply(m)
	return true
}

// AnswersBetween reports whether an inner packet answers a probe between two inner
// addresses, and passes the answer on. It examines carried packets no more than needed.
func (p *path) AnswersBetween(between []probe.Pair, inner []byte) bool {
	var m, from, to []byte
	var reply byte
	if header.Version(inner) == 6 {
		ip := header.IPv6(inner)
		if ip.NextHeader() != header.ICMPv6 {
			return false
		}
		m, from, to, reply = ip.Payload(), ip.Source(), ip.Dest(), icmp.EchoReply6
	} else {
		ip := header.IPv4(inner)
		if ip.Protocol() != header.ICMP {
			return false
		}
		m, from, to, reply = ip.Payload(), ip.Source(), ip.Dest(), icmp.EchoReply4
	}
	if !p.echo.IsReply(m, reply) || !slices.ContainsFunc(between, func(pair probe.Pair) bool { return is(from, pair.Remote) && is(to, pair.Local) }) {
		return false
	}
	p.PassReply(m)
	return true
}

// is reports whether the address in a packet is a.
func is(b []byte, a netip.Addr) bool {
	in, _ := netip.AddrFromSlice(b)
	return in == a
}

// IsReply reports whether an ICMP message is the reply to a probe.
func (p *path) IsReply(m []byte, typ byte) bool { return p.echo.IsReply(m, typ) }

// Sent reports whether a quoted inner packet is a probe.
func (p *path) Sent(inner []byte) bool { return p.echo.sent(inner) }

// SentOutside reports whether a quoted packet is a probe of an outer address.
func (p *path) SentOutside(quote []byte) bool { return p.echo.sentOutside(quote) }

// PassReply passes an answer to the sender of the probe.
func (p *path) PassReply(m []byte) {
	seq := binary.BigEndian.Uint16(m[probe.SeqAt:])
	if len(m) >= askLen {
		switch k := kind(m[kindAt]); {
		case k == kindAsked:
			p.asked.answer(seq)
			return
		case k >= kindLife:
			p.t.keeper.answer(p, k-kindLife, seq, m)
			return
		}
	}
	if p.echo.answered.Load() >= p.echo.probes.Load() {
		return // more answers than probes
	}
	p.echo.answered.Add(1)
	select {
	case p.t.prober.answers <- answer{p, seq}:
	default: // more than were asked for: drop it
	}
}

// fragmentSeen marks a stored identification as valid.
const fragmentSeen = 1 << 32

// fragmentID returns the identification in the fragment header at the start of a packet
// (RFC 8200 section 4.5).
func fragmentID(ip header.IPv6) uint32 { return binary.BigEndian.Uint32(ip[header.IPv6Len+4:]) }
