// Package node has the three kinds of Teredo nodes: client, server and relay (RFC 4380, RFC
// 5991, RFC 6081). Each is a resolve.Mechanism, whose resolver is an agent that is passed the
// time and opens no sockets.
package node

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"sixfour/encap/drop"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/encap/teredo"
)

// base has what all kinds of nodes have in common.
type base struct {
	local  uint32
	own    []uint32 // addresses of this host, including local
	bcast  []uint32 // broadcast addresses of the host's subnets
	strict bool
	out    []resolve.Message // to send with the next call of Next
	why    drop.Reason       // why the last packet was dropped
}

// maxOut is how many messages may wait to be sent. One that does not fit is dropped, and the
// node that asked asks again.
const maxOut = 256

func newBase(at resolve.Site) (base, error) {
	if !at.Local.Is4() || at.Local.IsLoopback() || at.Local.IsMulticast() || at.Local.IsUnspecified() {
		return base{}, fmt.Errorf("teredo: local address %v: the mechanism needs an IPv4 address of this host: set local to one", at.Local)
	}
	b := base{local: word(at.Local), strict: at.Strict}
	b.own = []uint32{b.local}
	for _, l := range at.Links {
		if !l.Addr().Is4() {
			continue
		}
		a := word(l.Addr())
		b.own = append(b.own, a)
		if l.Bits() < 31 {
			b.bcast = append(b.bcast, a|(1<<(32-l.Bits())-1))
		}
	}
	return b, nil
}

func word(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// reachable reports whether packets may be sent to a mapping that an address contains: it is
// that of a host on the Internet (RFC 4380 section 5.2.4), and not one of ours.
func (b *base) reachable(m teredo.Mapping) bool {
	const anycast6to4 = 0xc05863 // 192.88.99.0/24
	return m.Port != 0 && !resolve.Martian4(m.Addr, b.strict) && m.Addr>>8 != anycast6to4 && !slices.Contains(b.bcast, m.Addr) && !slices.Contains(b.own, m.Addr)
}

// send puts the payload of a datagram into the outbox.
func (b *base) send(to teredo.Mapping, payload []byte) {
	if len(b.out) < maxOut {
		b.out = append(b.out, resolve.Message{To: endpoint(to), Bytes: payload, Raw: true})
	}
}

// forward puts an inner packet into the outbox.
func (b *base) forward(to teredo.Mapping, packet []byte) bool {
	if len(b.out) >= maxOut {
		return false
	}
	b.out = append(b.out, resolve.Message{To: endpoint(to), Bytes: packet})
	return true
}

func (b *base) take() []resolve.Message {
	out := b.out
	b.out = nil
	return out
}

// Refused returns why the last packet was dropped.
func (b *base) Refused() drop.Reason { return b.why }

func endpoint(m teredo.Mapping) resolve.Endpoint {
	e := resolve.Endpoint4(m.Addr)
	e.Port = m.Port
	return e
}

func mapping(e resolve.Endpoint) teredo.Mapping { return teredo.Mapping{Addr: e.IPv4(), Port: e.Port} }

// isGlobal reports whether an address is a unicast address of the Internet outside Teredo.
func isGlobal(a header.Word6) bool { return a.Hi>>61 == 1 && !teredo.Is(a) }

// entry describes a peer for status.
func (p *peer) entry() (e resolve.Entry) {
	e.Node, e.State = p.addr.Addr(), "incomplete"
	if v := p.link.Load(); v != 0 {
		e.Link, e.State = unpack(v).AddrPort(), "reachable"
		if p.asking {
			e.State = "probe"
		}
	}
	return e
}

// framed is embedded in the mechanisms: their framing has their port.
type framed struct{ Port uint16 }

// Framing returns the framing of the node's packets.
func (f framed) Framing() framing.Framing { return framing.Teredo{Local: f.Port} }

// source returns the reason why an outer source cannot be a node, or drop.None.
func (b *base) source(m teredo.Mapping) drop.Reason {
	if m.Port == 0 || m.Addr>>24 == 0 || m.Addr>>24 == 127 || m.Addr >= 224<<24 || slices.Contains(b.bcast, m.Addr) {
		return drop.Martian
	}
	return drop.None
}
