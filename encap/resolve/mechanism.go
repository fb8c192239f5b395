package resolve

import (
	"net/netip"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Resolver is the address part of an automatic tunnel mechanism. It finds the outer IPv4
// addresses of IPv6 packets in the packets themselves, and checks received packets by
// them. It may be used concurrently. Its methods allocate nothing.
type Resolver interface {
	// To returns the outer destination of an IPv6 packet that is about to be sent; ip
	// needs only the IPv6 header. To may rewrite the packet's addresses. The reason
	// drop.Unresolved means that the address is not known yet: then the resolver is a
	// Speaker, and Hold can keep the packet.
	To(ip header.IPv6) (dst uint32, r drop.Reason)
	// From checks whether an IPv6 packet may have arrived in the packet outer, whose
	// destination is an address of ours or a group that we joined. header.Parse has
	// accepted both. From may rewrite the inner packet's addresses.
	From(outer header.IPv4, inner header.IPv6) drop.Reason
}

// Mechanism is the configuration of an automatic tunnel. It builds the resolver for a
// site. It is immutable.
type Mechanism interface {
	// Hosts returns the outer hosts that the mechanism needs: relays and routers, the
	// most important first.
	Hosts() []Host
	// Resolver returns the resolver for a site. An error says why the mechanism cannot
	// work there.
	Resolver(at Site) (Resolver, error)
}

// Warner is a Mechanism that has warnings for its user.
type Warner interface {
	Mechanism
	Warnings() []string
}

// Delegator is a Mechanism that derives an IPv6 prefix from each outer address.
type Delegator interface {
	Mechanism
	// Delegated returns the prefix of the node with the outer address local.
	Delegated(local netip.Addr) (netip.Prefix, error)
}

// HostPolicy is a Mechanism that may not need its hosts. Without it, the hosts carry all
// packets whose destination has no embedded outer address, so one of them must be another
// host, and the hosts are watched.
type HostPolicy interface {
	Mechanism
	// NeedsHosts reports whether one of Hosts must be another host that carries packets.
	NeedsHosts() bool
}

// NeedsHosts reports whether one of the hosts of a mechanism, if it has any, must be
// another host that carries packets, and is to be watched.
func NeedsHosts(m Mechanism) bool {
	p, ok := m.(HostPolicy)
	return !ok || p.NeedsHosts()
}

// Restricted is a Mechanism that drops packets from some addresses of the interface.
type Restricted interface {
	Mechanism
	// Sources returns the prefix from which a node with the outer address local may send.
	// Ok is false if there is no such limit.
	Sources(local netip.Addr) (p netip.Prefix, ok bool)
}

// Returner is a Mechanism whose relays forward a packet to one of our inner addresses back
// to us, so that such a packet shows whether a relay works.
type Returner interface {
	Mechanism
	// ProbeAddress returns the inner address for regular probes of the relays, for a node
	// with the outer address local. It is invalid if the relays must not be probed
	// regularly.
	ProbeAddress(local netip.Addr) netip.Addr
}

// Site describes the host on which a mechanism runs.
type Site struct {
	Local  netip.Addr     // outer IPv4 address
	Own    []netip.Prefix // the interface's addresses
	Hosts  [][]netip.Addr // the addresses of each of Mechanism.Hosts; none while a name cannot be resolved
	Down   []netip.Addr   // those of Hosts that do not answer: they are used last
	Strict bool           // as in Martian4

	// Links are this host's IPv4 addresses, each with the length of its subnet: neither
	// they nor the subnets' broadcast addresses are valid remote addresses (RFC 3964
	// sections 4.1.4 and 5.1). Delegated are the 6rd prefixes delegated to this host by
	// any tunnel: packets of one mechanism must not enter another (RFC 6324). Elsewhere
	// are the IPv6 subnets of the host's other links: a router of the mechanism must not
	// claim them as its own. All may be empty.
	Links     []netip.Prefix
	Delegated []netip.Prefix
	Elsewhere []netip.Prefix
}

// Host is an outer host. Exactly one of its address and its DNS name is set.
type Host struct {
	Addr netip.Addr
	Name string
}

// Speaker is a Resolver that sends neighbour discovery messages itself. The methods of
// this interface must not be called concurrently; To and From may be called at any time.
type Speaker interface {
	Resolver
	// Hear handles a neighbour discovery packet (nd.Is) that From accepted. If done is
	// false, the packet is also for the interface. Hear does not retain the packet.
	Hear(from uint32, ip header.IPv6, now time.Time) (done bool)
	// Hold keeps a copy of a packet for which To returned drop.Unresolved, and reports
	// whether there was room. Next returns the packet later as one of its messages, at
	// once if the neighbour's address is known and only has to be confirmed, or counts it
	// as lost.
	Hold(pkt []byte, now time.Time) bool
	// Next returns the messages to send now, and the time by which to call Next again;
	// zero means only after Hear or Hold. Call it when a tunnel starts, and after each
	// Hear and Hold. All messages must be sent before the next call. They do not go
	// through To, and belong to the caller. Lost is how many held packets were given up
	// since the last call.
	Next(now time.Time) (send []Message, lost int, again time.Time)
	// Learnt returns what the interface should have. It changes only in Hear and Next.
	Learnt() Learnt
}

// Message is an inner packet and the outer address to send it to.
type Message struct {
	To     uint32
	Packet []byte
}

// Learnt is what router advertisements gave the interface. It replaces what was learnt
// before.
type Learnt struct {
	Addresses []Lease
	Default   time.Time // expiry of the default route; zero: there is no default route
	MTU       int       // 0: unspecified
	// Link is the mechanism's own link-local address. It is not learnt and does not
	// expire. It is invalid if there is none.
	Link netip.Prefix
}

// Lease is an address in a prefix that a router advertised, with its lifetimes.
type Lease struct {
	Prefix           netip.Prefix // the address and its length
	Preferred, Valid time.Time
}

// Joiner is a Speaker that must receive IPv4 multicast. Groups returns the groups to
// join on the interface of the local address. They may change when something was learnt.
type Joiner interface {
	Groups() []netip.Addr
}
