// Package prober sends test packets to a peer or a host, and reads the answers and the
// ICMP errors about them. It encapsulates packets and opens raw sockets with the packages
// that the daemon uses, so that its probes look and are routed like the daemon's packets.
package prober

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
	"sixfour/encap/source"
	"sixfour/internal/probe"
	"sixfour/transport"
)

// Prober sends packets to a peer and receives the answers. Raw sockets get a copy of each
// packet, so a daemon that runs at the same time is not disturbed.
type Prober struct {
	Layers        []encap.Layer
	stack         *encap.Stack
	local, remote netip.Addr // outer addresses
	*waiting

	sender                       transport.Sender
	tunnelReceiver, icmpReceiver transport.Receiver // for the tunnel's protocol, and for ICMP
	wg                           sync.WaitGroup
}

// waiting is the probes that wait for answers, of one or more Probers: the answer to a probe
// may come by another path to the peer than the probe.
type waiting struct {
	ID probe.Identity

	mu      sync.Mutex
	seq     uint16
	pending map[uint16]*Probe
	answers int // number of answers received
	others  int // number of other packets of the tunnel's protocol from the peer
}

// Kind is how a probe is sent.
type Kind uint8

const (
	Inside    Kind = iota // an echo request between two inner addresses, through the tunnel
	Loop                  // an echo request to ourselves, which a relay returns (RFC 5969 section 8)
	Keepalive             // a GRE keepalive as routers send it, which the peer returns (mechanisms 8)
	Outside               // an echo request to the peer's outer address
)

// Probe is a packet that asks for an answer.
type Probe struct {
	Kind               Kind
	Local, Remote      netip.Addr // inside: the inner addresses
	Size               int        // of the outer packet, in bytes; 0: small
	TTL                byte       // TTL of an outside one; 0: the default
	Fragmented         bool       // send it in two fragments
	InnerECN, OuterECN byte       // ECN fields

	sent    time.Time
	packet  []byte // as it was sent
	replies chan Reply
}

// Reply is what a probe caused: an answer, or an ICMP error about it.
type Reply struct {
	Answer             bool
	RTT                time.Duration
	InnerECN, OuterECN byte       // ECN fields of the answer
	ICMP               icmp.Error // if answer is false
	From               netip.Addr // source of the error
}

const (
	// Tries is how often an unanswered probe is sent.
	Tries = 3
	// AnswerTimeout is how long to wait for an answer.
	AnswerTimeout = time.Second
	// lastLimit is how long to wait after the last try: a router needs 3 s in all to find
	// that the address is unused (RFC 4861 section 10: MAX_MULTICAST_SOLICIT times
	// RETRANS_TIMER).
	lastLimit = 1500 * time.Millisecond
	// grace is how long an answer may still come after an ICMP error.
	grace = 200 * time.Millisecond
)

// New opens the sockets. Link-local addresses are on the given device. With another Prober,
// each of the two also receives the answers to the probes of the other one.
func New(layers []encap.Layer, o encap.Options, mark uint32, device int, with *Prober) (*Prober, error) {
	l := layers[len(layers)-1]
	a := &Prober{Layers: layers, local: l.Local.WithZone(""), remote: l.Remote.WithZone("")}
	if with != nil {
		a.waiting = with.waiting
	} else {
		a.waiting = &waiting{ID: probe.NewIdentity(), seq: uint16(rand.Uint32()), pending: make(map[uint16]*Probe)}
	}
	// A path MTU larger than any packet here, so that each packet is sent with DF.
	const wide = transport.MaxPacket
	var err error
	if a.stack, err = encap.New(layers, wide, o, source.New(nil, nil, false), encap.NewRecord()); err != nil {
		return nil, err
	}
	options := transport.Options{Mark: mark}
	if l.Local.Zone() != "" || l.Remote.Zone() != "" {
		options.Device = device
	}
	if a.sender, err = transport.DialRaw(l.Local, int(l.Kind.Protocol()), options); err != nil {
		return nil, err
	}
	rx, err := transport.ListenRaw(l.Local, int(l.Kind.Protocol()), transport.Shard{}, options)
	if err != nil {
		a.sender.Close()
		return nil, err
	}
	protocol := header.ICMP
	if l.Local.Is6() {
		protocol = header.ICMPv6
	}
	ec, err := transport.ListenRaw(l.Local, protocol, transport.Shard{}, options)
	if err != nil {
		a.sender.Close()
		rx.Close()
		return nil, err
	}
	a.tunnelReceiver, a.icmpReceiver = rx, ec
	a.wg.Go(func() { a.receiveAll(rx, a.receivePacket) })
	a.wg.Go(func() { a.receiveAll(ec, a.receiveICMP) })
	return a, nil
}

// Close closes the sockets, and waits until nothing is received any more.
func (a *Prober) Close() {
	a.sender.Close()
	a.tunnelReceiver.Close()
	a.icmpReceiver.Close()
	a.wg.Wait()
}

func (a *Prober) receiveAll(rx transport.Receiver, hear func([]byte)) {
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

// Outcome is the result of a probe.
type Outcome struct {
	Reply
	Replied bool  // there is a reply
	Err     error // the probe could not be sent; nil: it was
}

// Answered reports whether the probe was answered.
func (o Outcome) Answered() bool { return o.Replied && o.Answer }

// Expect prepares to receive the answer to an echo request that the kernel sends, and
// returns the sequence number that the request must have. Call forget afterwards.
func (a *Prober) Expect() (seq uint16, replies <-chan Reply) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seq++
	q := &Probe{sent: time.Now(), replies: make(chan Reply, 2)}
	a.pending[a.seq] = q
	return a.seq, q.replies
}

// SendOnce sends a probe once.
func (a *Prober) SendOnce(ctx context.Context, q Probe) Outcome { return a.sendTimes(ctx, q, 1) }

// Send sends a probe, at most tries times, until there is an answer or an ICMP error.
// An answer takes precedence over an earlier error: a kernel that does not know of the
// tunnel daemon on its host sends an error although the daemon answers.
func (a *Prober) Send(ctx context.Context, q Probe) Outcome { return a.sendTimes(ctx, q, Tries) }

func (a *Prober) sendTimes(ctx context.Context, q Probe, left int) (o Outcome) {
	q.replies = make(chan Reply, 2*Tries)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case r := <-q.replies:
			o = Outcome{Reply: r, Replied: true}
			if r.Answer {
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
			defer a.Forget(seq) // only at the end: errors may come late
			left--
			switch {
			case err != nil:
				o.Err = err
				timer.Reset(grace)
			case left == 0:
				timer.Reset(lastLimit)
			default:
				timer.Reset(AnswerTimeout)
			}
		case <-ctx.Done():
			return o
		}
	}
}

// SendAll sends probes concurrently.
func (a *Prober) SendAll(ctx context.Context, probes []Probe) []Outcome {
	outcomes := make([]Outcome, len(probes))
	var wg sync.WaitGroup
	for i := range probes {
		wg.Go(func() { outcomes[i] = a.Send(ctx, probes[i]) })
	}
	wg.Wait()
	return outcomes
}

// post sends a probe.
func (a *Prober) post(q *Probe) (seq uint16, err error) {
	a.mu.Lock()
	a.seq++
	seq = a.seq
	q.packet, err = a.build(q, seq)
	q.sent = time.Now()
	a.pending[seq] = q
	a.mu.Unlock()
	if err != nil {
		return seq, err
	}
	if !q.Fragmented {
		return seq, a.sender.SendOne(q.packet)
	}
	for piece := range a.split(q.packet, seq) {
		if err := a.sender.SendOne(piece); err != nil {
			return seq, err
		}
	}
	return seq, nil
}

// OtherPackets returns the number of packets from the peer that are not answers.
func (a *Prober) OtherPackets() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.others
}

// Forget ends the wait for answers to a probe.
func (a *Prober) Forget(seq uint16) {
	a.mu.Lock()
	delete(a.pending, seq)
	a.mu.Unlock()
}

// split splits a packet into two fragments.
func (a *Prober) split(packet []byte, seq uint16) func(func([]byte) bool) {
	half := len(packet)/2 + header.IPv6Len
	b := make([]byte, len(packet)+header.IPv6Len+fragment.HeaderLen)
	if header.Version(packet) == 4 {
		ip := header.IPv4(packet)
		binary.BigEndian.PutUint16(ip[6:], 0) // without DF
		ip.SetChecksum()
		return fragment.IPv4(packet, half, b, 0)
	}
	return fragment.IPv6(packet, half, uint32(a.ID.ID)<<16|uint32(seq), b, 0)
}

// hopLimit is the hop limit of probes, large enough for any path.
const hopLimit = 64

// build makes the packet of a probe. mu must be held.
func (a *Prober) build(q *Probe, seq uint16) ([]byte, error) {
	var packet []byte
	var err error
	switch q.Kind {
	case Outside:
		packet = make([]byte, max(q.Size, IPLen(a.local)+probe.Len))
		a.ID.Fill(packet, a.local, a.remote, seq)
		ttl := q.TTL
		if ttl == 0 {
			ttl = hopLimit
		}
		setTTL(packet, ttl)
	case Keepalive:
		packet, err = a.encapsulate(a.keepalive(q, seq))
	default:
		version := 4
		if q.Local.Is6() {
			version = 6
		}
		inner := make([]byte, max(q.Size-a.stack.Overhead(version), IPLen(q.Local)+probe.Len))
		a.ID.Fill(inner, q.Local, q.Remote, seq)
		setECN(inner, q.InnerECN)
		packet, err = a.encapsulate(inner)
	}
	if err != nil {
		return nil, err
	}
	setECN(packet, q.OuterECN)
	if header.Version(packet) == 4 { // an ICMP error quotes this field: it identifies the probe
		binary.BigEndian.PutUint16(packet[4:], seq)
		header.IPv4(packet).SetChecksum()
	}
	return packet, nil
}

func (a *Prober) encapsulate(inner []byte) ([]byte, error) {
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
func (a *Prober) keepalive(q *Probe, seq uint16) []byte {
	n, version := IPLen(a.local), 4
	if a.local.Is6() {
		version = 6
	}
	b := make([]byte, max(q.Size-a.stack.Overhead(version), n+header.GRELen+probe.Len))
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
	binary.BigEndian.PutUint16(m[probe.IDAt:], a.ID.ID)
	binary.BigEndian.PutUint16(m[probe.SeqAt:], seq)
	copy(m[probe.CookieAt:], a.ID.Cookie[:])
	setECN(b, q.InnerECN)
	return b
}

// IPLen returns the length of the IP header for the version of an address.
func IPLen(a netip.Addr) int {
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
