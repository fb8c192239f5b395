package resolve

import (
	"net/netip"

	"sixfour/encap/header"
	"sixfour/encap/nd"
)

// outbox holds the messages that an Agent has to send. It is bounded: an answer that
// does not fit is dropped, and the node that asked asks again.
type outbox struct{ list []Message }

const maxOutbox = 256

// put reports whether there was room for the message.
func (o *outbox) put(to uint32, packet []byte) bool {
	if len(o.list) >= maxOutbox {
		return false
	}
	o.list = append(o.list, Message{To: Endpoint4(to), Bytes: packet})
	return true
}

func (o *outbox) take() []Message {
	out := o.list
	o.list = nil
	return out
}

// learnt returns what a learner knows in the form of an Agent.
func learnt(l *nd.Learner) Learnt {
	out := Learnt{MTU: l.MTU, Link: netip.PrefixFrom(header.Word6{Hi: nd.LinkLocal.Value.Hi, Lo: l.InterfaceID}.Addr(), 64)}
	for _, r := range l.Routers {
		if r.Until.After(out.Default) {
			out.Default = r.Until
		}
	}
	for _, q := range l.Prefixes {
		if !q.Valid.IsZero() {
			a := header.Word6{Hi: q.Match.Value.Hi, Lo: l.InterfaceID}.Addr()
			out.Addresses = append(out.Addresses, Lease{netip.PrefixFrom(a, 64), q.Preferred, q.Valid})
		}
	}
	return out
}
