// Package icmpreply sends ICMP errors to the senders of inner packets, as the kernel does
// for its own tunnels.
package icmpreply

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/netns"
	"sixfour/transport"
)

// Replier sends ICMP errors to inner senders. It sends from the network namespace of the
// tunnel's interface, as the kernel would for its own tunnels: the kernel chooses the
// source address and the route to the sender, which may be this host. Any goroutine may use
// it.
type Replier struct {
	namespace string
	iface     *atomic.Int64 // index of the interface
	log       *zap.Logger
	// Separate limits for our own errors and for errors relayed from others: forged ones
	// must not suppress our own.
	Own, relayed errorLimit

	Sent            Counts
	Limited, Failed atomic.Uint64

	mu      sync.Mutex
	senders map[int]*transport.ICMPSender // by IP version; opened when first needed
	retired bool                          // no sender may be opened any more
	deliver func(pkt []byte) error        // writes a packet to the interface, as one that has arrived
	msg     []byte
}

// New returns the replier of an interface in a network namespace; iface is the
// interface's index there.
func New(namespace string, iface *atomic.Int64, log *zap.Logger) *Replier {
	return &Replier{namespace: namespace, iface: iface, log: log.Named("icmp")}
}

// TooBig reports that a packet, head followed by body, is larger than mtu.
func (r *Replier) TooBig(mtu int, head, body []byte) {
	r.reply(&r.Own, true, head, func(b []byte) []byte { return icmp.AppendTooBig(b, mtu, head, body) })
}

// Unreachable translates an error about an outer packet for the sender of the inner one.
func (r *Replier) Unreachable(m icmp.Meaning, inner []byte) {
	typ, code := m.For(header.Version(inner))
	r.reply(&r.relayed, false, inner, func(b []byte) []byte { return icmp.Append(b, typ, code, 0, inner, nil) })
}

// NoWay reports that a packet has no destination.
func (r *Replier) NoWay(m icmp.Meaning, inner []byte) {
	typ, code := m.For(header.Version(inner))
	r.reply(&r.Own, false, inner, func(b []byte) []byte { return icmp.Append(b, typ, code, 0, inner, nil) })
}

// NoRoute reports a packet that would return to us, such as one to an unused subnet of our
// own prefix (RFC 4443 section 3.1, RFC 7084 section 4.3 WPD-5). An error that takes the
// same way is not answered.
func (r *Replier) NoRoute(inner []byte) {
	typ, code := icmp.NoNetwork.For(header.Version(inner))
	if typ == icmp.Unreachable6 && header.Version(inner) == 6 {
		code = icmp.NoRoute6
	}
	r.reply(&r.Own, false, inner, func(b []byte) []byte { return icmp.Append(b, typ, code, 0, inner, nil) })
}

// LimitReached reports a packet whose encapsulation limit is 0, with a pointer to it (RFC
// 2473 section 4.1.1 a).
func (r *Replier) LimitReached(inner []byte) {
	if at, found := header.FindEncapLimit(header.IPv6(inner)); found {
		r.reply(&r.Own, false, inner, func(b []byte) []byte { return icmp.Append(b, icmp.Parameter6, 0, uint32(at), inner, nil) })
	}
}

// Late sends the error that s stores, if any, to the sender of an inner packet, which is
// nevertheless sent.
func (r *Replier) Late(s *Soft, inner []byte) {
	// Check the limit first: a sender over its limit must not use up stored errors.
	if !icmp.MayAnswer(inner, false) || !r.May(&r.relayed, inner) {
		return
	}
	if m, ok := s.take(); ok {
		typ, code := m.For(header.Version(inner))
		r.send(inner, func(b []byte) []byte { return icmp.Append(b, typ, code, 0, inner, nil) })
	}
}

// reply sends an error about an inner packet if the rules and the limit allow it.
func (r *Replier) reply(limit *errorLimit, tooBig bool, inner []byte, message func([]byte) []byte) {
	if icmp.MayAnswer(inner, tooBig) && r.May(limit, inner) {
		r.send(inner, message)
	}
}

// Allow reports whether one more error of our own may be sent to the sender of a packet.
func (r *Replier) Allow(inner []byte) bool { return r.May(&r.Own, inner) }

// May reports whether the limit allows one more error to the sender of an inner packet.
func (r *Replier) May(limit *errorLimit, inner []byte) bool {
	if limit.allow(header.Source(inner), time.Now()) {
		return true
	}
	r.Limited.Add(1)
	return false
}

// send sends an error to the sender of an inner packet.
func (r *Replier) send(inner []byte, message func([]byte) []byte) {
	version, to := header.Version(inner), header.Source(inner)
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.Sender(version)
	switch {
	case err == nil:
		r.msg = message(r.msg[:0])
		err = s.Send(to, int(r.iface.Load()), r.msg)
	case errors.Is(err, unix.EPERM) && r.deliver != nil:
		r.msg = message(r.msg[:0])
		err = r.deliver(fromFarEnd(inner, r.msg))
	}
	if err != nil {
		r.Failed.Add(1)
		r.log.Debug("sending an ICMP error to an inner sender", zap.Stringer("sender", to), zap.Error(err))
		return
	}
	r.Sent.Add(version, r.msg[0], r.msg[1])
}

// Through sets what writes a packet to the tunnel's interface, as one that has arrived. A
// process without CAP_NET_RAW sends errors in this way.
func (r *Replier) Through(deliver func(pkt []byte) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deliver = deliver
}

// fromFarEnd returns the packet of an ICMP error about an inner packet that seems to come from
// its destination: the kernel drops packets on an interface from its own addresses.
func fromFarEnd(inner, message []byte) []byte {
	if header.Version(inner) == 4 {
		pkt := append(make([]byte, header.IPv4Len, header.IPv4Len+len(message)), message...)
		ip, about := header.IPv4(pkt), header.IPv4(inner)
		ip[0], ip[1], ip[8], ip[9] = 0x45, errorTOS, icmp.ReplyHopLimit, header.ICMP
		binary.BigEndian.PutUint16(ip[2:], uint16(len(pkt)))
		copy(ip.Source(), about.Dest())
		copy(ip.Dest(), about.Source())
		ip.SetChecksum()
		return pkt
	}
	pkt := append(make([]byte, header.IPv6Len, header.IPv6Len+len(message)), message...)
	ip, about := header.IPv6(pkt), header.IPv6(inner)
	ip[0], ip[6], ip[7] = 0x60, header.ICMPv6, icmp.ReplyHopLimit
	binary.BigEndian.PutUint16(ip[4:], uint16(len(message)))
	copy(ip.Source(), about.Dest())
	copy(ip.Dest(), about.Source())
	m := ip.Payload()
	binary.BigEndian.PutUint16(m[2:], ^header.Sum(m, header.PseudoSum(ip.Source(), ip.Dest(), len(m), header.ICMPv6)))
	return pkt
}

// errorTOS is the precedence of errors about IPv4 packets (RFC 1812 section 4.3.2.5).
const errorTOS = 0xc0

func (r *Replier) Sender(version int) (*transport.ICMPSender, error) {
	if s := r.senders[version]; s != nil {
		return s, nil
	}
	if r.retired {
		return nil, net.ErrClosed
	}
	var s *transport.ICMPSender
	if err := netns.In(r.namespace, func() (err error) {
		s, err = transport.OpenICMP(version)
		return err
	}); err != nil {
		return nil, err
	}
	if r.senders == nil {
		r.senders = make(map[int]*transport.ICMPSender)
	}
	r.senders[version] = s
	return s, nil
}

// Close closes the sockets. They are opened again when needed, perhaps in a new namespace
// of the same name.
func (r *Replier) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.senders {
		s.Close()
	}
	r.senders = nil
}

// Retire closes the sockets for good: goroutines with an old table or path may still try to
// send errors after the tunnel was removed.
func (r *Replier) Retire() {
	r.mu.Lock()
	r.retired = true
	r.mu.Unlock()
	r.Close()
}

// Soft stores errors about outer packets that quoted too little to find the inner
// sender. Each is sent to the sender of a later packet, which is nevertheless carried (RFC
// 2003 section 5).
type Soft struct {
	Pending atomic.Int32 // errors not sent to anyone yet
	mu      sync.Mutex
	meaning icmp.Meaning // of the last error
	until   time.Time
}

const (
	softLife = 60 * time.Second
	softMax  = 10 // maximum number of stored errors
)

// Note stores an error.
func (s *Soft) Note(m icmp.Meaning) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.After(s.until) {
		s.Pending.Store(0)
	}
	s.meaning, s.until = m, now.Add(softLife)
	s.Pending.Store(min(s.Pending.Load()+1, softMax))
}

// take removes and returns a stored error, if there is one.
func (s *Soft) take() (icmp.Meaning, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().After(s.until) {
		s.Pending.Store(0)
	}
	if s.Pending.Load() == 0 {
		return icmp.Nothing, false
	}
	s.Pending.Add(-1)
	return s.meaning, true
}
