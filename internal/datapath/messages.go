package datapath

// SetMessages sets what handles packets that no tunnel carries, before they are dropped: it
// reports whether a packet, which has a complete IP header, was a message for one of the
// paths. It must not retain the packet, and any goroutine may call it. Nil: nothing does.
func (p *Plane) SetMessages(f func(pkt []byte) bool) {
	if f == nil {
		p.messages.Store(nil)
	} else {
		p.messages.Store(&f)
	}
}

// message handles a packet that no tunnel carries, if it is a message.
func (p *Plane) message(pkt []byte) bool {
	f := p.messages.Load()
	return f != nil && (*f)(pkt)
}
