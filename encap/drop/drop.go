// Package drop names the reasons for which a packet is not carried.
//
// A packet that is not carried is counted under exactly one reason. The status output,
// the metrics and the log show the reason by the same word.
package drop

// Reason says why a packet is not carried. The zero value, None, means that it
// is. A Reason is a value of one byte, so that a refusal costs no allocation.
type Reason uint8

// The reasons. Those of the first group follow from the packet's own bytes, those of the
// second from the state of the host and of the network.
const (
	None               Reason = iota
	Truncated                 // a length field promises more bytes than are there
	WrongVersion              // the version nibble is not that of the protocol number
	LyingLength               // a length field contradicts the header it stands in
	BadChecksum               // of an IPv4 or GRE header
	UnknownProtocol           // no layer of the tunnel carries this protocol
	ForeignSource             // the outer source is not the configured peer
	ForeignDestination        // the outer destination is not an address of ours
	BadExtension              // IPv6 extension headers: malformed, too many, or asking for discard
	SourceRouting             // IPv6 routing header of type 0 (RFC 5095), or a layer's routing header with segments left
	Fragment                  // fragment of a tunnel packet that cannot be part of one
	FragmentOverlap           // fragments of a tunnel packet overlap (RFC 5722)
	FragmentTimeout           // the other fragments of a tunnel packet did not arrive in time
	FragmentLimit             // fragmented tunnel packets exceed their memory limit
	Congestion                // outer CE over an inner packet that is not ECN capable (RFC 6040 4.2)
	Martian                   // inner source address that is not valid on a network
	OwnSource                 // the inner source is an address of ours
	Nested                    // a tunnel packet to this tunnel's own endpoint inside the tunnel
	Spoof                     // the inner source is not allowed for the peer, or contradicts the outer source
	Key                       // the GRE key is missing, unexpected or wrong
	Sequence                  // the GRE sequence number is missing, or not after the earlier ones
	BadGRE                    // GRE header with bits that are not used any more
	BadGUE                    // GUE header of an unknown variant, with unknown flags, or of a control message
	Unauthenticated           // a message about the address of a peer that no path's secret proves
	TTLExpired                // inner TTL or hop limit 0
	WrongFamily               // the tunnel's mode does not carry this IP version
	NoPeer                    // no peer has the destination among its prefixes, nor does it embed an address
	Unresolved                // the neighbour's outer address did not become known
	Limited                   // neighbour discovery messages exceed the rate limit
	EncapLimit                // the packet's encapsulation limit forbids another tunnel (RFC 2473 4.1.1)
	Loop                      // the packet would come back into the tunnel, or to this host
	TooBig                    // larger than the path allows, and may not be fragmented

	NoRoute       // no route, or no local address, towards the peer
	Filtered      // the host's own packet filter refused it
	NoBuffer      // the kernel had no room in a queue
	SendFailed    // any other error of the outer socket
	InterfaceDown // the TUN interface is down or gone
	BadOffload    // the TUN device's offload header contradicts the packet
	Merged        // the kernel merged packets, and their original sizes are not known
	TunFailed     // any other error of the TUN device
	NoRoom        // the kernel's queue of packets for the daemon was full
	InternalError // the daemon panicked while it handled the packet

	Count // number of reasons, None included
)

// reasons holds the word and the description of each reason. The manual has the same
// texts (docs/drops.md).
var reasons = [Count]struct{ word, means string }{
	None:               {"none", "it is carried"},
	Truncated:          {"truncated", "a length field says more bytes than there are"},
	WrongVersion:       {"wrong_version", "the first nibble is not the IP version that the protocol number says"},
	LyingLength:        {"lying_length", "a length field contradicts its own header"},
	BadChecksum:        {"bad_checksum", "the checksum of an IPv4 header or of a GRE packet is wrong; or a GRE packet has none although one is configured, or has one although none is configured"},
	UnknownProtocol:    {"unknown_protocol", "no layer of the tunnel carries this protocol; or the packet is to local6 and neither an echo request nor an echo reply"},
	ForeignSource:      {"foreign_source", "the outer source, or that of the IPv6 layer, is not the configured peer"},
	ForeignDestination: {"foreign_destination", "the outer destination is not local"},
	BadExtension:       {"bad_extension", "IPv6 extension headers reach beyond the packet, are more than eight, contain a hop-by-hop header that is not the first one, or an option that says to discard the packet"},
	SourceRouting:      {"source_routing", "an IPv6 routing header of type 0 (RFC 5095); or, in a packet to our end of a layer, a routing header with segments left"},
	Fragment:           {"fragment", "an invalid fragment of a tunnel packet: beyond 65,535 bytes, empty, with a length that is not a multiple of 8, or contradicting the end of the packet; or a fragment that arrived twice"},
	FragmentOverlap:    {"fragment_overlap", "fragments of a tunnel packet overlap; the whole packet is dropped (RFC 5722)"},
	FragmentTimeout:    {"fragment_timeout", "the other fragments of a tunnel packet did not arrive within 60 s"},
	FragmentLimit:      {"fragment_limit", "fragments of tunnel packets exceed their memory limit, or one packet has more than 64 fragments; or more than 64 packets in two pieces wait for their other one"},
	Congestion:         {"congestion", "the outer header is marked \"congestion experienced\", but the inner packet does not support ECN (RFC 6040); or some fragments of a tunnel packet are marked, and others do not support ECN (RFC 3168)"},
	Martian:            {"martian", "an inner address is not valid: loopback, multicast, unspecified or IPv4-mapped; link-local at one end only; or it contains an IPv4 address that no host of this mode can have, such as a private one in 6to4 (isatap accepts private ones)"},
	OwnSource:          {"own_source", "the inner source is an address of this host: of any interface in the namespace of the tunnel's interface"},
	Nested:             {"nested", "a tunnel packet to this tunnel's own endpoint, inside the tunnel"},
	Spoof:              {"spoof", "the inner source is not behind this peer (allowed), is in a subnet of another interface of this host, or contains another outer address than the one that the packet came from"},
	Key:                {"key", "the GRE key is missing or wrong, or there is one although none is configured"},
	Sequence:           {"sequence", "the GRE sequence number is missing, was received before, is older than the last one, or far from it; or the identification of a packet in two pieces is far from the last one"},
	BadGRE:             {"bad_gre", "obsolete bits in a GRE header: routing (RFC 1701), or version 1, which belongs to PPTP"},
	Unauthenticated:    {"unauthenticated", "a message that says where a peer is (listen), made with another secret, or a copy of an old one; or a solicitation or advertisement of Teredo without the right key"},
	BadGUE:             {"bad_gue", "a GUE header of an unknown variant, with flags that have no meaning or not the fields for them, or of a control message"},
	TTLExpired:         {"ttl_expired", "the inner TTL or hop limit is 0"},
	WrongFamily:        {"wrong_family", "the mode does not carry this IP version"},
	NoPeer:             {"no_peer", "no peer has the destination in allowed, and the destination contains no valid outer address"},
	Unresolved:         {"unresolved", "the outer address of the neighbour did not become known in time"},
	Limited:            {"rate_limited", "more control messages of the mode arrived within a second than it accepts: 1000; at a Teredo server, 6a44 relay or 6bed4 router 20,000, of which 1000 from one source; at a LISP router 5000, of which 250 from one source. Or there was no room to send the answer"},
	EncapLimit:         {"encap_limit", "the packet carries a tunnel encapsulation limit of 0: it must not enter another tunnel (RFC 2473); its sender gets an ICMP error"},
	Loop:               {"loop", "it is one of the tunnel's own outer packets, or its outer destination is this host: it would loop"},
	TooBig:             {"too_big", "larger than the path allows, and must not be fragmented; its sender gets an ICMP error"},
	NoRoute:            {"no_route", "there is no route to the peer, or our outer address is missing; the log says which"},
	Filtered:           {"filtered", "this host's packet filter refused the outer packet"},
	NoBuffer:           {"no_buffer", "the kernel had no room in a queue"},
	SendFailed:         {"send_failed", "another error of the outer socket; the log has the error"},
	InterfaceDown:      {"interface_down", "the interface is down or gone"},
	BadOffload:         {"bad_offload", "the TUN device's offload header contradicts the packet"},
	Merged:             {"merged", "the uplink's GRO merged datagrams, or packets into a list, and their original sizes are not known"},
	TunFailed:          {"tun_failed", "another error of the TUN device; the log has the error"},
	NoRoom:             {"no_room", "the daemon was too slow: the kernel's queue of packets for it was full"},
	InternalError:      {"internal_error", "a bug in the daemon: it panicked on this packet, or on one of the same batch; the log has the stack"},
}

// String returns the reason's word, as the status output, the metrics and the log show
// it.
func (r Reason) String() string {
	if r < Count {
		return reasons[r].word
	}
	return "invalid"
}

// Means returns the description of the reason, as a part of a sentence.
func (r Reason) Means() string {
	if r < Count {
		return reasons[r].means
	}
	return "unknown reason"
}
