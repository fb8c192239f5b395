// Package agent has what the agents of mechanisms have in common whose packets travel in UDP
// through NATs.
package agent

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
)

// Base is embedded in agents. It knows the addresses of this host, and has the outbox.
type Base struct {
	Local  uint32   // the outer address
	own    []uint32 // addresses of this host, including Local
	bcast  []uint32 // broadcast addresses of the host's subnets
	links  []netip.Prefix
	strict bool
	out    []resolve.Message // to send with the next call of Next
	lost   int               // messages for which there was no room in out
	Why    drop.Reason       // why the last packet that was passed to Receive was dropped
}

// maxOut is how many messages may wait to be sent. One that does not fit is dropped and
// counted, and the node that asked asks again.
const maxOut = 256

// NewBase returns the Base for a site. Mode is for errors.
func NewBase(mode string, at resolve.Site) (Base, error) {
	if !at.Local.Is4() || at.Local.IsLoopback() || at.Local.IsMulticast() || at.Local.IsUnspecified() {
		return Base{}, fmt.Errorf("%s: local address %v: the mechanism needs an IPv4 address of this host: set local to one", mode, at.Local)
	}
	b := Base{Local: Word(at.Local), strict: at.Strict}
	b.own = []uint32{b.Local}
	for _, l := range at.Links {
		if !l.Addr().Is4() {
			continue
		}
		b.links = append(b.links, l)
		a := Word(l.Addr())
		b.own = append(b.own, a)
		if l.Bits() < 31 {
			b.bcast = append(b.bcast, a|(1<<(32-l.Bits())-1))
		}
	}
	return b, nil
}

// Word returns an IPv4 address as a number.
func Word(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// Reachable reports whether packets may be sent to a mapping that an address contains: it is
// that of a host on the Internet (RFC 4380 section 5.2.4), and not one of ours.
func (b *Base) Reachable(m header.Mapping) bool {
	const anycast6to4 = 0xc05863 // 192.88.99.0/24
	return m.Port != 0 && !resolve.Martian4(m.Addr, b.strict) && m.Addr>>8 != anycast6to4 && !slices.Contains(b.bcast, m.Addr) && !slices.Contains(b.own, m.Addr)
}

// OnLink reports whether an address is one of another host in a subnet of this host.
func (b *Base) OnLink(a uint32) bool {
	at := header.Mapping{Addr: a}.AddrPort().Addr()
	return !slices.Contains(b.own, a) && !slices.Contains(b.bcast, a) && slices.ContainsFunc(b.links, func(l netip.Prefix) bool { return l.Contains(at) })
}

// Send puts the payload of a datagram into the outbox.
func (b *Base) Send(to header.Mapping, payload []byte) { b.SendFrom(netip.AddrPort{}, to, payload) }

// SendFrom is Send for a datagram from another address or port of ours (resolve.Message.From).
func (b *Base) SendFrom(from netip.AddrPort, to header.Mapping, payload []byte) {
	if !b.Room(1) {
		b.lost++
		return
	}
	b.out = append(b.out, resolve.Message{To: Endpoint(to), Bytes: payload, Raw: true, From: from})
}

// SendTTL is Send for a datagram with a TTL of its own, such as one that only has to pass the NAT.
func (b *Base) SendTTL(to header.Mapping, payload []byte, ttl byte) {
	n := len(b.out)
	if b.Send(to, payload); len(b.out) > n {
		b.out[n].TTL = ttl
	}
}

// Room reports whether there is room for n messages in the outbox.
func (b *Base) Room(n int) bool { return len(b.out)+n <= maxOut }

// Forward puts an inner packet into the outbox.
func (b *Base) Forward(to header.Mapping, packet []byte) bool {
	if !b.Room(1) {
		return false
	}
	b.out = append(b.out, resolve.Message{To: Endpoint(to), Bytes: packet})
	return true
}

// Take empties the outbox. Lost is how many messages there was no room for, besides those that
// Refused has reported.
func (b *Base) Take() (out []resolve.Message, lost int) {
	out, lost = b.out, b.lost
	b.out, b.lost = nil, 0
	return out, lost
}

// Own adds addresses of this host.
func (b *Base) Own(addrs ...uint32) { b.own = append(b.own, addrs...) }

// Owns reports whether an address is one of this host.
func (b *Base) Owns(a uint32) bool { return slices.Contains(b.own, a) }

// Refused returns why the last packet was dropped. One whose answer has no room in the outbox
// is dropped, too.
func (b *Base) Refused() drop.Reason {
	full := b.lost > 0
	b.lost = 0
	if full && b.Why == drop.None {
		return drop.Limited
	}
	return b.Why
}

// Endpoint returns the endpoint at a mapping.
func Endpoint(m header.Mapping) resolve.Endpoint {
	e := resolve.Endpoint4(m.Addr)
	e.Port = m.Port
	return e
}

// MappingOf returns the mapping at an endpoint, whose address is one of IPv4.
func MappingOf(e resolve.Endpoint) header.Mapping {
	return header.Mapping{Addr: e.IPv4(), Port: e.Port}
}

// Source returns the reason why an outer source cannot be a node, or drop.None.
func (b *Base) Source(m header.Mapping) drop.Reason {
	if m.Port == 0 || m.Addr>>24 == 0 || m.Addr>>24 == 127 || m.Addr >= 224<<24 || slices.Contains(b.bcast, m.Addr) {
		return drop.Martian
	}
	return drop.None
}
