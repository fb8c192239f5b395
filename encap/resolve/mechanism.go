package resolve

import (
	"net/netip"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Resolver is the address part of an automatic tunnel mechanism. It finds the outer
// destinations of packets in the packets themselves, and checks received packets by them.
// It may be used concurrently. Its methods allocate nothing.
//
// A resolver gets IPv6 packets only, unless it is a DualResolver. The endpoints are of the IP
// version of the layer's delivery header.
type Resolver interface {
	// To returns the outer destination of an inner packet that is about to be sent, of
	// which only the IP header is needed. To may rewrite the packet's addresses. The reason
	// drop.Unresolved means that the address is not known yet: then the resolver is an
	// Agent, and Hold can keep the packet.
	To(inner []byte) (Endpoint, drop.Reason)
	// From checks whether an inner packet may have arrived in a packet from one endpoint
	// at another, which is an address of ours or a group that we joined. header.Parse has
	// accepted both packets. From may rewrite the inner packet's addresses.
	From(from, at Endpoint, inner []byte) drop.Reason
}

// DualResolver is a Resolver that also gets IPv4 packets, in a layer that carries them.
type DualResolver interface {
	Resolver
	CarriesIPv4()
}

// CompatibleResolver is a Resolver that accepts IPv4-compatible addresses, ::/96, as
// inner sources.
type CompatibleResolver interface {
	Resolver
	Compatible()
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

// Served is a Mechanism whose hosts receive packets at one UDP port.
type Served interface {
	Mechanism
	HostPort() uint16
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
	Local  netip.Addr     // outer address, of the IP version of the layer
	Own    []netip.Prefix // the interface's addresses
	Hosts  [][]netip.Addr // the addresses of each of Mechanism.Hosts; none while a name cannot be resolved
	Down   []netip.Addr   // those of Hosts that do not answer: they are used last
	Strict bool           // as in Martian4

	Counters Counters // nil: there are none

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

// Counters are numbers that only increase, whatever the clock does, and after a restart, too. Each
// is in a file. Any goroutine may use them.
type Counters interface {
	// Reserve reserves count numbers and returns the first of them: it is at least least, and
	// greater than all that were reserved before.
	Reserve(file string, least, count uint64) uint64
}

// Counted is a Mechanism that uses a counter. CounterFile is its file; "": it uses none.
type Counted interface {
	Mechanism
	CounterFile() string
}

// Host is an outer host. Exactly one of its address and its DNS name is set.
type Host struct {
	Addr netip.Addr
	Name string
}

// Agent is a Resolver that exchanges control packets itself, such as neighbour discovery
// messages. The methods of this interface must not be called concurrently, except for To,
// From and Wants, which may be called at any time.
type Agent interface {
	Resolver
	// Wants reports whether a received packet is for Receive. It is called for every packet
	// that From accepted, and for what a framing recognized as a control message of its
	// own, which may begin with anything.
	Wants(inner []byte) bool
	// Receive handles a packet that Wants accepted. If done is false, the packet is also for
	// the interface. Receive does not retain the packet.
	Receive(o header.Outer, inner []byte, now time.Time) (done bool)
	// Hold keeps a copy of a packet for which To returned drop.Unresolved, and reports
	// whether there was room. Next returns the packet later as one of its messages, at
	// once if the neighbour's address is known and only has to be confirmed, or counts it
	// as lost.
	Hold(pkt []byte, now time.Time) bool
	// Next returns the messages to send now, and the time by which to call Next again;
	// zero means only after Receive or Hold. Call it when a tunnel starts, and after each
	// Receive and Hold. All messages must be sent before the next call. They do not go
	// through To, and belong to the caller. Lost is how many held packets and messages were
	// given up since the last call.
	Next(now time.Time) (send []Message, lost int, again time.Time)
	// Learnt returns what the interface should have. It changes only in Receive and Next.
	Learnt() Learnt
	// Entries returns what the agent knows of other nodes, for status.
	Entries(now time.Time) []Entry
}

// Refuser is an Agent that drops some of the packets that are passed to Receive. Refused
// returns the reason why the last one was dropped, or drop.None.
type Refuser interface {
	Agent
	Refused() drop.Reason
}

// Qualifier is an Agent that is of use only while a server or router has told it where it is.
// Mapped returns the address and port that it has there, or why it has none. Both are zero
// before the first answer is late.
type Qualifier interface {
	Agent
	Mapped() (at netip.AddrPort, why string)
}

// Busy is an Agent that serves many nodes. PerSecond is how many messages in a second it can
// be passed; others are passed a thousand.
type Busy interface {
	Agent
	PerSecond() int
}

// Message is what an agent sends to an outer destination: an inner packet or, if Raw is set,
// the payload of a datagram that is not encapsulated. From is where a datagram comes from: its
// address is one of those of a Joiner, or invalid for the local address; its port is that of the
// framing, or that of control messages, or 0 for the former. TTL is that of a datagram, or 0 for
// the one of the tunnel.
type Message struct {
	To    Endpoint
	Bytes []byte
	Raw   bool
	From  netip.AddrPort
	TTL   byte
}

// Entry is what an agent knows of another node.
type Entry struct {
	Node  netip.Addr     // its inner address, or the first of its prefix
	Bits  int            // length of the prefix; 0: it is one address
	Link  netip.AddrPort // its outer address; invalid: not known
	State string         // one word, such as reachable (RFC 4861 section 7.3.2)
	Age   time.Duration  // since the node was last heard of, or a packet sent to it
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

// Joiner is an Agent that must receive packets at more than the local address. Groups returns
// the IPv4 multicast groups to join on the interface of the local address, which may change
// when something was learnt; or, with a framing that has ports, further addresses of this
// host, and at most one group, which is joined at its port for groups.
type Joiner interface {
	Groups() []netip.Addr
}
