package engine

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/netns"
	"sixfour/transport"
)

// replier sends ICMP errors to inner senders. It sends from the network namespace of the
// tunnel's interface, as the kernel would for its own tunnels: the kernel chooses the
// source address and the route to the sender, which may be this host. Any goroutine may use
// it.
type replier struct {
	namespace string
	iface     *atomic.Int64 // index of the interface
	log       *zap.Logger
	// Separate limits for our own errors and for errors relayed from others: forged ones
	// must not suppress our own.
	own, relayed errorLimit

	sent            icmpCounts
	limited, failed atomic.Uint64

	mu      sync.Mutex
	senders map[int]*transport.ICMPSender // by IP version; opened when first needed
	retired bool                          // no sender may be opened any more
	msg     []byte
}

func newReplier(t *tunnel) *replier {
	return &replier{
		namespace: t.cfg.Netns,
		iface:     &t.index,
		log:       t.log.Named("icmp"),
	}
}

// tooBig reports that a packet, head followed by body, is larger than mtu.
func (r *replier) tooBig(mtu int, head, body []byte) {
	r.reply(&r.own, true, head, func(b []byte) []byte { return icmp.AppendTooBig(b, mtu, head, body) })
}

// unreachable translates an error about an outer packet for the sender of the inner one.
func (r *replier) unreachable(m icmp.Meaning, inner []byte) {
	typ, code := m.For(header.Version(inner))
	r.reply(&r.relayed, false, inner, func(b []byte) []byte { return icmp.Append(b, typ, code, 0, inner, nil) })
}

// noWay reports that a packet has no destination.
func (r *replier) noWay(m icmp.Meaning, inner []byte) {
	typ, code := m.For(header.Version(inner))
	r.reply(&r.own, false, inner, func(b []byte) []byte { return icmp.Append(b, typ, code, 0, inner, nil) })
}

// noRoute reports a packet that would return to us, such as one to an unused subnet of our
// own prefix (RFC 4443 section 3.1, RFC 7084 section 4.3 WPD-5). An error that takes the
// same way is not answered.
func (r *replier) noRoute(inner []byte) {
	typ, code := icmp.NoNetwork.For(header.Version(inner))
	if typ == icmp.Unreachable6 && header.Version(inner) == 6 {
		code = icmp.NoRoute6
	}
	r.reply(&r.own, false, inner, func(b []byte) []byte { return icmp.Append(b, typ, code, 0, inner, nil) })
}

// limitReached reports a packet whose encapsulation limit is 0, with a pointer to it (RFC
// 2473 section 4.1.1 a).
func (r *replier) limitReached(inner []byte) {
	if at, found := header.FindEncapLimit(header.IPv6(inner)); found {
		r.reply(&r.own, false, inner, func(b []byte) []byte { return icmp.Append(b, icmp.Parameter6, 0, uint32(at), inner, nil) })
	}
}

// late sends the error that s stores, if any, to the sender of an inner packet, which is
// nevertheless sent.
func (r *replier) late(s *softState, inner []byte) {
	// Check the limit first: a sender over its limit must not use up stored errors.
	if !icmp.MayAnswer(inner, false) || !r.may(&r.relayed, inner) {
		return
	}
	if m, ok := s.take(); ok {
		typ, code := m.For(header.Version(inner))
		r.send(inner, func(b []byte) []byte { return icmp.Append(b, typ, code, 0, inner, nil) })
	}
}

// reply sends an error about an inner packet if the rules and the limit allow it.
func (r *replier) reply(limit *errorLimit, tooBig bool, inner []byte, message func([]byte) []byte) {
	if icmp.MayAnswer(inner, tooBig) && r.may(limit, inner) {
		r.send(inner, message)
	}
}

// may reports whether the limit allows one more error to the sender of an inner packet.
func (r *replier) may(limit *errorLimit, inner []byte) bool {
	if limit.allow(source(inner), time.Now()) {
		return true
	}
	r.limited.Add(1)
	return false
}

// send sends an error to the sender of an inner packet.
func (r *replier) send(inner []byte, message func([]byte) []byte) {
	version, to := header.Version(inner), source(inner)
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.sender(version)
	if err == nil {
		r.msg = message(r.msg[:0])
		err = s.Send(to, int(r.iface.Load()), r.msg)
	}
	if err != nil {
		r.failed.Add(1)
		r.log.Debug("tell the inner sender", zap.Stringer("sender", to), zap.Error(err))
		return
	}
	r.sent.add(version, r.msg[0], r.msg[1])
}

func (r *replier) sender(version int) (*transport.ICMPSender, error) {
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

// close closes the sockets. They are opened again when needed, perhaps in a new namespace
// of the same name.
func (r *replier) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.senders {
		s.Close()
	}
	r.senders = nil
}

// retire closes the sockets for good: goroutines with an old table or path may still try to
// send errors after the tunnel was removed.
func (r *replier) retire() {
	r.mu.Lock()
	r.retired = true
	r.mu.Unlock()
	r.close()
}

// softState stores errors about outer packets that quoted too little to find the inner
// sender. Each is sent to the sender of a later packet, which is nevertheless carried (RFC
// 2003 section 5).
type softState struct {
	pending atomic.Int32 // errors not sent to anyone yet
	mu      sync.Mutex
	meaning icmp.Meaning // of the last error
	until   time.Time
}

const (
	softLife = 60 * time.Second
	softMax  = 10 // maximum number of stored errors
)

// note stores an error.
func (s *softState) note(m icmp.Meaning) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.After(s.until) {
		s.pending.Store(0)
	}
	s.meaning, s.until = m, now.Add(softLife)
	s.pending.Store(min(s.pending.Load()+1, softMax))
}

// take removes and returns a stored error, if there is one.
func (s *softState) take() (icmp.Meaning, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().After(s.until) {
		s.pending.Store(0)
	}
	if s.pending.Load() == 0 {
		return icmp.Nothing, false
	}
	s.pending.Add(-1)
	return s.meaning, true
}
