package resolve

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"sixfour/encap/header"
	"sixfour/encap/nd"
)

// multicastPerSecond bounds the messages to groups, which every node of the site may
// have to process: packets to a series of addresses that nobody has must not flood the
// site (RFC 6583 section 5). Our solicitations and our answers have separate shares: a
// flood of forged questions must not use up our solicitations.
const (
	multicastPerSecond = 100
	answersPerSecond   = 20
	solicitsPerSecond  = multicastPerSecond - answersPerSecond
)

// bucket is a token bucket.
type bucket struct {
	left int
	at   time.Time // when it was full, or the last token was added
}

// take reports whether a message may be sent. It allows perSecond messages in a second,
// and as many at once.
func (b *bucket) take(now time.Time, perSecond int) bool {
	each := time.Second / time.Duration(perSecond)
	if n := now.Sub(b.at) / each; n >= time.Duration(perSecond) {
		b.left, b.at = perSecond, now
	} else if n > 0 {
		b.left, b.at = min(b.left+int(n), perSecond), b.at.Add(n*each)
	}
	if b.left == 0 {
		return false
	}
	b.left--
	return true
}

// maxHeld bounds the bytes of all packets that wait for neighbours.
const maxHeld = 1 << 20

// linkOption returns an IPv4 address as the link-layer address in an option: two zero
// bytes come first (RFC 2529 section 5).
func linkOption(v4 uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0, 0}, v4) }

// linkAddr returns the link-layer address of a message. It returns 0 if there is none,
// or if no node can have it.
func (r *sixOverFour) linkAddr(m *nd.Message) uint32 {
	if len(m.Link) != 6 || m.Link[0] != 0 || m.Link[1] != 0 {
		return 0
	}
	v4 := binary.BigEndian.Uint32(m.Link[2:])
	if !r.reachable4(v4) || r.mine(v4) {
		return 0
	}
	return v4
}

// Hear handles all neighbour discovery messages except router solicitations, which are
// for a router behind the interface.
func (r *sixOverFour) Hear(o header.Outer, inner []byte, now time.Time) bool {
	from, ip := source4(o), header.IPv6(inner)
	if !nd.Is(ip) {
		return false
	}
	m, ok := nd.Parse(ip)
	if !ok {
		return true
	}
	src := readWord6(ip.Source())
	switch m.Type {
	case nd.RouterSolicitation:
		r.noticed(src, r.linkAddr(&m), now)
		return false
	case nd.RouterAdvertisement:
		link := r.linkAddr(&m)
		if link == 0 { // the sender does not use link-layer addresses on this link
			link = from
		}
		r.noticed(src, link, now)
		r.hear(&m, src, now)
		r.solicited = solicitations
		r.update()
	case nd.NeighborSolicitation:
		r.noticed(src, r.linkAddr(&m), now)
		r.answer(from, src, ip, &m, now)
	case nd.NeighborAdvertisement:
		r.confirmed(&m, now)
	}
	return true
}

// noticed records the link-layer address that a neighbour gave for itself (RFC 4861
// section 7.2.3). It does not prove that the neighbour is reachable.
func (r *sixOverFour) noticed(a word6, link uint32, now time.Time) {
	if link == 0 || a == (word6{}) || isMulticast(a) {
		return
	}
	n := r.entry(a, now)
	n.touched = now
	if n.link == link {
		return
	}
	n.enter(stale, link, time.Time{})
	if len(n.queue) > 0 {
		n.enter(delay, link, now.Add(delayFirstProbe))
		r.flush(n)
	}
}

func (r *sixOverFour) ours(a word6) bool {
	return a == r.link || slices.Contains(r.own6, a) || r.has(a)
}

// answer sends our link-layer address to the node that asks for it (RFC 4861 section
// 7.2.4), or to all nodes if the node checks whether an address is in use.
func (r *sixOverFour) answer(from uint32, src word6, ip header.IPv6, m *nd.Message, now time.Time) {
	t := m.Target.As16()
	if !r.ours(readWord6(t[:])) {
		return
	}
	a := &nd.Message{Type: nd.NeighborAdvertisement, Target: m.Target, Solicited: true, Override: true, Link: linkOption(r.local)}
	if src == (word6{}) {
		a.Solicited = false
		if r.answers.take(now, answersPerSecond) {
			r.put(r.group(allNodes), nd.Append(nil, m.Target, allNodes.addr(), a))
		}
		return
	}
	if n := r.cache.find(src); n != nil && n.link != 0 {
		from = n.link
	}
	r.put(from, nd.Append(nil, m.Target, ip.Src(), a))
}

// confirmed handles a neighbour advertisement as in RFC 4861 section 7.2.5.
func (r *sixOverFour) confirmed(m *nd.Message, now time.Time) {
	t := m.Target.As16()
	n := r.cache.find(readWord6(t[:]))
	if n == nil {
		return // an answer without a question
	}
	link := r.linkAddr(m)
	if !m.Router && slices.ContainsFunc(r.routers, func(q router) bool { return q.addr == n.addr }) {
		r.routers = slices.DeleteFunc(r.routers, func(q router) bool { return q.addr == n.addr })
		r.update()
	}
	switch changed := link != 0 && link != n.link; {
	case n.state == incomplete && link == 0:
		return
	case n.state != incomplete && changed && !m.Override:
		if n.state == reachable {
			n.enter(stale, n.link, time.Time{})
		}
		return
	case link == 0:
		link = n.link
		fallthrough
	default:
		if m.Solicited {
			n.enter(reachable, link, now.Add(reachableTime))
		} else if changed {
			n.enter(stale, link, time.Time{})
		}
	}
	n.touched = now
	if len(n.queue) > 0 && n.link != 0 {
		if n.state == stale {
			n.enter(delay, n.link, now.Add(delayFirstProbe))
		}
		r.flush(n)
	}
}

// entry returns the entry of a neighbour, and creates it if there is none.
func (r *sixOverFour) entry(a word6, now time.Time) *neighbour {
	n := r.cache.find(a)
	if n == nil {
		var gone *neighbour
		if n, gone = r.cache.add(a, now); gone != nil {
			r.giveUp(gone)
		}
	}
	return n
}

// giveUp drops the packets that wait for a neighbour.
func (r *sixOverFour) giveUp(n *neighbour) {
	r.lost += len(n.queue)
	for _, p := range n.queue {
		r.held -= len(p)
	}
	n.queue = nil
	n.publish()
}

// flush sends the packets that wait for a neighbour. Until Next they still count as
// held, so that their size stays bounded.
func (r *sixOverFour) flush(n *neighbour) {
	n.leaving++
	r.flushed = append(r.flushed, n)
	for _, p := range n.queue {
		r.leaving += len(p)
		r.list = append(r.list, Message{To: Endpoint4(n.link), Bytes: p})
	}
	n.queue = nil
	n.publish()
}

// sent is called after the messages that Next returned last were sent. Later packets can
// no longer overtake them.
func (r *sixOverFour) sent() {
	for _, n := range r.sending {
		n.leaving--
		n.publish()
	}
	clear(r.sending)
	r.sending, r.flushed = r.flushed, r.sending[:0]
}

// Hold follows RFC 4861 section 7.2.2. For a neighbour whose address is known but stale,
// it follows section 7.3.3: the packet goes there with the next messages. If too many
// packets wait for one neighbour, the oldest one is dropped.
func (r *sixOverFour) Hold(pkt []byte, now time.Time) bool {
	if len(pkt) < header.IPv6Len || r.held+len(pkt) > maxHeld {
		return false
	}
	next, ok := r.view.Load().next(readWord6(header.IPv6(pkt).Dest()))
	if !ok {
		return false
	}
	n := r.entry(next, now)
	n.touched = now
	if len(n.queue) == queueLen {
		r.held -= len(n.queue[0])
		n.queue = slices.Delete(n.queue, 0, 1)
		r.lost++
	}
	n.queue = append(n.queue, bytes.Clone(pkt))
	r.held += len(pkt)
	switch {
	case n.link == 0 && n.deadline.IsZero():
		n.enter(incomplete, 0, now)
	case n.state == stale:
		n.enter(delay, n.link, now.Add(delayFirstProbe))
		r.flush(n)
	case n.state != incomplete: // the neighbour answered between To and Hold
		r.flush(n)
	}
	return true
}

// Next sends the solicitations to neighbours and routers that are due.
func (r *sixOverFour) Next(now time.Time) (send []Message, lost int, again time.Time) {
	changed, again := r.expire(now)
	if changed && len(r.routers) == 0 {
		r.solicited = 0
	}
	again = earlier(again, r.askRouters(now))
	r.cache.all(func(n *neighbour) {
		for !n.deadline.IsZero() && !n.deadline.After(now) {
			if !r.due(n, now) {
				changed = true
				return
			}
		}
		again = earlier(again, n.deadline)
	})
	if changed {
		r.update()
	}
	r.held, r.leaving = r.held-r.leaving, 0
	lost, r.lost = r.lost, 0
	if r.sent(); len(r.sending) > 0 {
		again = now
	}
	return r.take(), lost, again
}

// askRouters sends a router solicitation, as often as a host may without an answer (RFC
// 4861 section 6.3.7).
func (r *sixOverFour) askRouters(now time.Time) time.Time {
	if r.solicited >= solicitations {
		return time.Time{}
	}
	if !r.solicit.After(now) {
		r.put(r.group(allRouters), nd.Append(nil, r.link.addr(), allRouters.addr(), &nd.Message{Type: nd.RouterSolicitation, Link: linkOption(r.local)}))
		r.solicited++
		r.solicit = now.Add(solicitInterval)
		if r.solicited == solicitations {
			return time.Time{}
		}
	}
	return r.solicit
}

// due handles the deadline of a neighbour. It returns false if it removed the entry.
func (r *sixOverFour) due(n *neighbour, now time.Time) bool {
	switch n.state {
	case reachable:
		n.enter(stale, n.link, time.Time{})
		return true
	case delay:
		n.enter(probe, n.link, now)
	}
	if n.tries == solicitTries || n.tries+n.unsent == mostTries {
		r.giveUp(n)
		r.cache.remove(n)
		if n.tries == solicitTries {
			r.failed(n.addr)
		}
		return false
	}
	if n.tries+n.unsent == solicitTries { // its packets must not wait longer
		r.giveUp(n)
	}
	n.deadline = now.Add(retransTimer)
	if r.ask(n, now) {
		n.tries++
	} else {
		n.unsent++
	}
	return true
}

// ask sends a solicitation to a neighbour, and reports whether the limits allowed it.
func (r *sixOverFour) ask(n *neighbour, now time.Time) bool {
	target, m := n.addr.addr(), &nd.Message{Type: nd.NeighborSolicitation, Target: n.addr.addr(), Link: linkOption(r.local)}
	if n.state == probe {
		return r.put(n.link, nd.Append(nil, r.link.addr(), target, m))
	}
	if !r.solicits.take(now, solicitsPerSecond) {
		return false
	}
	all := nd.SolicitedNode(target)
	b := all.As16()
	return r.put(r.group(readWord6(b[:])), nd.Append(nil, r.link.addr(), all, m))
}

// Entries returns the neighbour cache.
func (r *sixOverFour) Entries(now time.Time) (list []Entry) {
	r.cache.all(func(n *neighbour) {
		e := Entry{Node: n.addr.addr(), State: n.state.String(), Age: now.Sub(n.touched)}
		if n.link != 0 {
			e.Link = netip.AddrPortFrom(addr4(n.link), 0)
		}
		list = append(list, e)
	})
	slices.SortFunc(list, func(a, b Entry) int { return a.Node.Compare(b.Node) })
	return list
}
