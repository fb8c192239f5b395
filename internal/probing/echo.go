// Package probing sends the probes of a path and recognizes their answers among the
// packets that arrive. Path MTU discovery, liveness sessions and the operator's ping send
// probes; package probe has their format.
package probing

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/datapath"
	"sixfour/internal/probe"
)

// Echo sends the probes of one path and recognizes their answers. It implements
// datapath.Probes. Each purpose of probes has its own sequence numbers. Any goroutine may
// call its methods.
type Echo struct {
	probe.Identity
	path     *datapath.Path
	receiver Receiver

	probes   atomic.Uint64         // path MTU probes sent
	answered atomic.Uint64         // path MTU probes answered
	pieces   atomic.Uint64         // identification of the last fragmented answer, with fragmentSeen
	expected atomic.Int64          // liveness probes that may still be answered
	proof    atomic.Pointer[Proof] // nil: Unproven
	asked    asked
	marks    marks
}

// Receiver is passed the answers to the probes of a path. Its methods never block, and any
// goroutine may call them.
type Receiver interface {
	// AnsweredMTU is called for an answer to a path MTU probe.
	AnsweredMTU(seq uint16)
	// AnsweredLiveness is called for an answer to a probe of a liveness session.
	AnsweredLiveness(a LivenessAnswer)
}

// LivenessAnswer is an answer to a probe of a liveness session.
type LivenessAnswer struct {
	Way     Way
	Seq     uint16
	Session uint16 // index of the session
	Pair    int    // with Between: index in the pairs of the path
	At      time.Time
}

// New returns what sends the probes of a path. It passes their answers to the receiver.
func New(path *datapath.Path, r Receiver) *Echo {
	return &Echo{Identity: probe.NewIdentity(), path: path, receiver: r}
}

// Counts returns how many path MTU probes were sent, and how many of them were answered.
func (e *Echo) Counts() (sent, answered uint64) { return e.probes.Load(), e.answered.Load() }

// purpose is the purpose of a probe. It follows the cookie.
type purpose byte

// The purposes of probes: to find the path MTU, to answer an operator, or a liveness
// session. The latter add their way.
const (
	forPathMTU purpose = iota
	forOperator
	forLiveness

	forMarks purpose = 0x40 // to see whether congestion marks reach the peer
)

// Layout of the probes of a request, behind the cookie: the purpose, the index of the
// liveness session, and that of a pair of inner addresses. Offsets are in bytes from the
// start of the ICMP message; requestLen is the least length of the message.
const (
	purposeAt  = probe.Len
	sessionAt  = purposeAt + 1
	pairAt     = sessionAt + 2
	requestLen = pairAt + 1
)

// SendMTUProbe sends a path MTU probe, an outer packet of size bytes, through the tunnel
// or, if no inner address is known to answer, to the peer's outer address. The stack must
// not fragment packets of that size. A probe that cannot be sent counts as unanswered.
func (e *Echo) SendMTUProbe(wire *datapath.Wire, stack *encap.Stack, size int, seq uint16) {
	l := wire.Outer()
	local, remote, inside := e.ends(wire)
	switch {
	case !inside && inConnection(wire):
		return
	case !inside:
		local, remote = l.Local, l.Remote
	case local.Is6():
		size -= stack.Overhead(6)
	default:
		size -= stack.Overhead(4)
	}
	if size < header.IPv6Len+probe.Len {
		return
	}
	buf := make([]byte, encap.Headroom+size)
	pkt := buf[encap.Headroom:]
	e.Fill(pkt, local, remote, seq)
	own := datapath.Own{Buf: buf, Note: datapath.NoteProbe}
	if inside {
		if pair, ok := e.between(wire); ok && pair.Remote == remote {
			limitHops(pkt, pair, wire.Options)
		}
		own.Stack, own.Inner = stack, pkt
	}
	e.probes.Add(1) // before an answer can arrive
	if n := wire.Emit(&own); n != nil && n.Err == nil {
		e.probes.Add(^uint64(0)) // it was never sent
	}
}

// SendLiveness sends a probe of a liveness session.
func (e *Echo) SendLiveness(wire *datapath.Wire, q Request) error {
	q.purpose = forLiveness + purpose(q.Way)
	e.expected.Add(1) // before an answer can arrive
	err := e.send(wire, q)
	if err != nil {
		e.expected.Add(-1)
	}
	return err
}

// Sent reports whether a quoted inner packet is a probe.
func (e *Echo) Sent(inner []byte) bool {
	if header.Version(inner) != 6 || len(inner) < header.IPv6Len+probe.SeqAt {
		return false
	}
	ip := header.IPv6(inner)
	m := ip.Payload()
	return ip.NextHeader() == header.ICMPv6 && m[0] == icmp.EchoRequest6 && binary.BigEndian.Uint16(m[probe.IDAt:]) == e.ID
}

// SentOutside reports whether a quoted packet is a probe of an outer address.
func (e *Echo) SentOutside(quote []byte) bool {
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

// Proves reports whether a quoted inner packet is certainly a probe: the quote includes the
// cookie.
func (e *Echo) Proves(inner []byte) bool {
	return e.Sent(inner) && len(inner) >= header.IPv6Len+probe.Len && [8]byte(inner[header.IPv6Len+probe.CookieAt:]) == e.Cookie
}

// Returned reports whether a packet that no tunnel may carry is a probe of ours that the
// far end returned. If so, it passes the answer on.
func (e *Echo) Returned(pkt []byte) bool {
	wire := e.path.Wire.Load()
	if wire == nil || wire.Life.Every == 0 {
		return false
	}
	outer, r := header.ParseReceived(pkt, header.Version(pkt))
	if r != drop.None {
		return false
	}
	var protocol byte
	var payload []byte
	if header.Version(outer) == 6 {
		ip := header.IPv6(outer)
		protocol, payload = ip.NextHeader(), ip.Payload()
	} else {
		ip := header.IPv4(outer)
		protocol, payload = ip.Protocol(), ip.Payload()
	}
	answer, ok := wire.Outer().Kind.OpenKeepalive(protocol, payload)
	switch {
	case ok:
		if !e.IsReply(answer, 0) {
			return false
		}
		e.PassReply(answer)
		return true
	case protocol == header.ProtoIPv6 && wire.Automatic():
		inner, r := header.ParseIPv6(payload)
		if r != drop.None || inner.NextHeader() != header.ICMPv6 || !e.IsReply(inner.Payload(), icmp.EchoRequest6) {
			return false
		}
		e.PassReply(inner.Payload())
		return true
	}
	return false
}

// Answer handles a packet to our end, and reports whether it is an answer to a probe, or a
// fragment of one.
func (e *Echo) Answer(ip header.IPv6) bool {
	m, ok := e.reply6(ip)
	if m != nil {
		e.pass(m, ecnOf(ip))
	}
	return ok
}

// reply6 reports whether an IPv6 packet is the reply to a probe, or a fragment of one. A far
// end whose interface MTU is too small sends its reply in fragments; the first one is
// sufficient. M is the ICMP message, without what is in later fragments; of these it is nil.
func (e *Echo) reply6(ip header.IPv6) (m []byte, ok bool) {
	up, ok := header.FindUpper(ip)
	if !ok || up.Protocol != header.ICMPv6 {
		return nil, false
	}
	fragmented := ip.NextHeader() == header.FragmentHdr && len(ip) >= header.IPv6Len+fragment.HeaderLen
	if up.Later {
		return nil, fragmented && uint64(fragmentID(ip))|fragmentSeen == e.pieces.Load()
	}
	m = ip[up.Offset:]
	if !e.IsReply(m, icmp.EchoReply6) {
		return nil, false
	}
	if fragmented {
		e.pieces.Store(uint64(fragmentID(ip)) | fragmentSeen)
	}
	return m, true
}

// AnswersBetween reports whether an inner packet answers a probe between two inner
// addresses, or is a fragment of an IPv6 packet that does, and passes the answer on. It
// examines carried packets no more than needed.
func (e *Echo) AnswersBetween(between []probe.Pair, inner []byte) bool {
	var m, from, to []byte
	if header.Version(inner) == 6 {
		ip := header.IPv6(inner)
		if ip.NextHeader() != header.ICMPv6 && ip.NextHeader() != header.FragmentHdr {
			return false
		}
		from, to = ip.Source(), ip.Dest()
	} else {
		ip := header.IPv4(inner)
		if ip.Protocol() != header.ICMP {
			return false
		}
		m, from, to = ip.Payload(), ip.Source(), ip.Dest()
	}
	if !slices.ContainsFunc(between, func(pair probe.Pair) bool { return is(from, pair.Remote) && is(to, pair.Local) }) {
		return false
	}
	ok := false
	if header.Version(inner) == 6 {
		m, ok = e.reply6(inner)
	} else {
		ok = e.IsReply(m, icmp.EchoReply4)
	}
	if ok && m != nil {
		e.pass(m, ecnOf(inner))
	}
	return ok
}

// is reports whether the address in a packet is a.
func is(b []byte, a netip.Addr) bool {
	in, _ := netip.AddrFromSlice(b)
	return in == a
}

// PassReply passes an answer to the sender of the probe.
func (e *Echo) PassReply(m []byte) { e.pass(m, header.NotECT) }

// pass passes an answer to the sender of the probe, with the ECN field that it has inside;
// Not-ECT: it is not known.
func (e *Echo) pass(m []byte, ecn byte) {
	seq := binary.BigEndian.Uint16(m[probe.SeqAt:])
	if len(m) >= requestLen {
		switch k := purpose(m[purposeAt]); {
		case k == forOperator:
			e.asked.answer(seq)
			return
		case k == forMarks:
			e.marks.answered(ecn)
			return
		case k >= forLiveness:
			e.passLiveness(Way(k-forLiveness), seq, m)
			return
		}
	}
	if e.answered.Load() >= e.probes.Load() {
		return // more answers than probes
	}
	e.answered.Add(1)
	e.receiver.AnsweredMTU(seq)
}

// passLiveness passes an answer to a probe of a liveness session to its receiver.
func (e *Echo) passLiveness(way Way, seq uint16, m []byte) {
	if way >= NoWay {
		return
	}
	if e.expected.Add(-1) < 0 { // a peer that repeats its answers must not crowd out others
		e.expected.Add(1)
		return
	}
	e.receiver.AnsweredLiveness(LivenessAnswer{way, seq, binary.BigEndian.Uint16(m[sessionAt:]), int(m[pairAt]), time.Now()})
}

// fragmentSeen marks a stored identification as valid.
const fragmentSeen = 1 << 32

// fragmentID returns the identification in the fragment header at the start of a packet
// (RFC 8200 section 4.5).
func fragmentID(ip header.IPv6) uint32 { return binary.BigEndian.Uint32(ip[header.IPv6Len+4:]) }
