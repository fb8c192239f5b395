package encap

import "sixfour/encap/header"

// Quote is what an ICMP error says of a packet that we sent.
type Quote struct {
	Size    int    // of the packet that the error is about, in bytes
	Outside int    // what the layers outside that packet add to it
	Inner   []byte // the inner packet as far as it is quoted; nil if its header is not
}

// minQuote is what every ICMP error quotes: the header and 8 bytes (RFC 792).
const minQuote = 8

// Unquote holds what an ICMP error quotes against what this stack sends (RFC
// 5927 section 4). The quote begins with an IP header, that of the outermost
// layer or of one inside it, and may be cut off anywhere. False means that we
// have not sent such a packet, so that the error is not for us, or is a forgery.
// Inner shares the quote's memory.
func (s *Stack) Unquote(quote []byte) (Quote, bool) {
	var q Quote
	version := header.Version(quote)
	i := len(s.layers) - 1
	for ; i >= 0; i-- { // a layer that an error can be about
		_, over4 := s.layers[i].(*over4)
		if over4 == (version == 4) {
			break
		}
		q.Outside += s.from[i].parts[0].size
	}
	size, ok := quotedSize(quote, version)
	if i < 0 || !ok {
		return q, false
	}
	q.Size = size
	pkt, first := quote[:min(len(quote), size)], true
	for ; i >= 0; i-- {
		inner, innerSize, taken, ok := s.layers[i].unquote(pkt, size)
		if !ok || first && !taken {
			return q, false
		}
		if !taken {
			break
		}
		if first && version == 4 && innerSize > 0 && len(inner) < min(minQuote, innerSize) {
			return q, false
		}
		first = false
		if len(inner) < minQuote {
			return q, true
		}
		// What follows must be a packet of the length that is left.
		if n, ok := quotedSize(inner, s.from[i].parts[0].carries); !ok || n != innerSize {
			return q, false
		}
		pkt, size = inner, innerSize
	}
	if header.Version(pkt) == 6 && len(pkt) >= header.IPv6Len ||
		header.Version(pkt) == 4 && len(pkt) >= header.IPv4Len && len(pkt) >= header.IPv4(pkt).HeaderLen() {
		q.Inner = pkt
	}
	return q, true
}

// quotedSize is the length that a quoted header of an IP version says.
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
