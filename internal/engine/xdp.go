package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/netcfg"
	"sixfour/transport/xdp"
)

// xdpDevice is a device with AF_XDP, or the error why it cannot be used.
type xdpDevice struct {
	*xdp.Port
	err   error
	retry time.Time // earliest next attempt after err
	busy  int       // number of attempts at which another program had the device

	filter   *xdp.Filter         // nil: packets arrive through sockets
	inbounds []*datapath.Inbound // one for each receive queue of the device
	taken    map[arrival]bool    // set in the filter
}

// arrival is the key by which a filter selects packets.
type arrival struct {
	remote, local netip.Addr
	protocol      byte
}

// wantsXDP reports whether a tunnel may use AF_XDP.
func (t *tunnel) wantsXDP() bool { return t.cfg.IO != config.IOSocket }

// findHop returns the next hop through the route's device if the tunnel is to use AF_XDP
// and the device supports it.
func (e *Engine) findHop(p *path, l *encap.Layer, route netcfg.Route) datapath.Hop {
	t := p.t
	if !t.wantsXDP() || t.automatic() || hasPorts(l.Kind) {
		return datapath.Hop{}
	}
	h, err := e.tryHop(p, l, route)
	if err != nil {
		p.logNoXDP(err)
	} else {
		p.noXDP, t.noXDP = "", ""
	}
	p.mu.Lock()
	p.state.IOWhy = p.noXDP
	p.mu.Unlock()
	return h
}

// logNoXDP logs why packets leave through a socket, if the reason is new. A hub may
// have thousands of peers: unresolved neighbours are logged at debug level only, and a
// fault of the device is logged once.
func (p *path) logNoXDP(err error) {
	t, why := p.t, err.Error()
	if why == p.noXDP {
		return
	}
	level := zap.InfoLevel
	if t.cfg.IO == config.IOXDP {
		level = zap.WarnLevel
	}
	if t.only == nil && (errors.Is(err, errNoNeighbour) || why == t.noXDP) {
		level = zap.DebugLevel
	} else {
		t.noXDP = why
	}
	p.noXDP = why
	p.log().Log(level, "packets leave through a socket, not through AF_XDP", zap.Error(err))
}

var errLinkLocal = errors.New("an end is a link-local address")

var errNoNeighbour = errors.New("is not known yet")

func (e *Engine) tryHop(p *path, l *encap.Layer, route netcfg.Route) (datapath.Hop, error) {
	if isZoned(l.Local, l.Remote) {
		return datapath.Hop{}, errLinkLocal
	}
	if !route.Ethernet {
		return datapath.Hop{}, fmt.Errorf("%s is not an Ethernet device", route.Interface)
	}
	if err := e.mayBypass(p, l, route); err != nil {
		return datapath.Hop{}, err
	}
	to, ok := e.router.Neighbour(route)
	if !ok {
		return datapath.Hop{}, fmt.Errorf("the hardware address of %v at %s %w", route.NextHop, route.Interface, errNoNeighbour)
	}
	port, err := e.port(route)
	if err != nil {
		return datapath.Hop{}, fmt.Errorf("%s: %w", route.Interface, err)
	}
	return datapath.Hop{Port: port, From: route.Hardware, To: to}, nil
}

// mayBypass returns why a peer's packets must not bypass the kernel's IP layer. If the
// IPsec policies are not known, packets must not bypass it.
func (e *Engine) mayBypass(p *path, l *encap.Layer, route netcfg.Route) error {
	if e.policies.err != nil {
		return e.policies.err
	}
	if why := e.policies.Conflict(netcfg.Outer{
		Local: l.Local, Remote: l.Remote, Protocol: l.Kind.Protocol(), Mark: p.t.cfg.FwMark, Device: route.Index,
	}); why != "" {
		return errors.New(why)
	}
	return nil
}

// policies are this host's IPsec policies, or the error why they are not known. They are
// read only if a tunnel may use AF_XDP.
type policies struct {
	netcfg.Policies
	err error
}

// readPolicies reads this host's IPsec policies if a tunnel may use AF_XDP.
func (e *Engine) readPolicies() {
	if slices.ContainsFunc(e.tunnels, (*tunnel).wantsXDP) {
		e.policies.Policies, e.policies.err = e.router.Policies()
	}
}

// port returns the port of a route's device, and opens one if there is none that works.
func (e *Engine) port(route netcfg.Route) (*xdp.Port, error) {
	p := e.xdp[route.Index]
	if p != nil && p.err == nil {
		if !p.Broken() && p.MTU() >= route.MTU {
			return p.Port, nil
		}
		e.closeXDP(p)
	}
	if p != nil && p.err != nil && time.Now().Before(p.retry) {
		return nil, p.err
	}
	busy := 0
	if p != nil {
		busy = p.busy
	}
	p = &xdpDevice{taken: make(map[arrival]bool), busy: busy}
	if p.Port, p.err = xdp.Open(route.Index, 0, route.MTU); p.err != nil {
		p.again()
	} else if err := e.receive(p, route); err != nil {
		e.log.Info("packets arrive through sockets, not through AF_XDP", zap.String("device", route.Interface), zap.Error(err))
	}
	e.xdp[route.Index] = p
	return p.Port, p.err
}

// busyTries is how often a busy device is retried soon: the kernel needs a moment to release
// the device of a daemon that has just ended.
const busyTries = 10

// again sets the time of the next attempt after an error.
func (p *xdpDevice) again() {
	wait := lookAgain
	if p.busy < busyTries && errors.Is(p.err, unix.EBUSY) {
		wait = retry
		p.busy++
	}
	p.retry = time.Now().Add(wait)
}

// nextDue returns the time until the next work of the control loop: an interface to check,
// a peer to move to another address of its name, or a port to retry. It returns most if
// that is less. A port whose retry time has passed is not needed any more.
func (e *Engine) nextDue(most time.Duration) time.Duration {
	for _, t := range e.tunnels {
		if t.opening.lacks != "" {
			most = min(most, retry)
		}
		if t.touched.Load() && t.link != nil {
			most = min(most, max(time.Until(t.restoring.next), settle))
		}
	}
	if !e.loop.moveAt.IsZero() {
		most = min(most, max(time.Until(e.loop.moveAt), settle))
	}
	for _, p := range e.xdp {
		if wait := time.Until(p.retry); p.err != nil && wait > 0 {
			most = min(most, wait+settle)
		}
	}
	return most
}

// receive starts to receive packets through a port, and through further ports for the
// device's other receive queues.
func (e *Engine) receive(p *xdpDevice, route netcfg.Route) (err error) {
	if p.filter, err = xdp.Attach(route.Index, p.MTU()); err != nil {
		return err
	}
	for queue := range route.Queues {
		rx := p.Port
		if queue > 0 {
			if rx = e.openQueue(route, queue); rx == nil {
				break
			}
		}
		in := e.NewInbound(datapath.Place{Queue: queue}, e.log.Named("in").With(zap.String("device", route.Interface)), rx)
		p.inbounds = append(p.inbounds, in)
		e.receivers.Go(in.Run)
		if err := p.filter.Serve(queue, rx); err != nil { // the queue passes its packets to the kernel
			e.log.Warn("cannot use AF_XDP on a receive queue", zap.String("device", route.Interface), zap.Int("queue", queue), zap.Error(err))
		}
	}
	return nil
}

// openQueue opens a port for one more receive queue. If it returns nil, the queue's packets
// go to the socket, as they do if the queue does not exist.
func (e *Engine) openQueue(route netcfg.Route, queue int) *xdp.Port {
	p, err := xdp.Open(route.Index, queue, route.MTU)
	if err != nil {
		e.log.Debug("cannot use AF_XDP on a receive queue", zap.String("device", route.Interface), zap.Int("queue", queue), zap.Error(err))
		return nil
	}
	return p
}

// closeXDP closes a port and restores the device.
func (e *Engine) closeXDP(p *xdpDevice) {
	if p.filter != nil {
		if err := p.filter.Close(); err != nil {
			e.log.Warn("cannot remove the XDP program", zap.Error(err))
		}
	}
	for _, in := range p.inbounds {
		in.Rx.Close()
	}
	p.Close()
}

// takeXDP sets the filters so that the ports receive packets of exactly those peers whose
// packets leave through them.
func (e *Engine) takeXDP() {
	wanted := make(map[*xdp.Port]map[arrival]*tunnel)
	for _, t := range e.tunnels {
		if !t.wantsXDP() {
			continue
		}
		for p := range t.paths() {
			if r := p.registered; p.mayBeTaken() {
				if wanted[r.Hop.Port] == nil {
					wanted[r.Hop.Port] = make(map[arrival]*tunnel)
				}
				l := r.Outer()
				wanted[r.Hop.Port][arrival{l.Remote, l.Local, l.Kind.Protocol()}] = t
			}
		}
	}
	for _, port := range e.xdp {
		if port.filter == nil {
			continue
		}
		for a := range port.taken {
			if wanted[port.Port][a] == nil {
				port.filter.Pass(a.remote, a.local, a.protocol)
				delete(port.taken, a)
			}
		}
		for a, t := range wanted[port.Port] {
			if port.taken[a] {
				continue
			}
			if err := port.filter.Take(a.remote, a.local, a.protocol); err != nil {
				t.Log.Warn("packets arrive through sockets, not through AF_XDP", zap.Error(err))
				continue
			}
			port.taken[a] = true
		}
	}
	taken := make(map[*xdp.Port]map[arrival]bool)
	for _, port := range e.xdp {
		taken[port.Port] = port.taken
	}
	for p := range e.registered() {
		l := p.registered.Outer()
		p.Ways.SetTaken(p.mayBeTaken() && taken[p.registered.Hop.Port][arrival{l.Remote, l.Local, l.Kind.Protocol()}])
	}
}

// closeUnusedXDP closes ports that no path uses.
func (e *Engine) closeUnusedXDP() {
	used := make(map[*xdp.Port]bool)
	for _, t := range e.tunnels {
		for p := range t.paths() {
			if wire := p.Wire.Load(); wire != nil {
				used[wire.Hop.Port] = true
			}
		}
	}
	for device, p := range e.xdp {
		if p.err == nil && !used[p.Port] {
			e.closeXDP(p)
			delete(e.xdp, device)
		}
	}
}

// ioOf returns how packets leave by a wire.
func ioOf(w *datapath.Wire) config.IO {
	if w.Hop.Port != nil {
		return config.IOXDP
	}
	return config.IOSocket
}

// mayBeTaken reports whether an XDP filter may take the path's packets. With a static path
// MTU both ends fragment packets that are too large for the path, so it may not.
func (p *path) mayBeTaken() bool {
	r := p.registered
	return r != nil && r.Hop.Port != nil && !r.Options.StaticMTU && !p.Ways.Parted()
}

// part makes the path's packets use the socket for a while if some of them arrive there
// though a filter takes them. It reports whether the filter must be changed.
func (p *path) part(now time.Time) bool {
	changed, pause := p.Ways.Part(now)
	if pause > 0 {
		p.log().Info("packets arrive through a socket, not through AF_XDP: the XDP filter passes some of them to the kernel, such as fragments and packets with an encapsulation limit, which would reorder the packets", zap.Duration("for", pause))
	}
	return changed
}
