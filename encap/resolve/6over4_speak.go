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

// Receive handles all neighbour discovery messages except router solicitations, which are
// for a router behind the interface.
func (r *sixOverFour) Receive(o header.Outer, inner []byte, now time.Time) bool {
	from, ip := source4(o), header.IPv6(inner)
	if !nd.Is(ip) {
		return false
	}
	m, ok := nd.Parse(ip)
	if !ok {
		return true
	}
	src := header.ReadWord6(ip.Source())
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
		r.Advertised(&m, src, now)
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
func (r *sixOverFour) noticed(a header.Word6, link uint32, now time.Time) {
	if link == 0 || a == (header.Word6{}) || header.IsMulticast(a) {
		return
	}
	n := r.entry(a, now)
	n.Touched = now
	if n.Link == link {
		return
	}
	n.Enter(nd.Stale, link, time.Time{})
	if len(n.Queue) > 0 {
		n.Enter(nd.Delay, link, now.Add(nd.DelayFirstProbe))
		r.flush(n)
	}
}

func (r *sixOverFour) ours(a header.Word6) bool {
	return a == r.link || slices.Contains(r.own6, a) || r.Has(a)
}

// answer sends our link-layer address to the node that asks for it (RFC 4861 section
// 7.2.4), or to all nodes if the node checks whether an address is in use.
func (r *sixOverFour) answer(from uint32, src header.Word6, ip header.IPv6, m *nd.Message, now time.Time) {
	t := m.Target.As16()
	if !r.ours(header.ReadWord6(t[:])) {
		return
	}
	a := &nd.Message{Type: nd.NeighborAdvertisement, Target: m.Target, Solicited: true, Override: true, Link: linkOption(r.local)}
	if src == (header.Word6{}) {
		a.Solicited = false
		if r.answers.Take(now, answersPerSecond) {
			r.put(r.group(nd.AllNodes), nd.Append(nil, m.Target, nd.AllNodes.Addr(), a))
		}
		return
	}
	if n := r.cache.Find(src); n != nil && n.Link != 0 {
		from = n.Link
	}
	r.put(from, nd.Append(nil, m.Target, ip.Src(), a))
}

// confirmed handles a neighbour advertisement as in RFC 4861 section 7.2.5.
func (r *sixOverFour) confirmed(m *nd.Message, now time.Time) {
	t := m.Target.As16()
	n := r.cache.Find(header.ReadWord6(t[:]))
	if n == nil {
		return // an answer without a question
	}
	link := r.linkAddr(m)
	if !m.Router && slices.ContainsFunc(r.Routers, func(q nd.Router) bool { return q.Addr == n.Addr }) {
		r.Routers = slices.DeleteFunc(r.Routers, func(q nd.Router) bool { return q.Addr == n.Addr })
		r.update()
	}
	switch changed := link != 0 && link != n.Link; {
	case n.State == nd.Incomplete && link == 0:
		return
	case n.State != nd.Incomplete && changed && !m.Override:
		if n.State == nd.Reachable {
			n.Enter(nd.Stale, n.Link, time.Time{})
		}
		return
	case link == 0:
		link = n.Link
		fallthrough
	default:
		if m.Solicited {
			n.Enter(nd.Reachable, link, now.Add(nd.ReachableTime))
		} else if changed {
			n.Enter(nd.Stale, link, time.Time{})
		}
	}
	n.Touched = now
	if len(n.Queue) > 0 && n.Link != 0 {
		if n.State == nd.Stale {
			n.Enter(nd.Delay, n.Link, now.Add(nd.DelayFirstProbe))
		}
		r.flush(n)
	}
}

// entry returns the entry of a neighbour, and creates it if there is none.
func (r *sixOverFour) entry(a header.Word6, now time.Time) *nd.Neighbour {
	n := r.cache.Find(a)
	if n == nil {
		var gone *nd.Neighbour
		if n, gone = r.cache.Add(a, now); gone != nil {
			r.giveUp(gone)
		}
	}
	return n
}

// giveUp drops the packets that wait for a neighbour.
func (r *sixOverFour) giveUp(n *nd.Neighbour) {
	r.lost += len(n.Queue)
	for _, p := range n.Queue {
		r.held -= len(p)
	}
	n.Queue = nil
	n.Publish()
}

// flush sends the packets that wait for a neighbour. Until Next they still count as
// held, so that their size stays bounded.
func (r *sixOverFour) flush(n *nd.Neighbour) {
	n.Leaving++
	r.flushed = append(r.flushed, n)
	for _, p := range n.Queue {
		r.leaving += len(p)
		r.list = append(r.list, Message{To: Endpoint4(n.Link), Bytes: p})
	}
	n.Queue = nil
	n.Publish()
}

// sent is called after the messages that Next returned last were sent. Later packets can
// no longer overtake them.
func (r *sixOverFour) sent() {
	for _, n := range r.sending {
		n.Leaving--
		n.Publish()
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
	next, ok := r.view.Load().next(header.ReadWord6(header.IPv6(pkt).Dest()))
	if !ok {
		return false
	}
	n := r.entry(next, now)
	n.Touched = now
	if len(n.Queue) == nd.QueueLen {
		r.held -= len(n.Queue[0])
		n.Queue = slices.Delete(n.Queue, 0, 1)
		r.lost++
	}
	n.Queue = append(n.Queue, bytes.Clone(pkt))
	r.held += len(pkt)
	switch {
	case n.Link == 0 && n.Deadline.IsZero():
		n.Enter(nd.Incomplete, 0, now)
	case n.State == nd.Stale:
		n.Enter(nd.Delay, n.Link, now.Add(nd.DelayFirstProbe))
		r.flush(n)
	case n.State != nd.Incomplete: // the neighbour answered between To and Hold
		r.flush(n)
	}
	return true
}

// Next sends the solicitations to neighbours and routers that are due.
func (r *sixOverFour) Next(now time.Time) (send []Message, lost int, again time.Time) {
	changed, again := r.Expire(now)
	if changed && len(r.Routers) == 0 {
		r.solicited = 0
	}
	again = nd.Earlier(again, r.askRouters(now))
	r.cache.All(func(n *nd.Neighbour) {
		for !n.Deadline.IsZero() && !n.Deadline.After(now) {
			if !r.due(n, now) {
				changed = true
				return
			}
		}
		again = nd.Earlier(again, n.Deadline)
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
		r.put(r.group(nd.AllRouters), nd.Append(nil, r.link.Addr(), nd.AllRouters.Addr(), &nd.Message{Type: nd.RouterSolicitation, Link: linkOption(r.local)}))
		r.solicited++
		r.solicit = now.Add(solicitInterval)
		if r.solicited == solicitations {
			return time.Time{}
		}
	}
	return r.solicit
}

// due handles the deadline of a neighbour. It returns false if it removed the entry.
func (r *sixOverFour) due(n *nd.Neighbour, now time.Time) bool {
	switch n.State {
	case nd.Reachable:
		n.Enter(nd.Stale, n.Link, time.Time{})
		return true
	case nd.Delay:
		n.Enter(nd.Probe, n.Link, now)
	}
	if n.Tries == nd.SolicitTries || n.Tries+n.Unsent == nd.MostTries {
		r.giveUp(n)
		r.cache.Remove(n)
		if n.Tries == nd.SolicitTries {
			r.Failed(n.Addr)
		}
		return false
	}
	if n.Tries+n.Unsent == nd.SolicitTries { // its packets must not wait longer
		r.giveUp(n)
	}
	n.Deadline = now.Add(nd.RetransTimer)
	if r.ask(n, now) {
		n.Tries++
	} else {
		n.Unsent++
	}
	return true
}

// ask sends a solicitation to a neighbour, and reports whether the limits allowed it.
func (r *sixOverFour) ask(n *nd.Neighbour, now time.Time) bool {
	target, m := n.Addr.Addr(), &nd.Message{Type: nd.NeighborSolicitation, Target: n.Addr.Addr(), Link: linkOption(r.local)}
	if n.State == nd.Probe {
		return r.put(n.Link, nd.Append(nil, r.link.Addr(), target, m))
	}
	if !r.solicits.Take(now, solicitsPerSecond) {
		return false
	}
	all := nd.SolicitedNode(target)
	b := all.As16()
	return r.put(r.group(header.ReadWord6(b[:])), nd.Append(nil, r.link.Addr(), all, m))
}

// Entries returns the neighbour cache.
func (r *sixOverFour) Entries(now time.Time) (list []Entry) {
	r.cache.All(func(n *nd.Neighbour) {
		e := Entry{Node: n.Addr.Addr(), State: n.State.String(), Age: now.Sub(n.Touched)}
		if n.Link != 0 {
			e.Link = netip.AddrPortFrom(addr4(n.Link), 0)
		}
		list = append(list, e)
	})
	slices.SortFunc(list, func(a, b Entry) int { return a.Node.Compare(b.Node) })
	return list
}
