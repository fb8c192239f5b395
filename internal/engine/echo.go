package engine

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/pathmtu"
)

// echo is how a tunnel's probes are told from other echo requests.
type echo struct {
	id       uint16
	cookie   [8]byte
	probes   atomic.Uint64
	answered atomic.Uint64
	pieces   atomic.Uint64 // identification of the last answer in fragments, and fragmentSeen
}

func newEcho() *echo {
	e := &echo{id: uint16(rand.Uint32())}
	binary.BigEndian.PutUint64(e.cookie[:], rand.Uint64())
	return e
}

// probeEnds are the addresses between which a tunnel's probes go: those of its
// IPv6 layer, or else the link-local ones that the ends of a protocol-41 tunnel
// have by RFC 4213 section 3.7, which a kernel has given itself.
func probeEnds(e encap.Endpoints) (local, remote netip.Addr) {
	if e.Local6.IsValid() {
		return e.Local6, e.Remote6
	}
	return linkLocal(e.Local), linkLocal(e.Remote)
}

func linkLocal(a netip.Addr) netip.Addr {
	v4 := a.As4()
	b := [16]byte{0: 0xfe, 1: 0x80}
	copy(b[12:], v4[:])
	return netip.AddrFrom16(b)
}

// Layout of a probe: an ICMPv6 echo request (RFC 4443 section 4.1) whose data
// begin with a cookie.
const (
	echoID     = 4
	echoSeq    = 6
	echoCookie = 8
	echoData   = echoCookie + 8
)

// probe sends a probe. What does not leave is a probe that is not answered.
func (t *tunnel) probe(pr *probing, q pathmtu.Packet) {
	path := t.path.Load()
	if path == nil || path.endpoints != pr.endpoints {
		return
	}
	size := q.Size - pr.stack.Overhead(6) // of the IPv6 packet
	if size < header.IPv6Len+echoData {
		return
	}
	buf := make([]byte, encap.Headroom+size)
	local, remote := probeEnds(pr.endpoints)
	ip := header.IPv6(buf[encap.Headroom:])
	ip[0] = 0x60
	binary.BigEndian.PutUint16(ip[4:], uint16(size-header.IPv6Len))
	ip[6], ip[7] = header.ICMPv6, probeHopLimit
	copy(ip.Source(), local.AsSlice())
	copy(ip.Dest(), remote.AsSlice())
	m := ip.Payload()
	m[0] = icmp.EchoRequest6
	binary.BigEndian.PutUint16(m[echoID:], t.echo.id)
	binary.BigEndian.PutUint16(m[echoSeq:], q.Seq)
	copy(m[echoCookie:], t.echo.cookie[:])
	sum := header.Sum(m, header.PseudoSum(ip.Source(), ip.Dest(), len(m), header.ICMPv6))
	binary.BigEndian.PutUint16(m[2:], ^sum)
	pkt, r := pr.stack.Encapsulate(buf, encap.Headroom)
	if r != drop.None {
		return
	}
	t.echo.probes.Add(1) // before the answer can be there
	_ = path.senders[0].SendOne(pkt)
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
	return e.sent(inner) && len(inner) >= header.IPv6Len+echoData && [8]byte(inner[header.IPv6Len+echoCookie:]) == e.cookie
}

// answer takes a packet to our end, and reports whether it is, or belongs to, the
// answer to a probe. A far end whose interface is too narrow to answer whole sends
// fragments, of which the first says enough.
func (t *tunnel) answer(ip header.IPv6) bool {
	next, off, later := header.FindUpper(ip)
	if next != header.ICMPv6 || off > len(ip) {
		return false
	}
	fragmented := ip.NextHeader() == header.FragmentHdr && len(ip) >= header.IPv6Len+fragment.HeaderLen
	if later {
		return fragmented && uint64(fragmentID(ip))|fragmentSeen == t.echo.pieces.Load()
	}
	m := ip[off:]
	if len(m) < echoData || m[0] != icmp.EchoReply6 || binary.BigEndian.Uint16(m[echoID:]) != t.echo.id || [8]byte(m[echoCookie:]) != t.echo.cookie {
		return false
	}
	if fragmented {
		t.echo.pieces.Store(uint64(fragmentID(ip)) | fragmentSeen)
	}
	if t.echo.answered.Load() >= t.echo.probes.Load() {
		return true // more than anybody was asked for
	}
	t.echo.answered.Add(1)
	select {
	case t.prober.answers <- answer{t, binary.BigEndian.Uint16(m[echoSeq:])}:
	default: // so many at once nobody asked for
	}
	return true
}

// fragmentSeen tells an identification that was seen from none.
const fragmentSeen = 1 << 32

// fragmentID is the identification in the fragment header with which a packet
// begins (RFC 8200 section 4.5).
func fragmentID(ip header.IPv6) uint32 { return binary.BigEndian.Uint32(ip[header.IPv6Len+4:]) }
