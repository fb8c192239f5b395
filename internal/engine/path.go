package engine

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"sixfour/encap"
	"sixfour/encap/source"
	"sixfour/internal/datapath"
	"sixfour/internal/discovery"
	"sixfour/internal/netcfg"
	"sixfour/internal/pathmtu"
	"sixfour/internal/wiring"
	"sixfour/transport"
)

// evaluate updates a peer's path to the route to it. Anything missing puts the peer in
// the waiting state: it may become available, and other tunnels are not affected.
func (e *Engine) evaluate(p *path, route netcfg.Answer) {
	route = e.leaveUnusable(p, route)
	wire, waiting := e.findWire(p, route)
	if wire == nil {
		p.publish(nil)
		p.report.Waits(waiting, p.isLookedUp())
		return
	}
	if wire != p.Wire.Load() {
		p.publish(wire)
		p.report.Follows(wire)
		if p.t.only != nil {
			p.t.setMTU()
		}
		if p.t.Link != nil { // otherwise setPath is called when there is an interface
			p.reportWire(wire)
		}
	}
	// Without an interface, leave arriving packets to the kernel.
	if p.t.Link != nil && wire != p.Registered() {
		e.arrivals.Register(p, wire)
	}
}

// evaluateOne evaluates a single peer when nothing else has changed. The first hop, which
// sets the interface's MTU, must be the same.
func (e *Engine) evaluateOne(p *path) {
	before := slices.Clone(p.t.held.Routes)
	e.evaluate(p, e.routesTo([]*path{p})[0])
	p.t.holdRoutes(before) // the route to the peer may have changed, too
	e.arrivals.Arrange()
	e.followKernelPeers(p.t, []*peer{p.peer})
}

// routesTo returns the routes to peers. A peer without an address has an empty answer. For an
// automatic tunnel without a relay, or without a route to it, the answer is the interface that
// has its local address. If that is the loopback device, as for an anycast address, the MTU of
// the other interfaces is unknown; packets too large for them cause an MTU update.
func (e *Engine) routesTo(peers []*path) []netcfg.Answer {
	queries := make([]netcfg.Query, len(peers))
	for i, p := range peers {
		queries[i] = netcfg.Query{Remote: p.outerRemote(), Local: p.local(), Mark: p.t.cfg.FwMark}
	}
	return e.router.ToPeers(queries, func(i int) bool { return peers[i].t.automatic() }, int(wiring.AssumedMTU))
}

// tooLong is a destination of an automatic tunnel whose first hop refused a packet as
// too large.
type tooLong struct {
	p   *path
	dst netip.Addr
}

// narrowHop records the MTU of the first hop to a destination that was sent too large a
// packet.
func (e *Engine) narrowHop(l tooLong) {
	route, err := e.router.To(l.dst, l.p.local(), l.p.t.cfg.FwMark)
	if err == nil {
		l.p.Search.NarrowTo(l.dst.Unmap(), encap.PathMTU(route.MTU))
	}
}

// outerRemote returns the address that packets go to, if it is known. For an automatic
// tunnel it is one of many.
func (p *path) outerRemote() netip.Addr {
	switch r := p.remote(); {
	case p.spec().Listen:
		if m := p.meeting.Load(); m != nil {
			return m.At().Addr()
		}
		return netip.Addr{}
	case r.Addr.IsValid():
		return r.Addr
	case r.Name != "":
		return p.far.Addr()
	case p.t.mech != nil && p.t.mech.Layer() == len(p.t.cfg.Layers)-1:
		return p.t.mech.Toward()
	}
	return netip.Addr{}
}

// applyMTUUpdate applies a path MTU that was found. If the peer was removed from the
// configuration meanwhile, it must not get a path again.
func (e *Engine) applyMTUUpdate(u discovery.Update) {
	defer close(u.Applied)
	p := u.Path.Owner.(*path)
	if p.IsForgotten() {
		return
	}
	p.knownMTU = &u
	e.evaluateOne(p)
}

// forget makes path MTU discovery forget paths that were removed.
func (e *Engine) forget(paths []*path) {
	subjects := make([]*discovery.Subject, len(paths))
	for i, p := range paths {
		subjects[i] = p.Search
	}
	e.finder.Forget(subjects...)
}

// publish publishes a path; nil: there is none.
func (p *path) publish(wire *datapath.Wire) {
	if m, old := p.meeting.Load(), p.Wire.Swap(wire); m != nil && wire != nil && (old == nil || *old.Outer() != *wire.Outer()) {
		defer m.Wake()
	}
	p.peer.choose()
	p.Update(wire)
	p.Changed()
}

// findWire returns the path that the peer should have now: the present one if nothing
// has changed, or nil and what the peer waits for.
func (e *Engine) findWire(p *path, answer netcfg.Answer) (next *datapath.Wire, waiting string) {
	t, route := p.t, answer.Route
	remote := p.outerRemote()
	spec, apart := e.metConfig(p, cmp.Or(p.local(), route.Source), remote)
	way := e.wayOut(p, remote, answer) // also decides on the interface's routes
	switch waiting = t.Waits(); {
	case waiting != "":
		return nil, waiting
	case t.Link != nil && t.IsDown(): // it neither sends nor accepts packets
		return nil, fmt.Sprintf("its interface, which is down: ip link set %s up", t.cfg.Name)
	case apart != "" && (p.spec().Listen || p.spec().Waits != "" || way == ""):
		return nil, apart
	case way != "":
		return nil, way
	}
	local := cmp.Or(p.local(), route.Source)
	if !local.IsValid() || local.Is4() != (t.outerVersion() == 4) {
		return nil, fmt.Sprintf("a source address for packets to %v: the route has none", remote)
	}
	local, remote = wiring.InZone(local, route.Index), wiring.InZone(remote, route.Index)
	layers := t.cfg.Stack(&p.peer.cfg, spec, local, remote)
	if t.automatic() {
		if waiting = e.resolve(p, layers); waiting != "" {
			return nil, waiting
		}
	}
	if why := wiring.ReceiveProblem(e.arrivals.Sockets, &layers[len(layers)-1], route.Index, t.cfg.FwMark); why != "" {
		return nil, why
	}
	link := encap.PathMTU(min(route.MTU, transport.MaxPacket))
	if p.isBehindProxy() {
		link = min(link, proxiedMTU)
	}
	mtu, by := p.learnt(layers, link)
	hop := e.findHop(p, &layers[len(layers)-1], route)
	hop.Device, hop.Interface, hop.MTU = route.Index, route.Interface, link
	next = &datapath.Wire{Path: p.Path, Layers: layers, Hop: hop, MTU: mtu, By: by, Version: p.peer.changes}
	if !t.automatic() {
		next.Between = t.wires.Pairs(&p.peer.cfg)
	}
	return t.wires.Make(next, func() *source.Checks { return t.wires.Sources(&p.peer.cfg, layers, t.addresses(), &t.surroundings.Now) })
}

// wayOut returns what is missing to send packets to a peer, or "".
func (e *Engine) wayOut(p *path, remote netip.Addr, answer netcfg.Answer) string {
	t, route := p.t, answer.Route
	self, around := e.selfWaiting(p, remote, route), t.around(remote, answer)
	switch {
	case self != "":
		return self
	case p.isLookedUp():
		return "the first look-up of the name " + p.remote().Name
	case !remote.IsValid() && !t.automatic():
		return fmt.Sprintf("an IPv%d address of %s: the name does not resolve", t.outerVersion(), p.remote().Name)
	case !remote.IsValid() && !p.local().IsValid():
		return t.mech.Waits()
	case errors.Is(answer.Err, netcfg.ErrNotLocal):
		return netcfg.Missing(p.local())
	case around != "" && answer.Err == nil:
		return around
	case answer.Err != nil:
		return fmt.Sprintf("a %v: bring the uplink up, or add a route", answer.Err)
	case t.Link != nil && t.cfg.Netns == "" && route.Index == t.Link.Index():
		return fmt.Sprintf("a route to %v that does not lead into %s itself: add a route for it through the uplink", remote, t.cfg.Name)
	case e.depth(p, route) > encap.MaxDepth:
		return fmt.Sprintf("a route to %v that does not lead through %s: packets would be encapsulated more than %d times, or endlessly: add a route for it through the uplink", remote, p.through.cfg.Name, encap.MaxDepth)
	}
	return ""
}

// resolve sets the resolver of the automatic layer, or returns what it waits for.
func (e *Engine) resolve(p *path, layers []encap.Layer) (waiting string) {
	m := p.t.mech
	l := &layers[m.Layer()]
	r, err := m.At(e.site(p.t, l.Local))
	if err != nil {
		return "what its mode needs: " + err.Error()
	}
	l.Remote, l.Resolver = netip.Addr{}, r
	if m.WatchRelays(l.Local, m.Layer() == len(layers)-1) {
		p.Keeper.Mark(p.Life)
	}
	return ""
}

// depth returns the number of layers of a peer's packets when they leave the host: those
// of its tunnel, and of all other tunnels through which the route leads. For a loop it is
// more than encap.MaxDepth.
func (e *Engine) depth(p *path, route netcfg.Route) int {
	p.through = e.byIndex[route.Index]
	depth := len(p.t.cfg.Layers)
	for t := p.through; t != nil && depth <= encap.MaxDepth; t = p.through {
		depth += len(t.cfg.Layers)
		if p = t.towardPath(p.outerRemote()); p == nil {
			break
		}
	}
	return depth
}

// learnt returns the path MTU as far as it is known, for the given layers and first-hop
// MTU.
func (p *path) learnt(layers []encap.Layer, link encap.PathMTU) (encap.PathMTU, pathmtu.Source) {
	if l := p.knownMTU; l != nil && l.Hop == link && l.MTU <= link && slices.Equal(l.Layers, layers) {
		return l.MTU, l.By
	}
	return link, pathmtu.Route
}

// towardPath returns a path to the peer to which packets for an address go; nil: there is
// none.
func (t *tunnel) towardPath(a netip.Addr) *path {
	if p := t.Peers.Toward(a); p != nil {
		return p.First().Owner.(*path).peer.inUse()
	}
	return nil
}

// dataPaths returns the tunnel's paths as the data goroutines know them.
func (t *tunnel) dataPaths() iter.Seq[*datapath.Path] {
	return func(yield func(*datapath.Path) bool) {
		for p := range t.paths() {
			if !yield(p.Path) {
				return
			}
		}
	}
}
