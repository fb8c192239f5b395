// Package resolve determines the outer addresses of packets, and checks whether an inner
// packet may come from the peer that sent it.
package resolve

import (
	"encoding/binary"
	"net/netip"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Fixed is the resolver of a configured tunnel: all packets go to one peer, and packets
// are accepted only from that peer.
type Fixed struct {
	Local, Remote netip.Addr // of the same IP version

	// The same addresses as they are in a header.
	local6, remote6 header.Word6
	local4, remote4 uint32
}

// NewFixed returns the resolver between two addresses of one IP version. In a layer that
// finds the remote address in each packet, remote is the zero Addr, and the resolver
// knows only the local address.
func NewFixed(local, remote netip.Addr) Fixed {
	f := Fixed{Local: local, Remote: remote}
	if local.Is4() {
		l := local.As4()
		f.local4 = binary.BigEndian.Uint32(l[:])
		if remote.Is4() {
			r := remote.As4()
			f.remote4 = binary.BigEndian.Uint32(r[:])
		}
	} else {
		l, r := local.As16(), remote.As16()
		f.local6, f.remote6 = header.ReadWord6(l[:]), header.ReadWord6(r[:])
	}
	return f
}

// Accepts4 returns drop.None if an IPv4 packet is from the peer to us, and otherwise the
// reason to drop it (RFC 4213 section 3.6).
func (f *Fixed) Accepts4(ip header.IPv4) drop.Reason {
	switch {
	case binary.BigEndian.Uint32(ip.Dest()) != f.local4:
		return drop.ForeignDestination
	case binary.BigEndian.Uint32(ip.Source()) != f.remote4:
		return drop.ForeignSource
	}
	return drop.None
}

// Accepts6 returns drop.None if an IPv6 packet is from the peer to us, and otherwise the
// reason to drop it (RFC 2473 section 3.2).
func (f *Fixed) Accepts6(ip header.IPv6) drop.Reason {
	switch {
	case header.ReadWord6(ip.Dest()) != f.local6:
		return drop.ForeignDestination
	case header.ReadWord6(ip.Source()) != f.remote6:
		return drop.ForeignSource
	}
	return drop.None
}

// Accepts returns drop.None if a packet is from the peer to us, and otherwise the reason to
// drop it.
func (f *Fixed) Accepts(o header.Outer) drop.Reason {
	switch {
	case o.At.Addr() != f.Local:
		return drop.ForeignDestination
	case o.From.Addr() != f.Remote:
		return drop.ForeignSource
	}
	return drop.None
}

// Sends4 reports whether an IPv4 packet is from us to the peer.
func (f *Fixed) Sends4(ip header.IPv4) bool {
	return binary.BigEndian.Uint32(ip.Source()) == f.local4 && binary.BigEndian.Uint32(ip.Dest()) == f.remote4
}

// From4 reports whether an IPv4 packet is from us.
func (f *Fixed) From4(ip header.IPv4) bool {
	return binary.BigEndian.Uint32(ip.Source()) == f.local4
}

// From6 reports whether an IPv6 packet is from us.
func (f *Fixed) From6(ip header.IPv6) bool { return header.ReadWord6(ip.Source()) == f.local6 }

// Sends6 reports whether an IPv6 packet is from us to the peer.
func (f *Fixed) Sends6(ip header.IPv6) bool {
	return header.ReadWord6(ip.Source()) == f.local6 && header.ReadWord6(ip.Dest()) == f.remote6
}
