package node

import (
	"net/netip"
	"time"

	"sixfour/encap/lisp"
	"sixfour/encap/resolve"
)

// outbox holds messages until the next call of Next. It is bounded.
type outbox struct {
	out  []resolve.Message
	lost int
}

const maxOut = 1024

// control sends a control message.
func (o *outbox) control(to netip.AddrPort, b []byte) {
	o.put(resolve.Message{To: resolve.EndpointOf(to), Bytes: b, Raw: true, From: netip.AddrPortFrom(netip.Addr{}, lisp.ControlPort)})
}

// data sends a packet to a locator.
func (o *outbox) data(to resolve.Endpoint, pkt []byte) {
	o.put(resolve.Message{To: to, Bytes: pkt})
}

func (o *outbox) put(m resolve.Message) {
	if len(o.out) >= maxOut {
		o.lost++
		return
	}
	o.out = append(o.out, m)
}

// take empties the outbox. Lost is how many messages had no room, or waited in vain.
func (o *outbox) take() (out []resolve.Message, lost int) {
	out, lost = o.out, o.lost
	o.out, o.lost = nil, 0
	return out, lost
}

// bucket limits how often something is done: perSecond times, and as often at once.
type bucket struct {
	tokens float64
	at     time.Time
}

func (b *bucket) allow(perSecond int, now time.Time) bool {
	if b.at.IsZero() {
		b.tokens = float64(perSecond)
	} else {
		b.tokens = min(float64(perSecond), b.tokens+now.Sub(b.at).Seconds()*float64(perSecond))
	}
	if b.at = now; b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
