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
	"sixfour/internal/capture"
	"sixfour/internal/config"
	"sixfour/internal/pathmtu"
	"sixfour/internal/pcapng"
	"sixfour/internal/probe"
)

// echo is how a peer's probes are told from other echo requests. Each kind of them
// has sequence numbers of its own.
type echo struct {
	probe.Identity
	probes   atomic.Uint64
	answered atomic.Uint64
	pieces   atomic.Uint64 // identification of the last answer in fragments, and fragmentSeen
}

func newEcho() *echo { return &echo{Identity: probe.NewIdentity()} }

// kind is what a probe is for. It stands behind the cookie.
type kind byte

// Probes find the path's MTU, or are asked for by an operator, or tell whether the
// peer lives: those have further kinds, from there on, by the way in which they go.
const (
	kindPathMTU kind = iota
	kindAsked
	kindLife
)

// Layout of the probes that a question makes, behind the cookie: the kind, and the
// index of a pulse and of a pair of inner addresses. Offsets are in the ICMP message, in bytes; askLen is that of the
// shortest one's.
const (
	kindAt  = probe.Len
	indexAt = kindAt + 1
	pairAt  = indexAt + 2
	askLen  = pairAt + 1
)

// probe sends a probe: through the tunnel, or, where nobody need answer there, to
// the peer's outer address. What does not leave is a probe that is not answered.
func (p *peer) probe(pr *probing, q pathmtu.Packet) {
	path := p.path.Load()
	if !path.is(pr.layers, pr.link) {
		return
	}
	l := path.outer()
	local, remote, inside := p.ends(path)
	size := q.Size
	if !inside {
		local, remote = l.Local, l.Remote
	} else if local.Is6() {
		size -= pr.stack.Overhead(6) // of the IPv6 packet
	} else {
		size -= pr.stack.Overhead(4)
	}
	if size < header.IPv6Len+probe.Len {
		return
	}
	buf := make([]byte, encap.Headroom+size)
	pkt := buf[encap.Headroom:]
	p.echo.Fill(pkt, local, remote, q.Seq)
	if inside {
		if p.answersBy().way == wayBetween {
			p.t.limitHops(pkt, remote)
		}
		var r drop.Reason
		if pkt, r = pr.stack.Encapsulate(buf, encap.Headroom); r != drop.None {
			return
		}
	}
	p.echo.probes.Add(1) // before the answer can be there
	m := p.t.capturing.moment()
	defer m.end()
	if path.senders[0].SendOne(pkt) == nil {
		p.showProbe(m.at, pkt, buf[encap.Headroom:], inside)
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

// proves reports whether a quoted inner packet is a probe beyond doubt: its cookie
// is quoted, too.
func (e *echo) proves(inner []byte) bool {
	return e.sent(inner) && len(inner) >= header.IPv6Len+probe.Len && [8]byte(inner[header.IPv6Len+probe.CookieAt:]) == e.Cookie
}

// answer takes a packet to our end, and reports whether it is, or belongs to, the
// answer to a probe. A far end whose interface is too narrow to answer whole sends
// fragments, of which the first says enough.
func (p *peer) answer(ip header.IPv6) bool {
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
	p.heardAnswer(m)
	return true
}

// answersBetween takes an inner packet, and reports whether it answers a probe between
// two inner addresses. Like all that is carried, it is not looked at further than
// needed.
func (p *peer) answersBetween(between []config.Pair, inner []byte) bool {
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
	if !p.echo.IsReply(m, reply) || !slices.ContainsFunc(between, func(pair config.Pair) bool { return is(from, pair.Remote) && is(to, pair.Local) }) {
		return false
	}
	p.heardAnswer(m)
	return true
}

// is reports whether an address in a packet is another one.
func is(b []byte, a netip.Addr) bool {
	in, _ := netip.AddrFromSlice(b)
	return in == a
}

// heardAnswer tells who has sent the probe of a reply.
func (p *peer) heardAnswer(m []byte) {
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
		return // more than anybody was asked for
	}
	p.echo.answered.Add(1)
	select {
	case p.t.prober.answers <- answer{p, seq}:
	default: // so many at once nobody asked for
	}
}

// answersOuter takes an ICMP packet to an outer address of ours, and reports whether
// it answers the probe of a peer's outer address.
func answersOuter(pkt []byte, zone uint32, t *table) bool {
	reply, m := byte(icmp.EchoReply4), []byte(nil)
	var sent []byte // the beginning of what it answers
	if header.Version(pkt) == 6 {
		ip := header.IPv6(pkt)
		reply, m = icmp.EchoReply6, ip.Payload()
		sent = slices.Concat(ip[:8], ip.Dest(), ip.Source())
	} else {
		ip := header.IPv4(pkt)
		m = ip.Payload()
		sent = slices.Concat(ip[:12], ip.Dest(), ip.Source())
	}
	if len(m) == 0 || m[0] != reply {
		return false
	}
	if e := t.about(sent, zone, func(e *end) bool { return e.peer.echo.IsReply(m, reply) }); e != nil {
		e.peer.t.show(&capture.Packet{Direction: pcapng.Inbound, Outer: whole(pkt), Note: noteProbed})
		e.peer.heardAnswer(m)
	}
	return true
}

// fragmentSeen tells an identification that was seen from none.
const fragmentSeen = 1 << 32

// fragmentID is the identification in the fragment header with which a packet
// begins (RFC 8200 section 4.5).
func fragmentID(ip header.IPv6) uint32 { return binary.BigEndian.Uint32(ip[header.IPv6Len+4:]) }
