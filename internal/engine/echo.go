package engine

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/pathmtu"
)

// echo is how a peer's probes are told from other echo requests. Each kind of them
// has sequence numbers of its own.
type echo struct {
	id       uint16
	cookie   [7]byte
	probes   atomic.Uint64
	answered atomic.Uint64
	pieces   atomic.Uint64 // identification of the last answer in fragments, and fragmentSeen
}

func newEcho() *echo {
	e := &echo{id: uint16(rand.Uint32())}
	for i := range e.cookie {
		e.cookie[i] = byte(rand.Uint32())
	}
	return e
}

// kind is what a probe is for.
type kind byte

// Probes find the path's MTU, or are asked for by an operator, or tell whether the
// peer lives: those have further kinds, from there on, by the way in which they go.
const (
	kindPathMTU kind = iota
	kindAsked
	kindLife
)

// probeEnds are the addresses between which probes go through a tunnel: those of
// its innermost IPv6 layer that IPv6 packets do not enter, or else the link-local
// ones that the ends of a protocol-41 tunnel have by RFC 4213 section 3.7, which a
// kernel has given itself. Not ok means that nobody need be there.
func probeEnds(layers []encap.Layer) (local, remote netip.Addr, ok bool) {
	for i, l := range layers {
		switch {
		case !l.Kind.Carries(6):
			continue
		case i > 0 && layers[i-1].Kind.Over() == 6:
			return layers[i-1].Local, layers[i-1].Remote, true
		case l.Kind == encap.SixInFour && l.Resolver == nil:
			return linkLocal(l.Local), linkLocal(l.Remote), true
		}
		break
	}
	return local, remote, false
}

func linkLocal(a netip.Addr) netip.Addr {
	v4 := a.As4()
	b := [16]byte{0: 0xfe, 1: 0x80}
	copy(b[12:], v4[:])
	return netip.AddrFrom16(b)
}

// Layout of a probe: an ICMPv6 echo request (RFC 4443 section 4.1) whose data
// begin with a cookie and the kind.
const (
	echoID     = 4
	echoSeq    = 6
	echoCookie = 8
	echoKind   = echoCookie + 7
	echoData   = echoKind + 1
)

// probe sends a probe: through the tunnel, or, where nobody need answer there, to
// the peer's outer address. What does not leave is a probe that is not answered.
func (p *peer) probe(pr *probing, q pathmtu.Packet) {
	path := p.path.Load()
	if !path.is(pr.layers, pr.link) {
		return
	}
	l := path.outer()
	local, remote, inside := probeEnds(path.layers)
	size := q.Size
	if inside {
		size -= pr.stack.Overhead(6) // of the IPv6 packet
	} else {
		local, remote = l.Local, l.Remote
	}
	if size < header.IPv6Len+echoData {
		return
	}
	buf := make([]byte, encap.Headroom+size)
	pkt := buf[encap.Headroom:]
	p.echo.request(pkt, local, remote, kindPathMTU, q.Seq)
	if inside {
		var r drop.Reason
		if pkt, r = pr.stack.Encapsulate(buf, encap.Headroom); r != drop.None {
			return
		}
	}
	p.echo.probes.Add(1) // before the answer can be there
	_ = path.senders[0].SendOne(pkt)
}

// request fills a packet with an echo request.
func (e *echo) request(pkt []byte, local, remote netip.Addr, k kind, seq uint16) {
	var m []byte
	var sum uint32
	typ := byte(icmp.EchoRequest6)
	if local.Is4() {
		ip := header.IPv4(pkt)
		ip[0], ip[8], ip[9] = 0x45, probeHopLimit, header.ICMP
		binary.BigEndian.PutUint16(ip[2:], uint16(len(pkt)))
		binary.BigEndian.PutUint16(ip[6:], header.DF)
		copy(ip.Source(), local.AsSlice())
		copy(ip.Dest(), remote.AsSlice())
		ip.SetChecksum()
		m, typ = ip.Payload(), icmp.EchoRequest4
	} else {
		ip := header.IPv6(pkt)
		ip[0], ip[6], ip[7] = 0x60, header.ICMPv6, probeHopLimit
		binary.BigEndian.PutUint16(ip[4:], uint16(len(pkt)-header.IPv6Len))
		copy(ip.Source(), local.AsSlice())
		copy(ip.Dest(), remote.AsSlice())
		m = ip.Payload()
		sum = header.PseudoSum(ip.Source(), ip.Dest(), len(m), header.ICMPv6)
	}
	m[0] = typ
	binary.BigEndian.PutUint16(m[echoID:], e.id)
	binary.BigEndian.PutUint16(m[echoSeq:], seq)
	copy(m[echoCookie:], e.cookie[:])
	m[echoKind] = byte(k)
	binary.BigEndian.PutUint16(m[2:], ^header.Sum(m, sum))
}

// probeHopLimit is that of neighbours, who need no router (RFC 4861 section 7.1).
const probeHopLimit = 255

// sent reports whether a quoted inner packet is a probe.
func (e *echo) sent(inner []byte) bool {
	if header.Version(inner) != 6 || len(inner) < header.IPv6Len+echoSeq {
		return false
	}
	ip := header.IPv6(inner)
	m := ip.Payload()
	return ip.NextHeader() == header.ICMPv6 && m[0] == icmp.EchoRequest6 && binary.BigEndian.Uint16(m[echoID:]) == e.id
}

// proves reports whether a quoted inner packet is a probe beyond doubt: its cookie
// is quoted, too.
func (e *echo) proves(inner []byte) bool {
	return e.sent(inner) && len(inner) >= header.IPv6Len+echoData && [7]byte(inner[header.IPv6Len+echoCookie:]) == e.cookie
}

// answer takes a packet to our end, and reports whether it is, or belongs to, the
// answer to a probe. A far end whose interface is too narrow to answer whole sends
// fragments, of which the first says enough.
func (p *peer) answer(ip header.IPv6) bool {
	next, off, later := header.FindUpper(ip)
	if next != header.ICMPv6 || off > len(ip) {
		return false
	}
	fragmented := ip.NextHeader() == header.FragmentHdr && len(ip) >= header.IPv6Len+fragment.HeaderLen
	if later {
		return fragmented && uint64(fragmentID(ip))|fragmentSeen == p.echo.pieces.Load()
	}
	m := ip[off:]
	if !p.echo.isReply(m, icmp.EchoReply6) {
		return false
	}
	if fragmented {
		p.echo.pieces.Store(uint64(fragmentID(ip)) | fragmentSeen)
	}
	p.heardAnswer(m)
	return true
}

// isReply reports whether a message is the reply to a probe.
func (e *echo) isReply(m []byte, typ byte) bool {
	return len(m) >= echoData && m[0] == typ && binary.BigEndian.Uint16(m[echoID:]) == e.id && [7]byte(m[echoCookie:]) == e.cookie
}

// heardAnswer tells who has sent the probe of a reply.
func (p *peer) heardAnswer(m []byte) {
	k, seq := kind(m[echoKind]), binary.BigEndian.Uint16(m[echoSeq:])
	switch {
	case k == kindAsked:
		p.asked.answer(seq)
		return
	case k >= kindLife:
		p.t.keeper.answer(p, k-kindLife, seq, m)
		return
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
func answersOuter(pkt []byte, t *table) bool {
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
	if e := t.about(sent, func(e *end) bool { return e.peer.echo.isReply(m, reply) }); e != nil {
		e.peer.heardAnswer(m)
	}
	return true
}

// fragmentSeen tells an identification that was seen from none.
const fragmentSeen = 1 << 32

// fragmentID is the identification in the fragment header with which a packet
// begins (RFC 8200 section 4.5).
func fragmentID(ip header.IPv6) uint32 { return binary.BigEndian.Uint32(ip[header.IPv6Len+4:]) }
