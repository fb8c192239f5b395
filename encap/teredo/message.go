package teredo

import (
	"encoding/binary"
	"errors"

	"sixfour/encap/header"
)

// Message is the payload of a UDP datagram between Teredo nodes:
//
//	[authentication] [origin indication] IPv6 packet [trailers]
//
// A parsed message shares the memory of the payload.
type Message struct {
	Auth     *Auth          // nil: none
	Origin   header.Mapping // where a server received the packet; zero: no origin indication
	Packet   header.IPv6    // complete
	Trailers []byte         // as on the wire
	nonce    uint32         // of the nonce trailer
	random   uint16         // of the random port trailer; 0: there is none
	flags    trailerFlags   // which trailers there are
	others   [maxOthers]header.Mapping
	count    int
}

type trailerFlags uint8

const (
	hasNonce trailerFlags = 1 << iota
	hasSolicit
)

// Errors of Parse.
var (
	errTruncated = errors.New("teredo: the datagram is shorter than its headers say")
	errUnknown   = errors.New("teredo: neither a Teredo header nor an IPv6 packet")
	errTrailer   = errors.New("teredo: a trailer that is cut off, or says to discard the packet")
)

const (
	originLen = 8
	// authLen is the length of an authentication header with neither client identifier nor
	// authentication value.
	authLen = 13
)

// Parse reads a message.
func Parse(b []byte) (m Message, err error) {
	if len(b) >= 2 && b[0] == 0 && b[1] == 1 {
		if m.Auth, b, err = parseAuth(b); err != nil {
			return m, err
		}
	}
	if len(b) >= 2 && b[0] == 0 && b[1] == 0 {
		if len(b) < originLen {
			return m, errTruncated
		}
		m.Origin = header.Mapping{Addr: ^binary.BigEndian.Uint32(b[4:]), Port: ^binary.BigEndian.Uint16(b[2:])}
		b = b[originLen:]
	}
	switch {
	case len(b) < header.IPv6Len:
		return m, errTruncated
	case b[0]>>4 != 6:
		return m, errUnknown
	}
	n := header.IPv6Len + int(binary.BigEndian.Uint16(b[4:]))
	if n > len(b) {
		return m, errTruncated
	}
	m.Packet, m.Trailers = header.IPv6(b[:n:n]), b[n:]
	return m, m.readTrailers()
}

// Append appends a message in the form in which it is sent.
func Append(b []byte, m *Message) []byte {
	if m.Auth != nil {
		b = m.Auth.append(b)
	}
	if m.Origin != (header.Mapping{}) {
		b = AppendOrigin(b, m.Origin)
	}
	return append(append(b, m.Packet...), m.Trailers...)
}

// AppendOrigin appends an origin indication (RFC 4380 section 5.1.1).
func AppendOrigin(b []byte, from header.Mapping) []byte {
	b = binary.BigEndian.AppendUint16(append(b, 0, 0), ^from.Port)
	return binary.BigEndian.AppendUint32(b, ^from.Addr)
}

// IsData reports whether the payload of a datagram is a packet for the interface and nothing
// else: not a bubble, not a packet with a header before or a trailer behind it, and not a
// packet of the Teredo link itself, with a link-local address or for a multicast group.
func IsData(b []byte) bool {
	if len(b) < header.IPv6Len || b[0]>>4 != 6 || len(b) != header.IPv6Len+int(binary.BigEndian.Uint16(b[4:])) {
		return false
	}
	ip := header.IPv6(b)
	src, dst := header.ReadWord6(ip.Source()), header.ReadWord6(ip.Dest())
	return !IsBubble(ip) && !header.IsLinkLocal(src) && !header.IsLinkLocal(dst) && !header.IsMulticast(dst)
}

// The types of trailers (RFC 6081 section 4.2).
const (
	trailerNonce     = 1
	trailerAlternate = 3
	trailerDiscovery = 4
	trailerPort      = 5

	discoverySolicit   = 0
	discoveryAdvertise = 1
)

// maxOthers is how many alternate addresses a trailer can have.
const maxOthers = 4

// readTrailers reads the trailers that are known. Of the others, those whose type begins with
// the bits 01 say to discard the packet, and the rest is skipped.
func (m *Message) readTrailers() error {
	for b := m.Trailers; len(b) > 0; {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return errTrailer
		}
		kind, v := b[0], b[2:2+int(b[1])]
		b = b[2+len(v):]
		switch {
		case kind == trailerNonce && len(v) == 4:
			m.nonce, m.flags = binary.BigEndian.Uint32(v), m.flags|hasNonce
		case kind == trailerAlternate && len(v) >= 8 && len(v) <= 26 && (len(v)-2)%6 == 0:
			m.count = 0
			for v = v[2:]; len(v) > 0; v = v[6:] {
				m.others[m.count] = header.Mapping{Addr: binary.BigEndian.Uint32(v), Port: binary.BigEndian.Uint16(v[4:])}
				m.count++
			}
		case kind == trailerDiscovery && len(v) == 4 && v[0] == discoverySolicit:
			m.flags |= hasSolicit
		case kind == trailerPort && len(v) == 2:
			m.random = binary.BigEndian.Uint16(v)
		case kind > trailerPort && kind>>6 == 1:
			return errTrailer
		}
	}
	return nil
}

// Nonce returns the nonce in the nonce trailer, if there is one.
func (m *Message) Nonce() (nonce uint32, ok bool) { return m.nonce, m.flags&hasNonce != 0 }

// Alternates returns further addresses of the sender, inside its NAT (RFC 6081 section 4.3).
func (m *Message) Alternates() []header.Mapping { return m.others[:m.count] }

// Solicits reports whether the sender asks for a bubble in return (RFC 6081 section 4.4).
func (m *Message) Solicits() bool { return m.flags&hasSolicit != 0 }

// RandomPort returns the port to which the answer is to be sent in place of that in the origin
// indication, if the sender has said so because its NAT is symmetric and keeps ports (RFC 6081
// section 5.4).
func (m *Message) RandomPort() (port uint16, ok bool) { return m.random, m.random != 0 }

// AppendDiscovery appends a trailer by which the sender asks for a bubble in return or, with
// answer, one that says that the bubble was asked for.
func AppendDiscovery(b []byte, answer bool) []byte {
	kind := byte(discoverySolicit)
	if answer {
		kind = discoveryAdvertise
	}
	return append(b, trailerDiscovery, 4, kind, 0, 0, 0)
}

// AppendNonce appends a nonce trailer.
func AppendNonce(b []byte, nonce uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b, trailerNonce, 4), nonce)
}

// AppendAlternates appends a trailer with other addresses of ours, of which there are one to
// four.
func AppendAlternates(b []byte, at []header.Mapping) []byte {
	b = append(b, trailerAlternate, byte(2+6*len(at)), 0, 0)
	for _, m := range at {
		b = binary.BigEndian.AppendUint32(b, m.Addr)
		b = binary.BigEndian.AppendUint16(b, m.Port)
	}
	return b
}
