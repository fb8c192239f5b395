package engine

import (
	"net/netip"
	"time"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/resolve"
	"sixfour/transport"
)

// listener is where packets are received.
type listener struct {
	local    netip.Addr
	protocol byte
	at       netip.Addr // our own address, if local is a multicast group
}

// formerLife is how long a peer's packets are taken from the address that its name
// had before (mechanisms 2.7): some are on their way, or it has not moved yet.
const formerLife = 30 * time.Second

// register notes that a peer's packets arrive by a path from now on.
func (e *Engine) register(p *peer, path *path) {
	old := p.registered
	p.arrivals.Store(path)
	p.registered = path
	if old != nil && *old.outer() == *path.outer() && p.listening.Load() {
		if old.hop.port == path.hop.port {
			return
		}
	}
	if old != nil && p.remote().Name != "" && old.outer().Remote != path.outer().Remote {
		p.former, p.until = old, time.Now().Add(formerLife)
	}
	e.stale = true
}

// arrange brings the table, and where packets are received, in line with the
// peers' paths.
func (e *Engine) arrange() error {
	if !e.stale {
		return nil
	}
	e.stale = false
	now := time.Now()
	t := &table{pairs4: make(map[[8]byte]*end), pairs6: make(map[[32]byte]*end), any: make(map[netip.Addr][]*end)}
	needed := make(map[listener]int) // and how many shards
	for _, tun := range e.tunnels {
		for _, p := range tun.peers {
			if p.registered == nil {
				continue
			}
			l := p.registered.outer()
			en := newEnd(p, p.registered, nil)
			t.add(en, l)
			if p.former != nil && now.Before(p.until) {
				t.add(newEnd(p, p.former, p.former), p.former.outer())
			} else {
				p.former = nil
			}
			key := listener{local: l.Local, protocol: l.Kind.Protocol()}
			needed[key] = e.shardsFor(needed[key], l)
			if j, ok := l.Resolver.(resolve.Joiner); ok {
				for _, group := range j.Groups() {
					needed[listener{group, l.Kind.Protocol(), l.Local}] = 1
					t.any[group] = append(t.any[group], en)
				}
			}
		}
	}
	e.table.Store(t)
	if err := e.listen(needed); err != nil {
		return err
	}
	e.takeXDP()
	for _, tun := range e.tunnels {
		for _, p := range tun.peers {
			if p.registered == nil {
				continue
			}
			if !p.listening.Swap(true) {
				tun.prober.rouse()
			}
			e.letSpeak(p)
		}
	}
	return nil
}

// shardsFor is how many receivers there are for a layer's packets: one where their
// order counts.
func (e *Engine) shardsFor(others int, l *encap.Layer) int {
	if l.GRE.Sequence || others == 1 {
		return 1
	}
	return e.shards
}

// listen opens receivers where there are none, and closes those that nobody needs
// any more.
func (e *Engine) listen(needed map[listener]int) error {
	locals := make(map[netip.Addr]bool)
	for l, shards := range needed {
		if !l.local.IsMulticast() {
			locals[l.local] = true
		}
		if len(e.inbounds[l]) == shards {
			continue
		}
		e.stopListening(l)
		if err := e.openReceivers(l, shards); err != nil {
			return err
		}
	}
	for l := range e.inbounds {
		if needed[l] == 0 {
			e.stopListening(l)
		}
	}
	for local := range locals {
		if e.errors[local] == nil {
			if err := e.listenErrors(local); err != nil {
				return err
			}
		}
	}
	for local, rx := range e.errors {
		if !locals[local] {
			rx.Close()
			delete(e.errors, local)
		}
	}
	return nil
}

// openReceivers opens the receivers of one place.
func (e *Engine) openReceivers(l listener, shards int) error {
	var opened []*inbound
	for i := range shards {
		o := transport.Options{}
		if l.at.IsValid() {
			o.Join, o.JoinAt = l.local, l.at
		}
		rx, err := transport.ListenRaw(l.local, int(l.protocol), transport.Shard{Index: i, Count: shards}, o)
		if err != nil {
			for _, in := range opened {
				in.rx.Close()
			}
			return err
		}
		opened = append(opened, e.newInbound(i, e.log.Named("in").With(zap.Stringer("local", l.local)), rx))
	}
	e.inbounds[l] = opened
	for _, in := range opened {
		e.wg.Go(in.run)
	}
	return nil
}

func (e *Engine) stopListening(l listener) {
	for _, in := range e.inbounds[l] {
		in.rx.Close()
	}
	delete(e.inbounds, l)
}
