package doctor

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"sixfour/encap"
	"sixfour/encap/drop"
	"sixfour/encap/fragment"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/encap/resolve"
	"sixfour/internal/probe"
	"sixfour/transport"
)

// asker sends packets to a peer and receives the answers. Raw sockets get a copy of each
// packet, so a daemon that runs at the same time is not disturbed.
type asker struct {
	layers        []encap.Layer
	stack         *encap.Stack
	local, remote netip.Addr // outer addresses
	id            probe.Identity

	send   transport.Sender
	rx, ec transport.Receiver // for the tunnel's protocol, and for ICMP
	wg     sync.WaitGroup

	mu      sync.Mutex
	seq     uint16
	waiting map[uint16]*question
	told    int // number of answers received
	heard   int // number of other packets of the tunnel's protocol from the peer
}

// way is how a question is sent.
type way uint8

const (
	inside    way = iota // an echo request between two inner addresses, through the tunnel
	loop                 // an echo request to ourselves, which a relay returns (RFC 5969 section 8)
	keepalive            // a GRE keepalive as routers send it, which the peer returns (mechanisms 8)
	outside              // an echo request to the peer's outer address
)

// question is a packet that asks for an answer.
type question struct {
	way           way
	local, remote netip.Addr // inside: the inner addresses
	size          int        // of the outer packet, in bytes; 0: small
	ttl           byte       // TTL of an outside one; 0: the default
	pieces        bool       // send it in two fragments
	inner, outer  byte       // ECN fields

	sent    time.Time
	packet  []byte // as it was sent
	replies chan reply
}

// reply is what a question caused: an answer, or an ICMP error about it.
type reply struct {
	answer       bool
	rtt          time.Duration
	inner, outer byte       // ECN fields of the answer
	err          icmp.Error // if answer is false
	from         netip.Addr // source of the error
}

const (
	// tries is how often an unanswered question is sent.
	tries = 3
	// answerLimit is how long to wait for an answer.
	answerLimit = time.Second
	// lastLimit is how long to wait after the last try: a router needs 3 s in all to find
	// that the address is unused (RFC 4861 section 10: MAX_MULTICAST_SOLICIT times
	// RETRANS_TIMER).
	lastLimit = 1500 * time.Millisecond
	// grace is how long an answer may still come after an ICMP error.
	grace = 200 * time.Millisecond
)

// newAsker opens the sockets. Link-local addresses are on the given device.
func newAsker(layers []encap.Layer, o encap.Options, mark uint32, device int) (*asker, error) {
	l := layers[len(layers)-1]
	a := &asker{layers: layers, local: l.Local.WithZone(""), remote: l.Remote.WithZone(""), id: probe.NewIdentity(), seq: uint16(rand.Uint32()), waiting: make(map[uint16]*question)}
	// A path MTU larger than any packet here, so that each packet is sent with DF.
	const wide = transport.MaxPacket
	var err error
	if a.stack, err = encap.New(layers, wide, o, resolve.NewSources(nil, nil, false), encap.NewRecord()); err != nil {
		return nil, err
	}
	options := transport.Options{Mark: mark}
	if l.Local.Zone() != "" || l.Remote.Zone() != "" {
		options.Device = device
	}
	if a.send, err = transport.DialRaw(l.Local, int(l.Kind.Protocol()), options); err != nil {
		return nil, err
	}
	rx, err := transport.ListenRaw(l.Local, int(l.Kind.Protocol()), transport.Shard{}, options)
	if err != nil {
		a.send.Close()
		return nil, err
	}
	protocol := header.ICMP
	if l.Local.Is6() {
		protocol = header.ICMPv6
	}
	ec, err := transport.ListenRaw(l.Local, protocol, transport.Shard{}, options)
	if err != nil {
		a.send.Close()
		rx.Close()
		return nil, err
	}
	a.rx, a.ec = rx, ec
	a.wg.Go(func() { a.receive(rx, a.hear) })
	a.wg.Go(func() { a.receive(ec, a.hearICMP) })
	return a, nil
}

func (a *asker) close() {
	a.send.Close()
	a.rx.Close()
	a.ec.Close()
	a.wg.Wait()
}

func (a *asker) receive(rx transport.Receiver, hear func([]byte)) {
	const batch = 8
	bufs, meta := make([][]byte, batch), make([]transport.Meta, batch)
	for i := range bufs {
		bufs[i] = make([]byte, transport.MaxPacket)
	}
	for {
		n, err := rx.Receive(bufs, meta)
		if err != nil {
			return
		}
		for i, m := range meta[:n] {
			hear(bufs[i][:m.Size])
		}
	}
}

// outcome is the result of a question.
type outcome struct {
	reply
	ok  bool  // there is a reply
	err error // the question could not be sent; nil: it was
}

// answered reports whether the question was answered.
func (o outcome) answered() bool { return o.ok && o.answer }

// expect prepares to receive the answer to an echo request that the kernel sends, and
// returns the sequence number that the request must have.
func (a *asker) expect(q *question) (seq uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seq++
	q.sent = time.Now()
	a.waiting[a.seq] = q
	return a.seq
}

// askOnce sends a question once.
func (a *asker) askOnce(ctx context.Context, q question) outcome { return a.askTimes(ctx, q, 1) }

// ask sends a question, at most tries times, until there is an answer or an ICMP error. An
// answer takes precedence over an earlier error: a kernel that does not know of the tunnel
// daemon on its host sends an error although the daemon answers.
func (a *asker) ask(ctx context.Context, q question) outcome { return a.askTimes(ctx, q, tries) }

func (a *asker) askTimes(ctx context.Context, q question, left int) (o outcome) {
	q.replies = make(chan reply, 2*tries)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case r := <-q.replies:
			o = outcome{reply: r, ok: true}
			if r.answer {
				return o
			}
			left = 0
			timer.Reset(grace)
		case <-timer.C:
			if left == 0 || ctx.Err() != nil {
				return o
			}
			one := q
			seq, err := a.post(&one)
			defer a.forget(seq) // only at the end: errors may come late
			left--
			switch {
			case err != nil:
				o.err = err
				timer.Reset(grace)
			case left == 0:
				timer.Reset(lastLimit)
			default:
				timer.Reset(answerLimit)
			}
		case <-ctx.Done():
			return o
		}
	}
}

// askAll sends questions concurrently.
func (a *asker) askAll(ctx context.Context, questions []question) []outcome {
	outcomes := make([]outcome, len(questions))
	var wg sync.WaitGroup
	for i := range questions {
		wg.Go(func() { outcomes[i] = a.ask(ctx, questions[i]) })
	}
	wg.Wait()
	return outcomes
}

// post sends a question.
func (a *asker) post(q *question) (seq uint16, err error) {
	a.mu.Lock()
	a.seq++
	seq = a.seq
	q.packet, err = a.build(q, seq)
	q.sent = time.Now()
	a.waiting[seq] = q
	a.mu.Unlock()
	if err != nil {
		return seq, err
	}
	if !q.pieces {
		return seq, a.send.SendOne(q.packet)
	}
	for piece := range a.cut(q.packet, seq) {
		if err := a.send.SendOne(piece); err != nil {
			return seq, err
		}
	}
	return seq, nil
}

// fromPeer returns the number of packets from the peer that are not answers.
func (a *asker) fromPeer() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.heard
}

func (a *asker) forget(seq uint16) {
	a.mu.Lock()
	delete(a.waiting, seq)
	a.mu.Unlock()
}

// cut splits a packet into two fragments.
func (a *asker) cut(packet []byte, seq uint16) func(func([]byte) bool) {
	half := len(packet)/2 + header.IPv6Len
	b := make([]byte, len(packet)+header.IPv6Len+fragment.HeaderLen)
	if header.Version(packet) == 4 {
		ip := header.IPv4(packet)
		binary.BigEndian.PutUint16(ip[6:], 0) // without DF
		ip.SetChecksum()
		return fragment.IPv4(packet, half, b, 0)
	}
	return fragment.IPv6(packet, half, uint32(a.id.ID)<<16|uint32(seq), b, 0)
}

// hopLimit is the hop limit of questions, large enough for any path.
const hopLimit = 64

// build makes the packet of a question. mu must be held.
func (a *asker) build(q *question, seq uint16) ([]byte, error) {
	var packet []byte
	var err error
	switch q.way {
	case outside:
		packet = make([]byte, max(q.size, ipLen(a.local)+probe.Len))
		a.id.Fill(packet, a.local, a.remote, seq)
		ttl := q.ttl
		if ttl == 0 {
			ttl = hopLimit
		}
		setTTL(packet, ttl)
	case keepalive:
		packet, err = a.encapsulate(a.keepalive(q, seq))
	default:
		version := 4
		if q.local.Is6() {
			version = 6
		}
		inner := make([]byte, max(q.size-a.stack.Overhead(version), ipLen(q.local)+probe.Len))
		a.id.Fill(inner, q.local, q.remote, seq)
		setECN(inner, q.inner)
		packet, err = a.encapsulate(inner)
	}
	if err != nil {
		return nil, err
	}
	setECN(packet, q.outer)
	if header.Version(packet) == 4 { // an ICMP error quotes this field: it identifies the question
		binary.BigEndian.PutUint16(packet[4:], seq)
		header.IPv4(packet).SetChecksum()
	}
	return packet, nil
}

func (a *asker) encapsulate(inner []byte) ([]byte, error) {
	b := make([]byte, encap.Headroom+len(inner))
	copy(b[encap.Headroom:], inner)
	packet, r := a.stack.Encapsulate(b, encap.Headroom)
	if r != drop.None {
		return nil, refused(r)
	}
	return packet, nil
}

// refused is the reason why the tunnel does not carry a packet.
type refused drop.Reason

func (r refused) Error() string { return "the tunnel does not carry it: " + drop.Reason(r).String() }

// keepalive makes a GRE packet from the peer to us with protocol type 0, as routers'
// keepalives have, followed by the probe's identity.
func (a *asker) keepalive(q *question, seq uint16) []byte {
	n, version := ipLen(a.local), 4
	if a.local.Is6() {
		version = 6
	}
	b := make([]byte, max(q.size-a.stack.Overhead(version), n+header.GRELen+probe.Len))
	if a.local.Is4() {
		ip := header.IPv4(b)
		ip[0], ip[8], ip[9] = 0x45, hopLimit, header.GRE
		binary.BigEndian.PutUint16(ip[2:], uint16(len(b)))
		copy(ip.Source(), a.remote.AsSlice())
		copy(ip.Dest(), a.local.AsSlice())
		ip.SetChecksum()
	} else {
		ip := header.IPv6(b)
		ip[0], ip[6], ip[7] = 0x60, header.GRE, hopLimit
		binary.BigEndian.PutUint16(ip[4:], uint16(len(b)-header.IPv6Len))
		copy(ip.Source(), a.remote.AsSlice())
		copy(ip.Dest(), a.local.AsSlice())
	}
	m := b[n+header.GRELen:]
	m[0] = icmp.EchoReply4 // identifies it as an answer
	binary.BigEndian.PutUint16(m[probe.IDAt:], a.id.ID)
	binary.BigEndian.PutUint16(m[probe.SeqAt:], seq)
	copy(m[probe.CookieAt:], a.id.Cookie[:])
	setECN(b, q.inner)
	return b
}

// ipLen returns the length of the IP header for the version of an address.
func ipLen(a netip.Addr) int {
	if a.Is4() {
		return header.IPv4Len
	}
	return header.IPv6Len
}

func setTTL(packet []byte, ttl byte) {
	if header.Version(packet) == 4 {
		ip := header.IPv4(packet)
		ip[8] = ttl
		ip.SetChecksum()
		return
	}
	packet[7] = ttl
}

func setECN(packet []byte, ecn byte) {
	if header.Version(packet) == 4 {
		header.IPv4(packet).SetECN(ecn)
		return
	}
	header.IPv6(packet).SetECN(ecn)
}

func ecnOf(packet []byte) byte {
	if header.Version(packet) == 4 {
		return header.IPv4(packet).TOS() & header.ECNMask
	}
	return header.IPv6(packet).TrafficClass() & header.ECNMask
}
