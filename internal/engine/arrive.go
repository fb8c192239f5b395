package engine

import (
	"iter"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/datapath"
	"sixfour/internal/ports"
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
	e.stale = true
}

// arrange updates the table and the receivers to the peers' paths.
func (e *Engine) arrange() {
	if !e.stale {
		return
	}
	e.stale = false
	e.Table.Store(e.newTable(time.Now()))
	if !e.sockets.Need(e.needed()) {
		e.stale = true // opening is tried again, and the tunnels wait for it
	}
	e.takeXDP()
	for p := range e.registered() {
		if !e.sockets.Receives(p.port(p.registered)) {
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
		key, need := icmpPort(l.Local)
		needed[key] = need
		for _, group := range datapath.Groups(l) {
			needed[groupPort(l, group, p.registered.Hop.Device)] = ports.Need{}
		}
	}
	for _, t := range e.tunnels {
		for p := range t.paths() {
			if w := p.Wire.Load(); w != nil && w != p.registered && hasPorts(w.Outer().Kind) {
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
func (p *path) port(w *datapath.Wire) ports.Key { return p.t.layerPort(w.Outer(), w.Hop.Device) }

// layerPort returns the port at which packets with an outermost layer arrive. They leave
// through a device if our address is link-local.
func (t *tunnel) layerPort(l *encap.Layer, device int) ports.Key {
	k := ports.Raw(l.Kind.Protocol(), l.Local)
	if hasPorts(l.Kind) {
		k.Local = netip.AddrPortFrom(l.Local, l.Kind.Properties().Ports.Local)
		k.Mark = t.cfg.FwMark
		if isZoned(l.Local, l.Remote) {
			k.Device = device
		}
	}
	return k
}

// hasPorts reports whether packets of a kind arrive at a port of UDP.
func hasPorts(k encap.Kind) bool { return k.Properties().Ports.Local != 0 }

// groupPort returns the port for a multicast group at which a layer over a device receives
// packets.
func groupPort(l *encap.Layer, group netip.Addr, device int) ports.Key {
	k := ports.Raw(l.Kind.Protocol(), group)
	k.At, k.Device = l.Local, device
	return k
}

// icmpPort returns the port for ICMP messages to an address of ours: errors about outer
// packets, and answers to probes of outer addresses.
func icmpPort(local netip.Addr) (ports.Key, ports.Need) {
	if local.Is6() {
		return ports.Raw(header.ICMPv6, local), ports.Need{ICMP: []int{icmp.Unreachable6, icmp.TooBig6, icmp.TimeExceeded6, icmp.Parameter6, icmp.EchoReply6}}
	}
	return ports.Raw(header.ICMP, local), ports.Need{ICMP: []int{icmp.Unreachable4, icmp.TimeExceeded4, icmp.Parameter4, icmp.EchoReply4}}
}

// receiveProblem returns why packets with these layers, over a device, cannot be received, or
// "".
func (e *Engine) receiveProblem(t *tunnel, layers []encap.Layer, device int) string {
	l := &layers[len(layers)-1]
	err := e.sockets.Err(t.layerPort(l, device))
	for _, group := range datapath.Groups(l) {
		if of := e.sockets.Err(groupPort(l, group, device)); of != nil {
			err = of
		}
	}
	if err == nil {
		return ""
	}
	return "a socket to receive with: " + err.Error()
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
			if local.IsValid() && local.Zone() == "" && !hasPorts(t.cfg.Kind(outermost)) {
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
