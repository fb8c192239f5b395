package resolve

import (
	"errors"
	"net/netip"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Clients is the mechanism of a broker. Behind each of its clients is an inner prefix, which
// a table has. The clients are reached through connections of several protocols, and not at
// outer addresses, so their outer addresses are handles: numbers that the table gives out, in
// the form of addresses of ClientHandles.
//
// Link-local and multicast packets are drop.Martian. An inner source that is not the client's
// is drop.Spoof. A packet from a client to its own prefix is drop.Loop, because it would come
// back to the client.
type Clients struct{ Table *ClientTable }

// ClientHandles has the handles of clients. These addresses are reserved (RFC 1112 section 4),
// so that no host has one.
var ClientHandles = netip.MustParsePrefix("240.0.0.0/4")

// ClientLocal is the outer address of a broker's own end, at which the handles are valid. It is
// one that each host has.
var ClientLocal = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Hosts is empty: there are no relays.
func (Clients) Hosts() []Host { return nil }

// Resolver returns the resolver, which is the same at each site.
func (m Clients) Resolver(Site) (Resolver, error) {
	if m.Table == nil {
		return nil, errors.New("broker: there is no table of clients")
	}
	return (*clients)(m.Table), nil
}

type clients ClientTable

// To returns the handle of the client to whose prefix the packet goes.
func (r *clients) To(inner []byte) (Endpoint, drop.Reason) {
	n, ok := (*ClientTable)(r).behind.Load().Lookup(header.IPv6(inner).Dst())
	if !ok {
		return Endpoint{}, drop.NoPeer
	}
	return Endpoint4(n), drop.None
}

// From accepts packets from the prefix, and from the end of the tunnel, of the client with a
// handle.
func (r *clients) From(from, _ Endpoint, b []byte) drop.Reason {
	c := (*ClientTable)(r).At(from.IPv4())
	if c == nil {
		return drop.ForeignSource
	}
	return c.Sends(b)
}
