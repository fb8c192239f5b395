package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/internal/netcfg"
	"sixfour/internal/pathmtu"
	"sixfour/transport"
)

// evaluate brings a tunnel's path in line with the kernel's routes. What is
// lacking and may come is a state (waiting), not an error; an error is what no
// waiting cures.
func (e *Engine) evaluate(t *tunnel) error {
	p, waiting, err := e.findPath(t)
	if err != nil {
		return err
	}
	if p == nil {
		t.replacePath(nil)
		t.setState(Waiting, waiting)
		return nil
	}
	if p != t.path.Load() {
		t.setMTU(t.wantMTU(p.link))
		t.replacePath(p)
		t.setUp(p)
	}
	if t.link == nil || p == t.registered {
		return nil // what arrives before there is an interface stays with the kernel
	}
	return e.register(t, p)
}

// setMTU gives the interface, if there is one, a new MTU.
func (t *tunnel) setMTU(mtu encap.TunnelMTU) {
	if t.link != nil && mtu != t.mtu {
		if err := t.link.SetMTU(int(mtu)); err != nil {
			t.log.Warn(err.Error())
			return
		}
	}
	t.mtu = mtu
}

// replacePath publishes a path, or that there is none, and closes the socket of
// the one before, if the new one does not use it.
func (t *tunnel) replacePath(p *path) {
	old := t.path.Swap(p)
	t.prober.rouse()
	if old != nil && (p == nil || p.senders[0] != old.senders[0]) {
		old.close()
	}
}

// findPath is the path that the tunnel should have now: the present one if
// nothing has changed, or nil and what it waits for.
func (e *Engine) findPath(t *tunnel) (p *path, waiting string, err error) {
	remote := t.cfg.Remote.Addr
	if !remote.IsValid() {
		if remote = t.resolved; !remote.IsValid() {
			return nil, fmt.Sprintf("an IPv4 address of %s: the name does not resolve", t.cfg.Remote.Name), nil
		}
	}
	route, err := e.router.To(remote, t.cfg.Local, t.cfg.FwMark)
	switch {
	case errors.Is(err, netcfg.ErrNotLocal):
		return nil, fmt.Sprintf("the address %v, which no interface has: add it (ip addr add %v/PREFIX dev DEV), or set local = \"auto\"", t.cfg.Local, t.cfg.Local), nil
	case err != nil:
		return nil, fmt.Sprintf("a %v: bring the uplink up, or add a route", err), nil
	case t.link != nil && t.cfg.Netns == "" && route.Index == t.link.Index():
		return nil, fmt.Sprintf("a route to %v that does not lead into %s itself: add a route for it through the uplink", remote, t.cfg.Name), nil
	}
	if e.depth(t, route) > encap.MaxDepth {
		return nil, fmt.Sprintf("a route to %v that does not lead through %s: packets would be encapsulated more than %d times, or in a circle: add a route for it through the uplink", remote, t.through.cfg.Name, encap.MaxDepth), nil
	}
	ep := encap.Endpoints{Local: t.cfg.Local, Remote: remote, Local6: t.cfg.Local6, Remote6: t.cfg.Remote6}
	if !ep.Local.IsValid() {
		ep.Local = route.Source
	}
	if !ep.Local.Is4() {
		return nil, fmt.Sprintf("an address to send from to %v: the route has none", remote), nil
	}
	link := encap.PathMTU(min(route.MTU, transport.MaxPacket))
	mtu, by := t.learnt(ep, link)
	hop := e.findHop(t, route)
	old := t.path.Load()
	if old != nil && old.endpoints == ep && old.link == link && old.mtu == mtu && old.by == by && old.hop == hop {
		return old, "", nil
	}
	p = &path{endpoints: ep, link: link, mtu: mtu, by: by, hop: hop}
	if p.stack, err = encap.New(t.cfg.Mode, ep, mtu, t.cfg.Options, t.newSources(ep.Local), t.record); err != nil {
		return nil, "", err
	}
	p.clamp = t.newClamp(p)
	if old != nil && old.endpoints == ep && old.hop == hop {
		p.senders = old.senders
		return p, "", nil
	}
	for range t.queues {
		raw, err := transport.DialRaw4(ep.Local, ep.Remote, e.options(t))
		if err != nil {
			p.close()
			if errors.Is(err, unix.EPERM) {
				return nil, "", err
			}
			return nil, err.Error(), nil // what may heal is a state to wait in, not an error
		}
		p.senders = append(p.senders, p.hop.sender(raw))
	}
	return p, "", nil
}

// depth is how many layers a tunnel's packets have when they leave the host: its
// own, and those of the tunnels of ours through which the route leads. In a circle
// it is more than there may be.
func (e *Engine) depth(t *tunnel, route netcfg.Route) int {
	t.through = nil
	for _, u := range e.tunnels {
		if u.cfg.Netns == "" && u.index.Load() == int64(route.Index) {
			t.through = u
		}
	}
	depth := len(t.cfg.Mode.Layers)
	for u := t.through; u != nil && depth <= encap.MaxDepth; u = u.through {
		depth += len(u.cfg.Mode.Layers)
	}
	return depth
}

// learnt is the path MTU as far as it is known, between endpoints and over a
// first hop with an MTU of its own.
func (t *tunnel) learnt(ep encap.Endpoints, link encap.PathMTU) (encap.PathMTU, pathmtu.Source) {
	if l := t.lesson; l.endpoints == ep && l.link == link && l.mtu < link {
		return l.mtu, l.by
	}
	return link, pathmtu.Route
}

// sender sends the way of the hop, if there is one.
func (h hop) sender(raw transport.Sender) transport.Sender {
	if h.port == nil {
		return raw
	}
	return transport.NewXDPSender(h.port, h.from, h.to, raw)
}

// close closes the path's sockets.
func (p *path) close() {
	for _, s := range p.senders {
		s.Close()
	}
}

func (e *Engine) options(t *tunnel) transport.Options { return transport.Options{Mark: t.cfg.FwMark} }

// register lets the tunnel's end be found by packets to its local address: it
// opens receivers there if there are none yet, and closes those that no tunnel
// uses any more.
func (e *Engine) register(t *tunnel, p *path) error {
	local := p.endpoints.Local
	shards := e.inbounds[local]
	if shards == nil {
		var err error
		if shards, err = e.listen(local); err != nil {
			return err
		}
	}
	old := t.registered
	if old != nil && old.endpoints.Local != local {
		e.unregister(t, old.endpoints.Local)
	}
	port, arrivals := e.arrivals(p)
	if oldPort, inbounds := e.arrivals(old); oldPort != nil {
		oldPort.filter.Pass(old.endpoints.Remote, old.endpoints.Local)
		if oldPort != port {
			for _, in := range inbounds {
				in.remove(t)
			}
		}
	}
	t.registered = p
	for i, in := range slices.Concat(shards, arrivals) {
		in.replace(newEnd(t, p, i%t.queues))
	}
	if !t.listening.Swap(true) {
		t.prober.rouse()
	}
	if port != nil {
		if err := port.filter.Take(p.endpoints.Remote, local); err != nil {
			t.log.Warn("packets arrive through sockets, not through AF_XDP", zap.Error(err))
		}
	}
	return nil
}

// listen opens the receivers of a local address.
func (e *Engine) listen(local netip.Addr) (shards []*inbound, err error) {
	for i := range e.shards {
		rx, err := transport.ListenRaw4(local, header.ProtoIPv6, transport.Shard{Index: i, Count: e.shards}, transport.Options{})
		if err != nil {
			for _, in := range shards {
				in.rx.Close()
			}
			return nil, err
		}
		shards = append(shards, e.newInbound(local, rx))
	}
	if err := e.listenErrors(local, shards[0]); err != nil {
		for _, in := range shards {
			in.rx.Close()
		}
		return nil, err
	}
	e.inbounds[local] = shards
	for _, in := range shards {
		e.wg.Go(in.run)
	}
	return shards, nil
}

func (e *Engine) unregister(t *tunnel, local netip.Addr) {
	for _, in := range e.inbounds[local] {
		if in.remove(t) == 0 {
			in.rx.Close()
			delete(e.inbounds, local)
		}
	}
	if rx := e.errors[local]; rx != nil && e.inbounds[local] == nil {
		rx.Close()
		delete(e.errors, local)
	}
}

// resolveInterval is how often a peer's name is looked up again: names of hosts
// with changing addresses have short lives, and the resolver does not tell us
// how short.
const resolveInterval = 5 * time.Minute

// resolveRetry is how soon after a failure.
const resolveRetry = 5 * time.Second

// follow resolves a peer's name again and again, and reports each address that
// is new, until ctx ends.
func follow(ctx context.Context, name string, found func(netip.Addr)) {
	var last netip.Addr
	for {
		wait := resolveRetry
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
		if err == nil && len(addrs) > 0 {
			wait = resolveInterval
			// A name may have several addresses, in any order: we stay with ours.
			if !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == last }) {
				last = addrs[0].Unmap()
				found(last)
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}
