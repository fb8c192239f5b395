package encap

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// over4 is a layer whose delivery header is IPv4 (RFC 4213, RFC 2003).
type over4 struct {
	tmpl     [header.IPv4Len]byte // TOS, lengths, ID and checksum are 0
	sum      uint64               // of the template's words
	resolver resolve.Fixed
	carries  int // inner IP version
	field    fields
	df       bool
	id       atomic.Uint32 // of the last packet without DF
}

// newOver4 prepares the layer. DF is set as RFC 4213 3.2.2 asks: whenever the
// path carries 1280 bytes of IPv6, so that fragmentation, which would cost
// every packet of that size, is left to those who must have it.
func newOver4(pair resolve.Fixed, carries int, p PathMTU, o Options) *over4 {
	l := &over4{
		resolver: pair,
		carries:  carries,
		field:    newFields(carries, o.TTL, o),
		df:       !o.StaticMTU && TunnelMTU(int(p)-header.IPv4Len) >= MinTunnelMTU6,
	}
	l.tmpl[0] = 0x45
	if l.df {
		binary.BigEndian.PutUint16(l.tmpl[6:], header.DF)
	}
	l.tmpl[9] = protocolOf(carries)
	src, dst := pair.Local.As4(), pair.Remote.As4()
	copy(l.tmpl[12:], src[:])
	copy(l.tmpl[16:], dst[:])
	l.sum = uint64(header.Sum(l.tmpl[:], 0))
	l.id.Store(rand.Uint32())
	return l
}

// protocolOf is the protocol number that announces an IP version inside.
func protocolOf(version int) byte {
	if version == 4 {
		return header.ProtoIPv4
	}
	return header.ProtoIPv6
}

func (l *over4) Encapsulate(b []byte, off int) (int, drop.Reason) {
	inner := b[off:]
	total := header.IPv4Len + len(inner)
	if total > maxIPv4 {
		return 0, drop.TooBig
	}
	tos, ttl := l.field.of(inner)
	h := (*[header.IPv4Len]byte)(b[off-header.IPv4Len : off])
	*h = l.tmpl
	h[1] = tos
	binary.BigEndian.PutUint16(h[2:], uint16(total))
	h[8] = ttl
	sum := l.sum + uint64(tos) + uint64(total) + uint64(ttl)<<8
	if !l.df {
		id := l.nextID()
		binary.BigEndian.PutUint16(h[4:], id)
		sum += uint64(id)
	}
	binary.BigEndian.PutUint16(h[10:], ^header.Fold(sum))
	return off - header.IPv4Len, drop.None
}

// nextID is the identification of a packet that may be fragmented: never twice
// the same for as long as a 16-bit counter allows (RFC 6864 4.2), and never 0,
// which the kernel would replace. Atomic packets, with DF, have 0.
func (l *over4) nextID() uint16 {
	for {
		if id := uint16(l.id.Add(1)); id != 0 {
			return id
		}
	}
}

func (l *over4) Decapsulate(pkt []byte) ([]byte, bool, drop.Reason) {
	ip := header.IPv4(pkt)
	if r := l.resolver.Accepts4(ip); r != drop.None {
		return nil, false, r
	}
	switch {
	case ip.Protocol() != protocolOf(l.carries):
		return nil, false, drop.UnknownProtocol
	case ip.IsFragment(): // a raw socket reassembles; so nobody else may send us one
		return nil, false, drop.Fragment
	}
	return strip(ip.Payload(), l.carries, ip.TOS())
}

// strip checks the packet inside a delivery header, and brings the congestion
// mark of the delivery header into it.
func strip(payload []byte, version int, outerTOS byte) ([]byte, bool, drop.Reason) {
	inner, r := header.Parse(payload, version)
	if r == drop.None {
		r = decapsulateECN(inner, version, outerTOS&header.ECNMask)
	}
	return inner, true, r
}
