// Package drop names the reasons for which a packet is not carried.
//
// A packet that is not carried is counted under exactly one reason, and the
// reason's text is the same word in the status output, the metrics and the log.
package drop

// Reason says why a packet is not carried. The zero value, None, means that it
// is. A Reason is a value of one byte, so that a refusal costs no allocation.
type Reason uint8

// The reasons. Those of the first group are found in the packet's own bytes,
// those of the second come from what stands around the daemon.
const (
	None               Reason = iota
	Truncated                 // a length field promises more bytes than are there
	WrongVersion              // the version nibble is not that of the protocol number
	LyingLength               // a length field contradicts the header it stands in
	BadChecksum               // of an IPv4 or GRE header
	UnknownProtocol           // no layer of the tunnel carries this protocol
	ForeignSource             // outer source is not the configured peer
	ForeignDestination        // outer destination is not ours
	BadExtension              // IPv6 extension headers: malformed, too many, or asking for discard
	SourceRouting             // IPv6 routing header type 0 (RFC 5095)
	Fragment                  // fragment of a tunnel packet that cannot be part of one
	FragmentOverlap           // fragments of a tunnel packet overlap (RFC 5722)
	FragmentTimeout           // the rest of a fragmented tunnel packet did not come in time
	FragmentLimit             // fragmented tunnel packets take more memory than they may
	Congestion                // outer CE over an inner packet that is not ECN capable (RFC 6040 4.2)
	Martian                   // inner source address that must not be on a wire
	OwnSource                 // inner source is an address of ours
	Nested                    // a tunnel packet to this tunnel's own endpoint inside the tunnel
	Spoof                     // inner source that the peer may not have, or that contradicts the outer one
	Key                       // GRE key is missing, unexpected or another
	Sequence                  // GRE sequence number is missing, or not after those before
	BadGRE                    // GRE header with bits that nobody sends today
	TTLExpired                // inner TTL or hop limit 0
	WrongFamily               // the tunnel's mode does not carry this IP version
	NoPeer                    // no peer has the destination among its prefixes, nor does it embed an address
	Unresolved                // the neighbour's outer address did not become known
	Limited                   // more messages of neighbours came than are looked at
	EncapLimit                // the packet says that it must not enter a tunnel (RFC 2473 4.1.1)
	Loop                      // would be routed back into the tunnel it came from
	TooBig                    // larger than the path allows, and may not be fragmented

	NoRoute       // no route, or no local address, towards the peer
	Filtered      // the host's own packet filter refused it
	NoBuffer      // the kernel had no room in a queue
	SendFailed    // any other error of the outer socket
	InterfaceDown // the TUN interface is down or gone
	BadOffload    // what the TUN device says of a packet contradicts the packet
	TunFailed     // any other error of the TUN device

	Count // number of reasons, None included
)

var texts = [Count]string{
	None:               "none",
	Truncated:          "truncated",
	WrongVersion:       "wrong_version",
	LyingLength:        "lying_length",
	BadChecksum:        "bad_checksum",
	UnknownProtocol:    "unknown_protocol",
	ForeignSource:      "foreign_source",
	ForeignDestination: "foreign_destination",
	BadExtension:       "bad_extension",
	SourceRouting:      "source_routing",
	Fragment:           "fragment",
	FragmentOverlap:    "fragment_overlap",
	FragmentTimeout:    "fragment_timeout",
	FragmentLimit:      "fragment_limit",
	Congestion:         "congestion",
	Martian:            "martian",
	OwnSource:          "own_source",
	Nested:             "nested",
	Spoof:              "spoof",
	Key:                "key",
	Sequence:           "sequence",
	BadGRE:             "bad_gre",
	TTLExpired:         "ttl_expired",
	WrongFamily:        "wrong_family",
	NoPeer:             "no_peer",
	Unresolved:         "unresolved",
	Limited:            "rate_limited",
	EncapLimit:         "encap_limit",
	Loop:               "loop",
	TooBig:             "too_big",
	NoRoute:            "no_route",
	Filtered:           "filtered",
	NoBuffer:           "no_buffer",
	SendFailed:         "send_failed",
	InterfaceDown:      "interface_down",
	BadOffload:         "bad_offload",
	TunFailed:          "tun_failed",
}

// String is the reason's one word, as the status output, the metrics and the
// log show it.
func (r Reason) String() string {
	if r < Count {
		return texts[r]
	}
	return "invalid"
}
