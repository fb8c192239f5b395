package engine

import (
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/transport"
	"sixfour/transport/wait"
	"sixfour/tun"
)

// inbound carries one shard of the packets to an outer address of ours to the
// TUN devices of the tunnels that end there, on one goroutine.
type inbound struct {
	local netip.Addr
	rx    transport.Receiver
	ends  atomic.Pointer[ends]
	drops drops // of packets that belong to no tunnel

	bufs    [][]byte
	sizes   []int
	touched []*end // have packets of the current batch
	reply   []byte // for an answer of our own
	scratch []byte // its IPv6 fragments
	pieces  []byte // and those of IPv4
}

// ends are tunnels by the pair of addresses as it stands in a packet: the peer's
// and ours. They are immutable: a change replaces them all.
type ends map[[8]byte]*end

// end is one tunnel's side of an inbound: it belongs to the inbound's goroutine.
type end struct {
	pair   [8]byte // the peer's address and ours, as they stand in a packet
	t      *tunnel
	local  [16]byte // our end of the layer that probes test
	host   bool     // and the interface does not carry it, so that we must answer there
	stack  *encap.Stack
	clamp  clamp
	drops  drops
	queue  int // of the device
	gather *tun.Gatherer
	bytes  int // of the packets in it
}

// buffers makes n buffers of size bytes each. Memory is only taken where
// packets really are: the kernel maps a page when it is first written to.
func buffers(n, size int) [][]byte {
	arena := make([]byte, n*size)
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = arena[i*size : (i+1)*size : (i+1)*size]
	}
	return bufs
}

func (e *Engine) newInbound(local netip.Addr, rx transport.Receiver) *inbound {
	in := &inbound{
		local:   local,
		rx:      rx,
		bufs:    buffers(transport.BatchSize, transport.MaxPacket),
		sizes:   make([]int, transport.BatchSize),
		reply:   make([]byte, encap.Headroom+transport.MaxPacket),
		scratch: make([]byte, encap.Headroom+transport.MaxPacket),
		pieces:  make([]byte, transport.MaxPacket),
	}
	in.drops = drops{counters: &e.stray, log: e.log.Named("in").With(zap.Stringer("local", local))}
	in.ends.Store(&ends{})
	return in
}

// newEnd is made anew with each table; its counters are the tunnel's.
func newEnd(t *tunnel, p *path, queue int) *end {
	remote, local := p.endpoints.Remote.As4(), p.endpoints.Local.As4()
	ours, _ := probeEnds(p.endpoints)
	return &end{
		t:      t,
		local:  ours.As16(),
		host:   !slices.ContainsFunc(t.cfg.Address, func(p netip.Prefix) bool { return p.Addr() == ours }),
		pair:   [8]byte(append(remote[:], local[:]...)),
		queue:  queue,
		stack:  p.stack,
		clamp:  p.clamp,
		drops:  drops{counters: &t.in, log: t.log.Named("in")},
		gather: tun.NewGatherer(transport.BatchSize, int(t.mtu)),
	}
}

// replace lets packets for a tunnel come to an end, and to no other of it.
func (in *inbound) replace(e *end) {
	table := in.without(e.t)
	table[e.pair] = e
	in.ends.Store(&table)
}

// remove forgets a tunnel, and returns how many are left.
func (in *inbound) remove(t *tunnel) int {
	table := in.without(t)
	in.ends.Store(&table)
	return len(table)
}

func (in *inbound) without(t *tunnel) ends {
	table := maps.Clone(*in.ends.Load())
	maps.DeleteFunc(table, func(_ [8]byte, e *end) bool { return e.t == t })
	return table
}

// run works until the receiver is closed.
func (in *inbound) run() {
	wait.Thread()
	for {
		n, err := in.rx.Receive(in.bufs, in.sizes)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			in.drops.log.Warn("receive", zap.Error(err))
			time.Sleep(readPause)
			continue
		}
		in.carry(n)
		nap(n)
	}
}

// carry decapsulates the n packets that were received and writes them to their
// devices.
func (in *inbound) carry(n int) {
	ends := *in.ends.Load()
	for i, size := range in.sizes[:n] {
		buf := in.bufs[i]
		pkt := buf[:size]
		if size < header.IPv4Len { // an IPv4 packet too large for its buffer has size 0
			in.drops.count(drop.Truncated, pkt)
			continue
		}
		e := ends[[8]byte(pkt[12:])]
		if e == nil {
			in.drops.count(drop.ForeignSource, pkt)
			continue
		}
		inner, r := e.stack.Decapsulate(pkt)
		if r == drop.Fragment && inner != nil {
			if inner, r = e.reassemble(inner); inner == nil && r == drop.None {
				continue
			}
		}
		if r != drop.None {
			e.drops.count(r, pkt)
			continue
		}
		if header.Version(inner) == 6 && [16]byte(header.IPv6(inner).Dest()) == e.local && in.take(e, inner) {
			continue
		}
		e.clamp.apply(inner)
		if e.gather.Len() == 0 {
			in.touched = append(in.touched, e)
		}
		e.gather.Add(inner)
		e.bytes += len(inner)
	}
	for _, e := range in.touched {
		e.flush()
	}
	in.touched = in.touched[:0]
}

// flush writes the packets to the tunnel's device.
func (e *end) flush() {
	n := e.gather.Len()
	if dev := e.t.device.Load(); dev == nil {
		e.gather.Discard()
		e.drops.countN(drop.InterfaceDown, n, nil, nil)
	} else {
		refused := e.gather.Write(dev.Queues()[e.queue])
		if refused.Packets > 0 {
			e.drops.countN(writeReason(refused.Err), refused.Packets, nil, refused.Err)
		}
		if n > refused.Packets {
			e.t.in.carried(n-refused.Packets, e.bytes-refused.Bytes)
		}
		if e.t.unknown.Load() {
			e.t.unknown.Store(false)
			e.t.arrived.Store(true)
			e.t.prober.rouse()
		}
	}
	e.bytes = 0
}

// writeReason says under which reason a packet goes that the device refused.
func writeReason(err error) drop.Reason {
	if errors.Is(err, tun.ErrDown) || errors.Is(err, tun.ErrGone) {
		return drop.InterfaceDown
	}
	return drop.TunFailed
}

// take is the door for packets to our end of the layer under the inner packets:
// answers to probes, ICMPv6 errors about packets of the layer, and, where the
// interface does not carry the address, everything else. It reports whether the
// packet is done with.
func (in *inbound) take(e *end, inner []byte) bool {
	ours := e.t.answer(header.IPv6(inner))
	if !ours {
		err, ok := icmp.Parse(inner)
		ours = ok && e.t.hear(err)
	}
	if ours {
		e.t.in.carried(1, len(inner))
		return true
	}
	if e.host {
		in.answer(e, inner)
	}
	return e.host
}

// answer is the door for packets to the IPv6 layer's own address when the
// interface does not carry it: the daemon is the host then, and answers echo
// requests, so that the layer can be tested (seed: ping fc00::2 before ping
// 10.0.0.2).
func (in *inbound) answer(e *end, inner []byte) {
	size := len(inner)
	if !echoReply(in.reply[encap.Headroom:], inner) {
		e.drops.count(drop.UnknownProtocol, inner)
		return
	}
	p := e.t.path.Load()
	if p == nil {
		e.drops.count(drop.NoRoute, inner)
		return
	}
	// A reply is as large as its request, and the way back may be narrower.
	whole := in.reply[encap.Headroom : encap.Headroom+size]
	for piece := range fragment.IPv6(whole, int(p.stack.Limit(6)), rand.Uint32(), in.scratch, encap.Headroom) {
		pkt, r := p.stack.Encapsulate(in.scratch[:encap.Headroom+len(piece)], encap.Headroom)
		if r != drop.None {
			e.drops.count(r, inner)
			return
		}
		for f := range fragment.IPv4(pkt, int(p.mtu), in.pieces, 0) {
			if err := p.senders[0].SendOne(f); err != nil {
				e.drops.countN(sendReason(err), 1, inner, err)
				return
			}
		}
	}
	e.t.in.carried(1, size)
	e.t.answered.Add(1)
}

// ICMPv6 echo (RFC 4443 section 4).
const (
	echoRequest6   = 128
	echoReply6     = 129
	echoHeaderLen  = 8
	answerHopLimit = 64
)

// echoReply writes the reply to an ICMPv6 echo request into reply, which must
// have room for as many bytes, and reports whether req is one: whole, without
// extension headers, from a unicast address, with a good checksum.
func echoReply(reply, req []byte) bool {
	ip := header.IPv6(req)
	msg := ip.Payload()
	if ip.NextHeader() != header.ICMPv6 || len(msg) < echoHeaderLen || msg[0] != echoRequest6 || msg[1] != 0 ||
		ip.Source()[0] == 0xff || header.Sum(msg, header.PseudoSum(ip.Source(), ip.Dest(), len(msg), header.ICMPv6)) != 0xffff {
		return false
	}
	r := header.IPv6(reply[:len(req)])
	copy(r, req)
	r[7] = answerHopLimit
	copy(r.Source(), ip.Dest())
	copy(r.Dest(), ip.Source())
	m := r.Payload()
	m[0] = echoReply6
	before, after := binary.BigEndian.Uint16(msg), binary.BigEndian.Uint16(m)
	binary.BigEndian.PutUint16(m[2:], header.Update(binary.BigEndian.Uint16(msg[2:]), before, after))
	return true
}
