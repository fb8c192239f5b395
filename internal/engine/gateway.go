package engine

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/gateway"
)

// gate applies the [gateway] section. The control loop owns it, except for mark.
type gate struct {
	cfg      config.Gateway
	up       *gateway.Gateway // nil: not active
	taken    string           // the tunnel that has been able to carry the default route
	worked   bool             // everything was in order once
	complain string           // the present error
	advice   map[string]bool  // advice already logged
	mark     atomic.Bool      // set the mark on sockets for name look-ups

	shown atomic.Pointer[api.GatewayStatus] // for Status; nil: nothing configured
}

// syncGateway updates the gateway to the configuration and the tunnels' interfaces, and
// reports whether it has been in order at least once. Later failures are logged as errors
// and retried.
func (e *Engine) syncGateway() (worked bool) {
	g := &e.gate
	g.mark.Store(g.cfg.DefaultRoute != "")
	wanted, complete := e.wantedGateway()
	if len(g.cfg.Masquerade) == 0 && g.cfg.DefaultRoute == "" {
		e.closeGateway()
		g.shown.Store(nil)
		return true
	}
	var err error
	var done gateway.Done
	if g.up == nil {
		g.up, err = gateway.Open()
	}
	if err == nil {
		done, err = g.up.Sync(wanted)
	}
	e.reportGateway(done, err)
	g.shown.Store(newGatewayStatus(&g.cfg, wanted, done, err))
	g.worked = g.worked || err == nil && complete
	return g.worked
}

// waits returns what the gateway waits for, or "".
func (g *gate) waits() string {
	switch {
	case len(g.cfg.Masquerade) == 0 && g.cfg.DefaultRoute == "":
		return ""
	case g.complain != "":
		return g.complain
	case g.worked:
		return ""
	}
	return "tunnel " + g.cfg.DefaultRoute + ", for the default route"
}

// yieldDefaultRoute removes the default route if the configuration no longer has it. This
// must happen before outer packets lose the mark that keeps them out of the tunnel.
func (e *Engine) yieldDefaultRoute() {
	if e.gate.cfg.DefaultRoute == "" && e.gate.taken != "" {
		e.gate.taken = ""
		e.syncGateway()
	}
}

// wantedGateway returns what the gateway is to do, and whether the tunnel of the default
// route has been able to carry packets. Until then all traffic uses the old routes, for
// example to look up the peer's name. From then on, packets that the tunnel cannot carry
// are lost: they must not leave where others could read them.
func (e *Engine) wantedGateway() (w gateway.Wanted, complete bool) {
	g := &e.gate
	w.Masquerade = g.cfg.Masquerade
	marks := make(map[uint32]bool)
	var into *tunnel
	for _, t := range e.tunnels {
		if m := t.cfg.FwMark; m != 0 && m != config.GatewayMark {
			marks[m] = true
		}
		if t.cfg.Netns != "" {
			continue
		}
		w.Tunnels = append(w.Tunnels, gateway.Tunnel{
			Interface: t.cfg.Name, IPv4: t.cfg.Mode.Carries(4),
			IPv6: slices.ContainsFunc(t.cfg.Address, func(p netip.Prefix) bool { return p.Addr().Is6() && p.Addr().IsPrivate() }),
		})
		if t.cfg.Name == g.cfg.DefaultRoute {
			into = t
		}
	}
	if into == nil {
		return w, true
	}
	if into.anyPath(func(p *path) bool { return p.Wire.Load() != nil }) {
		g.taken = into.cfg.Name
	}
	if g.taken != into.cfg.Name {
		return w, false
	}
	w.Default = &gateway.Default{
		Interface: into.cfg.Name, IPv4: g.cfg.IPv4, IPv6: g.cfg.IPv6, Bypass: g.cfg.Bypass,
		Mark: config.GatewayMark, Marks: slices.Sorted(maps.Keys(marks)),
	}
	if into.link != nil {
		w.Default.Index = into.link.Index()
	}
	return w, true
}

// reportGateway logs the results of a sync, each only once.
func (e *Engine) reportGateway(done gateway.Done, err error) {
	g := &e.gate
	if len(done.Restored) > 0 {
		text := "another program had removed the gateway's " + strings.Join(done.Restored, ", ") + ": restored"
		e.log.Warn(text)
		for _, t := range e.tunnels {
			if t.cfg.Name == g.cfg.DefaultRoute || g.cfg.DefaultRoute == "" && t.cfg.Netns == "" {
				t.repaired(repairRoute, text)
			}
		}
	}
	given := make(map[string]bool)
	for _, a := range done.Advice {
		if given[a] = true; !g.advice[a] {
			e.log.Warn("gateway: " + a)
		}
	}
	g.advice = given
	complain := ""
	if err != nil {
		complain = oneLine(err)
	}
	was := g.complain
	switch g.complain = complain; {
	case complain != "" && complain != was:
		e.log.Error("gateway: " + complain)
	case complain == "" && was != "":
		e.log.Info("gateway: works again")
	}
}

// closeGateway undoes everything that the gateway did.
func (e *Engine) closeGateway() {
	if e.gate.up == nil {
		return
	}
	if err := e.gate.up.Close(); err != nil {
		e.log.Warn("could not remove all routes and rules of the gateway", zap.Error(err))
	}
	e.gate.up, e.gate.taken = nil, ""
}

// newResolver returns a resolver whose sockets have the mark of outer packets while the
// default route leads into a tunnel: without its peer's address the tunnel could not carry
// the DNS query for that address.
func (e *Engine) newResolver() *net.Resolver {
	dialer := net.Dialer{ControlContext: func(_ context.Context, _, _ string, c syscall.RawConn) (err error) {
		if !e.gate.mark.Load() {
			return nil
		}
		if e := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, config.GatewayMark)
		}); e != nil {
			return e
		}
		return err
	}}
	return &net.Resolver{PreferGo: true, Dial: dialer.DialContext}
}
