package engine

import (
	"iter"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/header"
	"sixfour/internal/datapath"
	"sixfour/internal/ports"
	"sixfour/internal/wiring"
	"sixfour/transport"
)

// formerLife is how long packets from a peer's former address are accepted after its name
// has changed (mechanisms 2.7): some are in flight, or the peer has not moved yet.
const formerLife = 30 * time.Second

// register makes a path the one by which a peer's packets are received.
func (e *Engine) register(p *path, now *datapath.Wire) {
	old, arrives := p.registered, p.arrives
	p.registered = now
	if old != nil && *old.Outer() == *now.Outer() {
		arrives.Store(now)
		if p.Listening.Load() && old.Hop.Port == now.Hop.Port && (old.Hop.Device == now.Hop.Device || datapath.Groups(now.Outer()) == nil) {
			return
		}
	} else { // until the table is replaced, packets use the old pointer
		p.arrives = new(atomic.Pointer[datapath.Wire])
		p.arrives.Store(now)
	}
	if old != nil && p.remote().Name != "" && old.Outer().Remote != now.Outer().Remote {
		p.former, p.until = arrives, time.Now().Add(formerLife)
	}
	e.moved = append(e.moved, p)
}

// arrange updates the table and the receivers to the paths: to those that have changed or,
// if stale is set, to all.
func (e *Engine) arrange() {
	now, moved := time.Now(), e.moved
	e.moved = nil
	switch {
	case e.stale, e.Table.Load() == nil, !e.Table.Load().Fits(len(moved)):
		e.stale = false
		e.Table.Store(e.newTable(now))
		moved = slices.Collect(e.registered())
	case len(moved) == 0:
		return
	default:
		for _, p := range moved {
			p.place(e.Table.Load(), now)
		}
		if e.hasPorts(moved) {
			e.receive(moved)
			return
		}
	}
	e.needs = e.needed()
	if !e.sockets.Need(e.needs) {
		e.stale = true // opening is tried again, and the tunnels wait for it
	}
	e.takeXDP()
	e.receive(moved)
}

// newTable builds the table for all paths.
func (e *Engine) newTable(now time.Time) *datapath.Table {
	n := 0
	for range e.registered() {
		n++
	}
	t := datapath.NewTable(n)
	for p := range e.registered() {
		p.ends = nil
		p.place(t, now)
	}
	return t
}

// place puts the entries of a path into the table, in place of those that it had there. A
// former address of one peer may now belong to another, which then takes precedence.
func (p *path) place(t *datapath.Table, now time.Time) {
	var fresh []*datapath.End
	if p.former != nil && now.Before(p.until) {
		fresh = append(fresh, datapath.NewEnd(p.Path, p.former, true, p.hasAddress))
	} else {
		p.former = nil
	}
	end := datapath.NewEnd(p.Path, p.arrives, false, p.hasAddress)
	p.reportConflict(t.Conflict(end))
	fresh = append(fresh, end)
	t.Replace(p.ends, fresh)
	p.ends = fresh
}

// displace removes the entries of a path, which no longer belongs to a tunnel, from the table.
func (e *Engine) displace(p *path) {
	if t := e.Table.Load(); t != nil {
		t.Replace(p.ends, nil)
	}
	p.ends = nil
}

// hasPorts reports whether the ports of paths are open already, and nothing else depends on
// how their packets arrive.
func (e *Engine) hasPorts(paths []*path) bool {
	for _, p := range paths {
		l := p.registered.Outer()
		icmp, _ := wiring.ICMPPort(l.Local)
		_, port := e.needs[p.port(p.registered)]
		_, errors := e.needs[icmp]
		if !port || !errors || p.t.wantsXDP() || len(datapath.Groups(l)) > 0 || p.former != nil {
			return false
		}
	}
	return true
}

// receive starts what waits for packets of paths to be received.
func (e *Engine) receive(paths []*path) {
	for _, p := range paths {
		if p.registered == nil || !e.sockets.Receives(p.port(p.registered)) {
			continue
		}
		if !p.Listening.Swap(true) {
			p.t.finder.Notify()
			p.t.keeper.Mark(p.life)
		}
		e.runAgent(p)
	}
}

// registered returns the peers for whose packets there is an entry in the table.
func (e *Engine) registered() iter.Seq[*path] {
	return func(yield func(*path) bool) {
		for _, t := range e.tunnels {
			for p := range t.paths() {
				if p.registered != nil && !yield(p) {
					return
				}
			}
		}
	}
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
		p.report.Log().Error("the packets of this peer cannot be distinguished from those of another peer, which receives none: give one of them another address",
			zap.String("other_tunnel", other.t.cfg.Name), zap.String("other_peer", other.peer.cfg.Name))
	}
	p.conflicting = other
}

// needed returns the ports at which packets must be received, and those of UDP through
// which packets are sent. Those of multicast groups are not kept for the next process: by
// then their interface may be another one.
func (e *Engine) needed() map[ports.Key]ports.Need {
	needed := make(map[ports.Key]ports.Need)
	for p := range e.registered() {
		l := p.registered.Outer()
		e.needPort(needed, p.port(p.registered), l.Kind.Properties().Ordered)
		key, need := wiring.ICMPPort(l.Local)
		needed[key] = need
		for _, group := range datapath.Groups(l) {
			needed[wiring.GroupPort(l, group, p.registered.Hop.Device)] = ports.Need{}
		}
	}
	for _, t := range e.tunnels {
		for p := range t.paths() {
			if w := p.Wire.Load(); w != nil && w != p.registered && wiring.HasPorts(w.Outer().Kind) {
				e.needPort(needed, p.port(w), w.Outer().Kind.Properties().Ordered)
			}
		}
	}
	return needed
}

// needPort adds the port of a tunnel to those that are needed. It has one shard if the
// order of packets must be kept.
func (e *Engine) needPort(needed map[ports.Key]ports.Need, k ports.Key, inOrder bool) {
	shards := e.shards
	if inOrder || needed[k].Shards == 1 {
		shards = 1
	}
	needed[k] = ports.Need{Shards: shards, Keep: true}
}

// port returns the port at which the packets of a wire of the path arrive.
func (p *path) port(w *datapath.Wire) ports.Key {
	return wiring.Port(w.Outer(), w.Hop.Device, p.t.cfg.FwMark)
}

// read receives what arrives at a shard of a port until the port is closed.
func (e *Engine) read(k ports.Key, shard int, p transport.Port) {
	local := k.Local.Addr()
	log, zone := zap.Stringer("local", local), datapath.ZoneOf(local)
	if k.Protocol == header.ICMP || k.Protocol == header.ICMPv6 {
		e.NewICMP(zone, e.log.Named("icmp").With(log), p).Run()
		return
	}
	e.NewInbound(datapath.Place{Queue: shard, At: k.At, Zone: zone, Socket: true}, e.log.Named("in").With(log), p).Run()
}

// listenAhead starts to open the ports for the configured addresses.
func (e *Engine) listenAhead() {
	needed := make(map[ports.Key]ports.Need)
	for _, t := range e.tunnels {
		outermost := len(t.cfg.Layers) - 1
		for _, local := range t.cfg.Locals() {
			if local.IsValid() && local.Zone() == "" && !wiring.HasPorts(t.cfg.Kind(outermost)) {
				e.needPort(needed, ports.Raw(t.cfg.Mode.Layers[outermost].Protocol(), local), t.cfg.Kind(outermost).Properties().Ordered)
			}
		}
	}
	e.sockets.OpenAhead(needed)
}

// hasAddress reports whether the tunnel's interface is to have an address.
func (p *path) hasAddress(a netip.Addr) bool {
	return slices.ContainsFunc(p.t.cfg.Address, func(own netip.Prefix) bool { return own.Addr() == a })
}
