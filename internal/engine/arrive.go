package engine

import (
	"iter"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/internal/datapath"
	"sixfour/transport"
)

// listener identifies a place where packets are received.
type listener struct {
	local    netip.Addr
	protocol byte

	// For a multicast group in local: our address, and the device that has it. The
	// device is part of the key because a device that is made again is in no group.
	at     netip.Addr
	device int
}

// formerLife is how long packets from a peer's former address are accepted after its name
// has changed (mechanisms 2.7): some are in flight, or the peer has not moved yet.
const formerLife = 30 * time.Second

// register makes a path the one by which a peer's packets are received.
func (e *Engine) register(p *path, now *datapath.Wire) {
	old, arrives := p.registered, p.arrives
	p.registered = now
	if old != nil && *old.Outer() == *now.Outer() {
		arrives.Store(now)
		if p.listening.Load() && old.Hop.Port == now.Hop.Port && (old.Hop.Device == now.Hop.Device || datapath.Groups(now.Outer()) == nil) {
			return
		}
	} else { // until the table is replaced, packets use the old pointer
		p.arrives = new(atomic.Pointer[datapath.Wire])
		p.arrives.Store(now)
	}
	if old != nil && p.remote().Name != "" && old.Outer().Remote != now.Outer().Remote {
		p.former, p.until = arrives, time.Now().Add(formerLife)
	}
	e.stale = true
}

// arrange updates the table and the receivers to the peers' paths.
func (e *Engine) arrange() {
	if !e.stale {
		return
	}
	e.stale = false
	e.Table.Store(e.newTable(time.Now()))
	e.listen(e.needed())
	e.takeXDP()
	for p := range e.registered() {
		if len(e.inbounds[listenerOf(p.registered)]) == 0 {
			continue
		}
		if !p.listening.Swap(true) {
			p.t.prober.notify()
			p.t.keeper.mark(p)
		}
		e.runAgent(p)
	}
}

// registered returns the peers for whose packets there is an entry in the table.
func (e *Engine) registered() iter.Seq[*path] {
	return func(yield func(*path) bool) {
		for _, t := range e.tunnels {
			for _, p := range t.paths {
				if p.registered != nil && !yield(p) {
					return
				}
			}
		}
	}
}

// newTable builds the table for the present peers. A former address of one peer may now
// belong to another, which then takes precedence.
func (e *Engine) newTable(now time.Time) *datapath.Table {
	t := datapath.NewTable()
	for p := range e.registered() {
		if p.former != nil && now.Before(p.until) {
			t.Add(datapath.NewEnd(p.Path, p.former, p.hasAddress), p.former.Load().Outer())
		} else {
			p.former = nil
		}
	}
	for p := range e.registered() {
		l := p.registered.Outer()
		en := datapath.NewEnd(p.Path, p.arrives, p.hasAddress)
		p.reportConflict(t.Conflict(en, l))
		t.Add(en, l)
	}
	return t
}

// reportConflict records and reports a peer whose packets cannot be told from this one's. The
// configuration could not show the conflict: names have resolved to one address, or
// "auto" is the address of another tunnel. A nil e, or the end of a former path, is no
// conflict.
func (p *path) reportConflict(e *datapath.End) {
	var other *path
	if e != nil {
		if q := e.Path.Owner.(*path); e.Arrives == q.arrives {
			other = q
		}
	}
	if other != nil && other != p.conflicting {
		p.log().Error("the packets of this peer cannot be distinguished from those of another peer, which receives none: give one of them another address",
			zap.String("other_tunnel", other.t.cfg.Name), zap.String("other_peer", other.cfg.Name))
	}
	p.conflicting = other
}

// needed returns the places where packets must be received, and the number of receivers
// at each.
func (e *Engine) needed() map[listener]int {
	needed := make(map[listener]int)
	for p := range e.registered() {
		l := p.registered.Outer()
		key := listenerOf(p.registered)
		needed[key] = e.shardsFor(needed[key], l.Kind.Properties().Ordered)
		for _, group := range datapath.Groups(l) {
			needed[listener{group, l.Kind.Protocol(), l.Local, p.registered.Hop.Device}] = 1
		}
	}
	return needed
}

// listenerOf returns where packets of a wire's path arrive.
func listenerOf(w *datapath.Wire) listener { return layersListener(w.Layers) }

// layersListener returns where packets with these layers, innermost first, arrive.
func layersListener(layers []encap.Layer) listener {
	l := &layers[len(layers)-1]
	return listener{local: l.Local, protocol: l.Kind.Protocol()}
}

// shardsFor returns the number of receivers: one if the order of packets must be kept.
func (e *Engine) shardsFor(others int, inOrder bool) int {
	if inOrder || others == 1 {
		return 1
	}
	return e.shards
}

// listen opens missing receivers and closes unused ones. A receiver that cannot be opened
// is retried, and the tunnels wait for it.
func (e *Engine) listen(needed map[listener]int) {
	locals := make(map[netip.Addr]bool)
	for l, shards := range needed {
		if !l.local.IsMulticast() {
			locals[l.local] = true
		}
		// A different number of shards alone is no reason to reopen: that would lose
		// packets of the peers already there.
		if have := len(e.inbounds[l]); have == 1 || have > 1 && shards > 1 {
			continue
		}
		e.stopListening(l)
		e.listenFailed(l, e.openReceivers(l, shards))
	}
	for l := range e.listenErrors {
		if needed[l] == 0 && !locals[l.local] {
			delete(e.listenErrors, l)
		}
	}
	for l := range e.inbounds {
		if needed[l] == 0 {
			e.stopListening(l)
		}
	}
	for local := range locals {
		if e.errors[local] == nil {
			e.listenFailed(listener{local: local}, e.listenICMP(local))
		}
	}
	for local, rx := range e.errors {
		if !locals[local] {
			rx.Close()
			delete(e.errors, local)
		}
	}
}

// listenFailed records whether the receivers of a place could be opened: err is nil, or says
// why not. Protocol 0 stands for the receiver of ICMP errors. Opening is retried.
func (e *Engine) listenFailed(l listener, err error) {
	if err == nil {
		delete(e.listenErrors, l)
		return
	}
	why := "a socket to receive with: " + err.Error()
	if e.listenErrors[l] != why {
		e.log.Warn("cannot open a socket to receive packets: trying again", zap.Error(err))
	}
	e.listenErrors[l] = why
	e.stale = true
}

// receiveProblem returns why packets with these layers, over a device, cannot be received, or
// "".
func (e *Engine) receiveProblem(layers []encap.Layer, device int) string {
	if len(e.listenErrors) == 0 {
		return ""
	}
	l := layersListener(layers)
	why := e.listenErrors[l]
	for _, group := range datapath.Groups(&layers[len(layers)-1]) {
		if of := e.listenErrors[listener{group, l.protocol, l.local, device}]; of != "" {
			why = of
		}
	}
	return why
}

// openReceivers opens the receivers of one place: adopted ones, or those opened in
// advance, or new ones.
func (e *Engine) openReceivers(l listener, shards int) error {
	all := e.adoptReceivers(l, shards)
	adopted := all != nil
	if !adopted {
		all = e.takeAhead(l, shards)
	}
	for i := len(all); i < shards; i++ {
		o := transport.Options{Segments: e.segments}
		if l.at.IsValid() {
			o.Join, o.JoinOn = l.local, l.device
		}
		rx, err := transport.ListenRaw(l.local, int(l.protocol), transport.Shard{Index: i, Count: shards}, o)
		if err != nil {
			closeAll(all)
			return err
		}
		all = append(all, rx)
	}
	var opened []*datapath.Inbound
	for i, rx := range all {
		in := e.NewInbound(datapath.Place{Queue: i, At: l.at, Zone: datapath.ZoneOf(l.local), Socket: true}, e.log.Named("in").With(zap.Stringer("local", l.local)), rx)
		opened = append(opened, in)
	}
	e.inbounds[l] = opened
	for _, in := range opened {
		e.receivers.Go(in.Run)
	}
	if !adopted {
		e.keepReceivers(l, opened)
	}
	return nil
}

func (e *Engine) stopListening(l listener) {
	e.forgetReceivers(l)
	for _, in := range e.inbounds[l] {
		in.Rx.Close()
	}
	delete(e.inbounds, l)
}

// hasAddress reports whether the tunnel's interface is to have an address.
func (p *path) hasAddress(a netip.Addr) bool {
	return slices.ContainsFunc(p.t.cfg.Address, func(own netip.Prefix) bool { return own.Addr() == a })
}
