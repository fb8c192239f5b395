package framing

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// FOU is the framing of foo over UDP: the packet follows a UDP header, as the Linux kernel
// sends it (ip-fou(8)). Packets from any port are received; what is sent goes to Remote,
// whatever port the peer sends from.
type FOU struct {
	Local, Remote uint16 // ports at which we and the peer receive
	Version       int    // IP version of the packets, as in the kernel's ipproto; 0: either
	NoChecksum    bool   // the checksum over IPv4 is 0; over IPv6 there always is one
}

// Properties returns the properties of the UDP header.
func (f FOU) Properties() Properties {
	return Properties{
		Protocol: header.UDP, Overhead: header.UDPLen, OverheadBack: header.UDPLen, Longest: header.UDPLen,
		Carries4: f.Version != 6, Carries6: f.Version != 4,
		Identity: uint64(f.Local), Ports: Ports{f.Local, f.Remote}, Finished: true, Optional: true,
	}
}

// Matches reports whether a UDP header has our port as destination.
func (f FOU) Matches(b []byte) bool {
	_, to := header.Ports(b)
	return to == f.Local
}

// Codec returns the codec for the ports.
func (f FOU) Codec(*State) Codec { return &fouCodec{f} }

type fouCodec struct{ FOU }

// Append appends the header without length and checksum.
func (c *fouCodec) Append(b []byte, _ int) []byte { return appendUDP(b, Ports{c.Local, c.Remote}) }

// Finish writes the length and the checksum.
func (c *fouCodec) Finish(pkt []byte, at int, tail []byte) { finishUDP(pkt, at, tail, !c.NoChecksum) }

// Open removes the UDP header, and verifies its checksum.
func (c *fouCodec) Open(pkt []byte, at int) (inner []byte, version int, r drop.Reason) {
	b, r := openUDP(pkt, at)
	if r != drop.None {
		return nil, 0, r
	}
	return c.OpenDatagram(b, header.Outer{})
}

// OpenDatagram returns b and the IP version in its first four bits.
func (c *fouCodec) OpenDatagram(b []byte, _ header.Outer) (inner []byte, version int, r drop.Reason) {
	if version = header.Version(b); !carriesVersion(c.Version, version) {
		return nil, 0, drop.UnknownProtocol
	}
	return b, version, drop.None
}

// Unquote removes the UDP header, whose ports must be ours.
func (c *fouCodec) Unquote(b []byte, size int) (inner []byte, innerSize, version int, ok bool) {
	if inner, innerSize, ok = unquoteUDP(b, size, Ports{c.Local, c.Remote}); len(inner) == 0 {
		return nil, 0, 0, ok
	}
	version = header.Version(inner)
	return inner, innerSize, version, carriesVersion(c.Version, version)
}
