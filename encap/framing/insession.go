package framing

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// InSession is the framing of packets that travel inside a connection with a protocol of its
// own (transport.SessionPort). To the stack it is a UDP header with the checksum 0, whose
// ports are those between which the connection runs. On the wire the connection adds Extra
// bytes more than that header.
type InSession struct {
	Local, Remote uint16 // ports; Remote is 0 if the peer's port is not known yet
	Version       int    // IP version of the packets; 0: either
	Extra         int
	Connections   any // what all connections at our port have in common; it can be compared with ==
}

// Properties returns the properties of the UDP header, and of what the connection adds.
func (f InSession) Properties() Properties {
	return Properties{
		Protocol: header.UDP, Overhead: header.UDPLen, OverheadBack: header.UDPLen, Longest: header.UDPLen, Hidden: f.Extra,
		Carries4: f.Version != 6, Carries6: f.Version != 4,
		Identity: uint64(f.Local), Ports: f.ports(), Finished: true, Optional: true, Session: true, Connections: f.Connections,
	}
}

// ports returns the ports. Several connections may run to one address.
func (f InSession) ports() Ports {
	return Ports{Local: f.Local, Remote: f.Remote, Exact: f.Remote != 0}
}

// Matches reports whether a UDP header has the ports of the connection.
func (f InSession) Matches(b []byte) bool { return f.ports().matches(b) }

// Codec returns the framing itself.
func (f InSession) Codec(*State) Codec { return f }

// Append appends the header without length.
func (f InSession) Append(b []byte, _ int) []byte { return appendUDP(b, f.ports()) }

// Finish writes the length.
func (f InSession) Finish(pkt []byte, at int, tail []byte) { setUDPLength(pkt, at, tail) }

// Open removes the UDP header.
func (f InSession) Open(pkt []byte, at int) (inner []byte, version int, r drop.Reason) {
	if inner, r = openUDP(pkt, at, f.ports()); r != drop.None {
		return nil, 0, r
	}
	if version = header.Version(inner); !carriesVersion(f.Version, version) {
		return nil, 0, drop.UnknownProtocol
	}
	return inner, version, drop.None
}

// Unquote checks the ports. What follows them in the connection's packets is not what we
// have put there.
func (f InSession) Unquote(b []byte, size int) (inner []byte, innerSize, version int, ok bool) {
	_, _, ok = unquoteUDP(b, size, f.ports(), false)
	return nil, 0, 0, ok
}
