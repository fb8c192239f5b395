// Package probe makes the packets that test a tunnel: echo requests between the two ends of
// a layer. They go through the tunnel like any other packet, and any host at the other end
// answers them.
package probe

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
)

// Ends returns the addresses between which probes go through a tunnel: those of its
// innermost IPv6 layer whose payload is not IPv6, or otherwise the link-local addresses of
// the ends of a protocol-41 tunnel (RFC 4213 section 3.7), which a kernel assigns itself.
// If ok is false, no such addresses are known, and none need answer.
func Ends(layers []encap.Layer) (local, remote netip.Addr, ok bool) {
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

// Layout of a probe: an ICMP or ICMPv6 echo request (RFC 792, RFC 4443 section 4.1) whose
// data begin with a cookie. Offsets are in bytes from the start of the ICMP message; Len is
// the least length of that message.
const (
	IDAt     = 4
	SeqAt    = 6
	CookieAt = 8
	Len      = CookieAt + 8
)

// HopLimit is the hop limit between neighbours, without a router (RFC 4861 section 7.1).
const HopLimit = 255

// Identity identifies the probes of one sender among other echo requests. It is immutable.
type Identity struct {
	ID     uint16
	Cookie [8]byte
}

// NewIdentity returns a random identity.
func NewIdentity() Identity {
	i := Identity{ID: uint16(rand.Uint32())}
	binary.BigEndian.PutUint64(i.Cookie[:], rand.Uint64())
	return i
}

// Fill makes pkt, which must be all zeros, a probe of len(pkt) bytes, at least the IP header
// and Len. Both addresses must be of one IP version. An IPv4 probe has DF set.
func (i Identity) Fill(pkt []byte, local, remote netip.Addr, seq uint16) {
	var m []byte
	var sum uint32
	typ := byte(icmp.EchoRequest6)
	if local.Is4() {
		ip := header.IPv4(pkt)
		ip[0], ip[8], ip[9] = 0x45, HopLimit, header.ICMP
		binary.BigEndian.PutUint16(ip[2:], uint16(len(pkt)))
		binary.BigEndian.PutUint16(ip[6:], header.DF)
		copy(ip.Source(), local.AsSlice())
		copy(ip.Dest(), remote.AsSlice())
		ip.SetChecksum()
		m, typ = ip.Payload(), icmp.EchoRequest4
	} else {
		ip := header.IPv6(pkt)
		ip[0], ip[6], ip[7] = 0x60, header.ICMPv6, HopLimit
		binary.BigEndian.PutUint16(ip[4:], uint16(len(pkt)-header.IPv6Len))
		copy(ip.Source(), local.AsSlice())
		copy(ip.Dest(), remote.AsSlice())
		m = ip.Payload()
		sum = header.PseudoSum(ip.Source(), ip.Dest(), len(m), header.ICMPv6)
	}
	m[0] = typ
	binary.BigEndian.PutUint16(m[IDAt:], i.ID)
	binary.BigEndian.PutUint16(m[SeqAt:], seq)
	copy(m[CookieAt:], i.Cookie[:])
	binary.BigEndian.PutUint16(m[2:], ^header.Sum(m, sum))
}

// IsReply reports whether an ICMP message is the reply to a probe. Typ is the type of echo
// replies in its IP version.
func (i Identity) IsReply(m []byte, typ byte) bool {
	return len(m) >= Len && m[0] == typ && binary.BigEndian.Uint16(m[IDAt:]) == i.ID && [8]byte(m[CookieAt:]) == i.Cookie
}
