package connectip

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"sixfour/transport/queue"
)

// Types of capsules (RFC 9297 section 3.5, RFC 9484 section 4.7). Those of the form 41 n +
// 23 have no meaning (RFC 9297 section 5.4): one is sent so that a connection is not idle.
const (
	capsuleDatagram = 0
	capsuleAssign   = 1
	capsuleRequest  = 2
	capsuleRoutes   = 3
	capsuleIdle     = 41*6 + 23
)

// Limits of the length of capsules. Longer ones end the connection, so that nobody waits
// forever for the end of one.
const (
	maxDatagram = 8 + 65535 // context identifier and packet
	maxControl  = 16 << 10
	maxUnknown  = 64 << 10
)

// errTruncated is the error for a stream that ends within a capsule.
var errTruncated = errors.New("the connection ended within a capsule")

// varintLen returns the length of a varint from its first byte (RFC 9000 section 16).
func varintLen(first byte) int { return 1 << (first >> 6) }

// appendVarint appends the shortest varint of a number, which is below 1<<62.
func appendVarint(b []byte, n uint64) []byte {
	switch {
	case n < 1<<6:
		return append(b, byte(n))
	case n < 1<<14:
		return binary.BigEndian.AppendUint16(b, uint16(n)|1<<14)
	case n < 1<<30:
		return binary.BigEndian.AppendUint32(b, uint32(n)|2<<30)
	}
	return binary.BigEndian.AppendUint64(b, n|3<<62)
}

// cutVarint removes a varint from the beginning of b.
func cutVarint(b []byte) (n uint64, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < varintLen(b[0]) {
		return 0, nil, false
	}
	size := varintLen(b[0])
	n = uint64(b[0] & 0x3f)
	for _, next := range b[1:size] {
		n = n<<8 | uint64(next)
	}
	return n, b[size:], true
}

// readVarint reads a varint. The error is io.EOF only before its first byte.
func readVarint(r *bufio.Reader) (n uint64, size int, err error) {
	first, err := r.Peek(1)
	if err != nil {
		return 0, 0, err
	}
	size = varintLen(first[0])
	b, err := r.Peek(size)
	if err != nil {
		return 0, 0, truncated(err)
	}
	n, _, _ = cutVarint(b)
	_, err = r.Discard(size)
	return n, size, err
}

// truncated returns the error of a read within a capsule.
func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errTruncated
	}
	return err
}

// control is a capsule about addresses or routes.
type control struct {
	kind  uint64
	value []byte
}

// readCapsule reads the next capsule from a stream: a packet with context identifier 0, or a
// control capsule, or neither if it is one that is skipped. The error is io.EOF at the end of
// the stream. Memory is only reserved for what has a permitted length.
func readCapsule(r *bufio.Reader) (p *queue.Packet, c control, err error) {
	kind, _, err := readVarint(r)
	if err != nil {
		return nil, control{}, err
	}
	length, _, err := readVarint(r)
	if err != nil {
		return nil, control{}, truncated(err)
	}
	limit := uint64(maxUnknown)
	switch kind {
	case capsuleDatagram:
		limit = maxDatagram
	case capsuleAssign, capsuleRequest, capsuleRoutes:
		limit = maxControl
	}
	if length > limit {
		return nil, control{}, fmt.Errorf("a capsule of type %d has %d bytes, more than %d", kind, length, limit)
	}
	switch n := int(length); kind {
	case capsuleDatagram:
		p, err = readDatagram(r, n)
		return p, control{}, truncated(err)
	case capsuleAssign, capsuleRequest, capsuleRoutes:
		value := make([]byte, n)
		_, err = io.ReadFull(r, value)
		return nil, control{kind, value}, truncated(err)
	default:
		_, err = r.Discard(n)
		return nil, control{}, truncated(err)
	}
}

// readDatagram reads the value of a DATAGRAM capsule. Those with another context identifier
// than 0, and those without content, are skipped: the packet is nil.
func readDatagram(r *bufio.Reader, n int) (*queue.Packet, error) {
	if n == 0 {
		return nil, errors.New("a DATAGRAM capsule has no context identifier")
	}
	first, err := r.Peek(1)
	if err != nil {
		return nil, err
	}
	if size := varintLen(first[0]); size > n {
		return nil, errors.New("a DATAGRAM capsule ends within its context identifier")
	}
	context, size, err := readVarint(r)
	if err != nil {
		return nil, err
	}
	if context != 0 || n == size {
		_, err := r.Discard(n - size)
		return nil, err
	}
	p := queue.New(n - size)
	if _, err := io.ReadFull(r, p.B); err != nil {
		p.Free()
		return nil, err
	}
	return p, nil
}

// cutContext returns the packet in an HTTP datagram. Ok is false if its context identifier
// is another one than 0.
func cutContext(b []byte) (pkt []byte, ok bool) {
	context, pkt, ok := cutVarint(b)
	return pkt, ok && context == 0 && len(pkt) > 0
}

// address is an entry of ADDRESS_ASSIGN or ADDRESS_REQUEST.
type address struct {
	request uint64 // 0: not an answer to a request
	prefix  netip.Prefix
}

// none returns the entry that says that a request is refused.
func (a address) none() address {
	any4or6 := netip.IPv6Unspecified()
	if a.prefix.Addr().Is4() {
		any4or6 = netip.IPv4Unspecified()
	}
	return address{a.request, netip.PrefixFrom(any4or6, any4or6.BitLen())}
}

func appendCapsule(b []byte, kind uint64, value []byte) []byte {
	b = appendVarint(b, kind)
	b = appendVarint(b, uint64(len(value)))
	return append(b, value...)
}

// addressCapsule returns an ADDRESS_ASSIGN or ADDRESS_REQUEST capsule.
func addressCapsule(kind uint64, all []address) []byte {
	var value []byte
	for _, a := range all {
		value = appendVarint(value, a.request)
		value = append(value, versionOf(a.prefix.Addr()))
		value = append(value, a.prefix.Addr().AsSlice()...)
		value = append(value, byte(a.prefix.Bits()))
	}
	return appendCapsule(nil, kind, value)
}

func versionOf(a netip.Addr) byte {
	if a.Is4() {
		return 4
	}
	return 6
}

// cutAddr removes an address of an IP version from the beginning of b.
func cutAddr(b []byte, version byte) (a netip.Addr, rest []byte, err error) {
	n := 0
	switch version {
	case 4:
		n = 4
	case 6:
		n = 16
	default:
		return a, nil, fmt.Errorf("an address has the IP version %d", version)
	}
	if len(b) < n {
		return a, nil, errShort
	}
	a, _ = netip.AddrFromSlice(b[:n])
	return a, b[n:], nil
}

var errShort = errors.New("the value ends within an entry")

// parseAddresses reads the value of an ADDRESS_ASSIGN or ADDRESS_REQUEST capsule.
func parseAddresses(b []byte) (all []address, err error) {
	for len(b) > 0 {
		id, rest, ok := cutVarint(b)
		if !ok || len(rest) == 0 {
			return nil, errShort
		}
		a, rest, err := cutAddr(rest[1:], rest[0])
		if err != nil {
			return nil, err
		}
		if len(rest) == 0 {
			return nil, errShort
		}
		prefix := netip.PrefixFrom(a, int(rest[0]))
		if !prefix.IsValid() || prefix != prefix.Masked() {
			return nil, fmt.Errorf("%v/%d is not a prefix", a, rest[0])
		}
		all, b = append(all, address{id, prefix}), rest[1:]
	}
	return all, nil
}

// routeCapsule returns a ROUTE_ADVERTISEMENT capsule of prefixes, which do not overlap, in
// the order that RFC 9484 section 4.7.3 requires.
func routeCapsule(prefixes []netip.Prefix) []byte {
	prefixes = slices.Clone(prefixes)
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) }) // IPv4 comes first
	var value []byte
	for _, p := range prefixes {
		value = append(value, versionOf(p.Addr()))
		value = append(value, p.Addr().AsSlice()...)
		value = append(value, last(p).AsSlice()...)
		value = append(value, 0) // all protocols
	}
	return appendCapsule(nil, capsuleRoutes, value)
}

// last returns the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// parseRoutes reads the value of a ROUTE_ADVERTISEMENT capsule.
func parseRoutes(b []byte) (all []Route, err error) {
	for len(b) > 0 {
		var r Route
		version, rest := b[0], b[1:]
		if r.From, rest, err = cutAddr(rest, version); err != nil {
			return nil, err
		}
		if r.To, rest, err = cutAddr(rest, version); err != nil {
			return nil, err
		}
		if len(rest) == 0 {
			return nil, errShort
		}
		r.Protocol, b = rest[0], rest[1:]
		if r.From.Compare(r.To) > 0 {
			return nil, fmt.Errorf("the route from %v to %v ends before it begins", r.From, r.To)
		}
		if len(all) > 0 && !follows(all[len(all)-1], r) {
			return nil, fmt.Errorf("the route from %v to %v is not in order", r.From, r.To)
		}
		all = append(all, r)
	}
	return all, nil
}

// follows reports whether b may follow a in an advertisement: versions are in order, then
// protocols, then addresses, and the ranges do not overlap.
func follows(a, b Route) bool {
	if a.From.BitLen() != b.From.BitLen() {
		return a.From.BitLen() < b.From.BitLen()
	}
	if a.Protocol != b.Protocol {
		return a.Protocol < b.Protocol
	}
	return a.To.Compare(b.From) < 0
}

// answer returns what a peer gets that asks for prefixes: each of ours once, the one that it
// names if that is ours, or else one of that family; and prefixes for which it has not asked.
func answer(requests []address, ours []netip.Prefix) (all []address) {
	left := slices.Clone(ours)
	take := func(ok func(netip.Prefix) bool) (p netip.Prefix, found bool) {
		i := slices.IndexFunc(left, ok)
		if i < 0 {
			return p, false
		}
		p = left[i]
		left = slices.Delete(left, i, i+1)
		return p, true
	}
	all = make([]address, len(requests))
	for i, r := range requests { // first the ones that name a prefix
		p, found := take(func(p netip.Prefix) bool { return p == r.prefix })
		if found {
			all[i] = address{r.request, p}
		}
	}
	for i, r := range requests {
		if all[i].prefix.IsValid() {
			continue
		}
		all[i] = r.none()
		if p, found := take(func(p netip.Prefix) bool { return p.Addr().Is4() == r.prefix.Addr().Is4() }); found {
			all[i].prefix = p
		}
	}
	for _, p := range left {
		all = append(all, address{prefix: p})
	}
	return all
}
