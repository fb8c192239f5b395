package datapath

import "sixfour/encap/drop"

// Messages handles a packet that no tunnel carries, before it is dropped. Is says that the
// packet, which has a complete IP header, is a message for paths; r is drop.None unless no
// path accepts it. Messages must not retain the packet. Any goroutine may call it.
type Messages func(pkt []byte) (is bool, r drop.Reason)

// SetMessages sets what handles messages; nil: nothing.
func (p *Plane) SetMessages(f Messages) {
	if f == nil {
		p.messages.Store(nil)
	} else {
		p.messages.Store(&f)
	}
}

// message handles a packet that no tunnel carries, if it is a message.
func (p *Plane) message(pkt []byte) (is bool, r drop.Reason) {
	if f := p.messages.Load(); f != nil {
		return (*f)(pkt)
	}
	return false, drop.None
}
