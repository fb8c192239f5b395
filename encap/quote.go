package encap

import (
	"net/netip"
	"slices"

	"sixfour/encap/header"
)

// Quote is what an ICMP error says about a packet that we sent.
type Quote struct {
	Size    int        // of the packet that the error is about, in bytes
	Outside int        // bytes that the layers outside that packet add to it
	To      netip.Addr // outer destination, if a resolver found it
	Inner   []byte     // the inner packet as far as it is quoted; nil if its header is not
}

// unquoted is the result of a layer's unquote.
type unquoted struct {
	taken   bool   // the layer sent the packet
	inner   []byte // as far as it is quoted; shorter than a header if the header is not quoted
	size    int    // of the whole inner packet, if any of it is quoted
	version int    // its IP version, if any of it is quoted
}

// minQuote is how many bytes after the header every ICMP error quotes (RFC 792).
const minQuote = 8

// Unquote checks the packet that an ICMP error quotes against what this stack sends (RFC
// 5927 section 4). The quote begins with an IP header, that of the outermost layer or of
// one inside it, and may be cut off anywhere. If Unquote returns false, we have not sent
// such a packet: the error is not for us, or is forged. Inner shares the quote's memory.
func (s *Stack) Unquote(quote []byte) (Quote, bool) {
	var q Quote
	version := header.Version(quote)
	size, ok := quotedSize(quote, version)
	if !ok || version == 4 && len(quote) < min(header.IPv4Len+minQuote, size) {
		return q, false
	}
	q.Size = size
	pkt := quote[:min(len(quote), size)]
	i, u := s.quotedLayer(pkt, size)
	if i < 0 {
		return q, false
	}
	for _, l := range s.layers[i+1:] {
		q.Outside += l.overhead(s.options)
	}
	if s.layers[i].Resolver != nil {
		q.To = header.Dest(pkt)
	}
	for u.taken {
		if len(u.inner) < minQuote {
			return q, true
		}
		// What follows must be a packet of the length that is left.
		if n, ok := quotedSize(u.inner, u.version); !ok || n != u.size {
			return q, false
		}
		pkt, size = u.inner, u.size
		if i--; i < 0 {
			break
		}
		if u, ok = s.in[i].unquote(pkt, size); !ok || !u.taken && !s.sentOutside(i, pkt) {
			return q, false
		}
	}
	if header.Version(pkt) == 6 && len(pkt) >= header.IPv6Len ||
		header.Version(pkt) == 4 && len(pkt) >= header.IPv4Len && len(pkt) >= header.IPv4(pkt).HeaderLen() {
		q.Inner = pkt
	}
	return q, true
}

// quotedLayer returns the outermost layer that sends packets like the quoted one, and
// the result of that layer's unquote. If no layer does, the index is negative.
func (s *Stack) quotedLayer(pkt []byte, size int) (int, unquoted) {
	for i, l := range slices.Backward(s.in) {
		if s.layers[i].Kind.Over() != header.Version(pkt) {
			continue
		}
		if u, ok := l.unquote(pkt, size); ok && u.taken {
			return i, u
		}
	}
	return -1, unquoted{}
}

// sentOutside reports whether a quoted packet that the layer itself did not send can have
// been sent through the layer outside it: the packet enters the stack there, or comes
// from our own end. If the quote is cut off, this cannot be known.
func (s *Stack) sentOutside(layer int, pkt []byte) bool {
	if s.enters(layer+1, pkt) {
		return true
	}
	if header.Version(pkt) == 4 {
		return len(pkt) < header.IPv4Len
	}
	return len(pkt) < header.IPv6Len || header.IPv6(pkt).Src() == s.layers[layer].Local
}

// quotedSize returns the packet length that a quoted header of an IP version gives.
func quotedSize(b []byte, version int) (int, bool) {
	if len(b) < minQuote || header.Version(b) != version {
		return 0, false
	}
	if version == 4 {
		ip := header.IPv4(b)
		return ip.TotalLen(), ip.HeaderLen() >= header.IPv4Len && ip.TotalLen() >= ip.HeaderLen()
	}
	return header.IPv6Len + header.IPv6(b).PayloadLen(), true
}
