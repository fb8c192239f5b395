package resolve

import (
	"net/netip"
	"time"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Resolver finds the outer IPv4 addresses of IPv6 packets in the packets
// themselves, and judges by them what comes in: it is the address side of an
// automatic mechanism. Any number of goroutines may use it at once. Its methods
// allocate nothing.
type Resolver interface {
	// To is the outer destination of an IPv6 packet that is about to leave, of
	// which the IPv6 header is there. It may rewrite the packet's addresses. The
	// reason drop.Unresolved means that the address is not known yet: then the
	// resolver is a Speaker, which may Hold the packet.
	To(ip header.IPv6) (dst uint32, r drop.Reason)
	// From says whether an IPv6 packet may have come in the packet outer, whose
	// destination is ours, or a group that we joined. Both were checked by
	// header.Parse. It may rewrite the inner packet's addresses.
	From(outer header.IPv4, inner header.IPv6) drop.Reason
}

// Mechanism is what a configuration says of an automatic tunnel, and makes the
// resolver where it runs. It is immutable.
type Mechanism interface {
	// Hosts are the outer hosts that it needs: relays and routers, the most
	// important first.
	Hosts() []Host
	// Resolver is the one for a place. An error says why the mechanism cannot
	// work there.
	Resolver(at Site) (Resolver, error)
}

// Warner is a Mechanism of which its user should know something.
type Warner interface {
	Mechanism
	Warnings() []string
}

// Site is where a mechanism runs.
type Site struct {
	Local  netip.Addr     // outer IPv4 address
	Own    []netip.Prefix // the interface's addresses
	Hosts  [][]netip.Addr // the addresses of each of Mechanism.Hosts; none while a name does not resolve
	Down   []netip.Addr   // those of them that do not answer: they are the last choice
	Strict bool           // as Martian4 has it

	// Links are this host's IPv4 addresses, each with the length of its subnet:
	// neither they nor the subnets' broadcast addresses are far ends (RFC 3964
	// sections 4.1.4 and 5.1). Delegated are the 6rd prefixes delegated to this
	// host, by whatever tunnel: packets of one mechanism do not enter another
	// (RFC 6324). Elsewhere are the IPv6 subnets of other links of the host: no router
	// of the mechanism is believed that they are its own. All may be empty.
	Links     []netip.Prefix
	Delegated []netip.Prefix
	Elsewhere []netip.Prefix
}

// Host is an outer host: either its address or its DNS name is set.
type Host struct {
	Addr netip.Addr
	Name string
}

// Speaker is a Resolver that talks to others itself, by neighbour discovery. The
// methods of this interface are called by one goroutine at a time, while any
// number of others use To and From.
type Speaker interface {
	Resolver
	// Hear takes a packet of neighbour discovery (nd.Is) that From let pass, and
	// reports whether that was all: otherwise it is also for the interface. It keeps
	// nothing of the packet.
	Hear(from uint32, ip header.IPv6, now time.Time) (done bool)
	// Hold keeps a copy of a packet of which To said drop.Unresolved, and reports
	// whether there was room. It comes back as one of Next's messages, at once if
	// the neighbour's address is known and only has to be confirmed, or is lost.
	Hold(pkt []byte, now time.Time) bool
	// Next is what is to be sent now, and when to call again at the latest; zero:
	// not before something is heard or held. It is called when a tunnel starts,
	// and after each Hear and Hold; by the next call everything was sent. The packets do not go through To; they are
	// the caller's. Lost is how many held packets were given up since the last
	// call.
	Next(now time.Time) (send []Message, lost int, again time.Time)
	// Learnt is what the interface should have. It changes in Hear and Next only.
	Learnt() Learnt
}

// Message is an inner packet and the outer address that it goes to.
type Message struct {
	To     uint32
	Packet []byte
}

// Learnt is what routers have told: it replaces what was learnt before.
type Learnt struct {
	Addresses []Lease
	Default   time.Time // until when there is a default route; zero: none
	MTU       int       // 0: nobody said
	// Link is the mechanism's own link-local address, which nobody has told, and
	// which is for ever; invalid: it has none.
	Link netip.Prefix
}

// Lease is an address that a router's prefix gives us, for a time.
type Lease struct {
	Prefix           netip.Prefix // the address and its length
	Preferred, Valid time.Time
}

// Joiner is a Speaker that must hear IPv4 multicast: Groups are the groups that
// are to be joined on the local address's interface. They may change when
// something was learnt.
type Joiner interface {
	Groups() []netip.Addr
}
