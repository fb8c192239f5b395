// Package framing reads and writes what stands between a delivery header and the packet that
// it carries: nothing, a GRE header, a UDP header and what follows it.
package framing

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// Framing is what stands between a delivery header and the packet that it carries: nothing
// (Bare), a GRE header, a UDP header and what follows it. Its value has the options on which
// both ends must agree. Framings are immutable, may be used concurrently, and are compared
// with ==. A new framing is one file and the rows of tables that use it.
type Framing interface {
	// Properties returns what is known of the framing without a packet.
	Properties() Properties
	// Matches reports whether what follows a delivery header, with the framing's protocol
	// and between the two ends, was sent to this framing, and not to another one with the
	// same addresses. B may be cut off.
	Matches(b []byte) bool
	// Codec returns what reads and writes the headers of one peer's packets.
	Codec(s *State) Codec
}

// Codec reads and writes the headers of a framing for one peer. It may be used concurrently.
// Finish and Open are called for each packet, and allocate nothing.
type Codec interface {
	// Append appends the header for packets of an IP version, which the framing carries. Its
	// length is Properties.Overhead.
	// Fields that differ from packet to packet are 0; Finish writes them.
	Append(b []byte, version int) []byte
	// Finish writes the fields of the header that differ from packet to packet. Pkt begins
	// with the complete delivery header, the framing's header is at pkt[at:], the inner
	// packet follows it and continues with tail. Finish is called if Properties.Finished is
	// set, for the layers inside first.
	Finish(pkt []byte, at int, tail []byte)
	// Open checks and removes the header at pkt[at:]. Pkt begins with the delivery header;
	// if the kernel has removed and checked that one, at is 0. Open returns the inner
	// packet, unchecked, and its IP version. It may count the packet, in the State, so it
	// is called once for each packet. With drop.UnknownProtocol it may return a control
	// message of the mechanism, for its resolve.Agent.
	Open(pkt []byte, at int) (inner []byte, version int, r drop.Reason)
	// Unquote removes the header from a packet of ours that an ICMP error quotes, and that
	// may be cut off anywhere. B is what follows the delivery header, and size its whole
	// length. Unquote returns the inner packet, its size and its IP version, which is 0 if
	// the quote ends before the header says it. Ok is false if we do not send such a header.
	Unquote(b []byte, size int) (inner []byte, innerSize, version int, ok bool)
}

// Halver is a Framing with the rule that an IPv4 packet which may be fragmented, and is too
// large, becomes two halves before it enters the layer.
type Halver interface {
	Framing
	Halves()
}

// Properties describe a framing with its options.
type Properties struct {
	Protocol byte // in the delivery header
	// Overhead is the length in bytes of the header of sent packets, OverheadBack that of
	// received packets, and Longest that with any options: at most MaxLen.
	Overhead, OverheadBack, Longest int
	// Hidden is how many bytes more than the header are added on the wire, after the packet has
	// left the stack.
	Hidden             int
	Carries4, Carries6 bool // IP versions inside

	// Identity is different for framings that Matches tells apart, if their protocol is the
	// same, and if Ports.Clash does not say it.
	Identity uint64
	// Ports are our port and the peer's. Without ports both are 0. Local is the port at
	// which packets arrive; Remote is the one to which they are sent, or 0 if a resolver
	// finds it. The header begins with the source and the destination port.
	Ports Ports

	Finished bool // Finish must be called
	Ordered  bool // packets must arrive in the order in which they were sent
	// Summed means that a checksum covers the inner packet, so that packets which the kernel
	// has merged (GRO) cannot be opened.
	Summed bool
	// Optional means that the peers must agree on values beside their addresses, such as a
	// key.
	Optional bool
	// Session means that the delivery header and the framing's header only say where a packet
	// goes to: it travels inside a connection, whose packets have their own. It is never a
	// fragment.
	Session bool
	// Connections is what all connections at the port have in common, if there are any. Only
	// what opens the port knows its type.
	Connections any
}

// Ports are the ports of a framing.
type Ports struct {
	Local, Remote uint16
	Exact         bool // packets come from Remote only, not from any port
	// Control is another port of ours, at which control messages of the mechanism arrive: Open
	// returns them with drop.UnknownProtocol. 0: there is none.
	Control uint16
	// Group is the port at which a multicast group of the mechanism is received. What arrives
	// there are control messages, too. 0: there is none.
	Group uint16
	// Beside is the number of another protocol, whose packets have no ports, and are sent and
	// received beside those of the framing: those of form 1 (resolve.Endpoint). Nothing stands
	// between their delivery header and the inner packet. 0: there is none.
	Beside byte
	// Unsummed means that datagrams of the mechanism's own have the UDP checksum 0 and DF, as
	// its packets have.
	Unsummed bool
}

// matches reports whether a UDP header, which may be cut off, has the ports of a packet that
// arrives.
func (p Ports) matches(b []byte) bool {
	from, to := header.Ports(b)
	return p.takes(to) && (!p.Exact || from == p.Remote)
}

// takes reports whether packets to a port of ours are for the framing.
func (p Ports) takes(to uint16) bool {
	return to == p.Local || to == p.Control && to != 0 || to == p.Group && to != 0
}

// Clash reports whether packets that arrive at two framings with the same Identity cannot be
// told apart by their ports.
func (p Ports) Clash(o Ports) bool { return !p.Exact || !o.Exact || p.Remote == o.Remote }

// MaxLen is the length in bytes of the longest header that a framing may have. The headroom of
// encap.Encapsulate depends on it.
const MaxLen = header.UDPLen + gueLen + header.GREMaxLen

// Carries reports whether packets of an IP version can be carried.
func (p *Properties) Carries(version int) bool {
	return version == 4 && p.Carries4 || version == 6 && p.Carries6
}

// DatagramCodec is the Codec of a framing in datagrams of a socket: the kernel removes its UDP
// header.
type DatagramCodec interface {
	Codec
	// OpenDatagram is Open for a packet without the UDP header. O is what the removed
	// headers said.
	OpenDatagram(b []byte, o header.Outer) (inner []byte, version int, r drop.Reason)
}

// Unsummer is a Codec of UDP packets that can leave their checksum to what sends them.
type Unsummer interface {
	Codec
	// FinishUnsummed is Finish without computing the checksum of the UDP header: it is 0 if
	// there is to be none, and otherwise any other number.
	FinishUnsummed(pkt []byte, at int, tail []byte)
}

// Keepaliver is a Framing with keepalives that one end writes and the other only has to send
// on: the sender puts the packet that it wants back into the packet that it sends.
type Keepaliver interface {
	Framing
	// AppendKeepalive appends the header of the packet that comes back, as the peer's
	// packets have it. A payload of any kind may follow.
	AppendKeepalive(b []byte) []byte
	// OpenKeepalive returns what follows the header of such a packet. B is what follows an
	// IP header with the framing's protocol.
	OpenKeepalive(b []byte) (payload []byte, ok bool)
}

// Bare is the framing without a header: the inner packet follows the delivery header, whose
// protocol number says the IP version. The value is that version.
type Bare int

// Properties returns the properties of the IP version.
func (f Bare) Properties() Properties {
	protocol := byte(header.ProtoIPv6)
	if f == 4 {
		protocol = header.ProtoIPv4
	}
	return Properties{Protocol: protocol, Carries4: f == 4, Carries6: f == 6}
}

// Matches returns true: nothing tells packets with the same addresses apart.
func (f Bare) Matches([]byte) bool { return true }

// Codec returns the framing itself.
func (f Bare) Codec(*State) Codec { return f }

// Append appends nothing.
func (f Bare) Append(b []byte, _ int) []byte { return b }

// Finish does nothing.
func (f Bare) Finish([]byte, int, []byte) {}

// Open returns what follows the delivery header.
func (f Bare) Open(pkt []byte, at int) ([]byte, int, drop.Reason) { return pkt[at:], int(f), drop.None }

// Unquote returns b.
func (f Bare) Unquote(b []byte, size int) ([]byte, int, int, bool) { return b, size, int(f), true }
