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

// gate does what [gateway] says. But for mark, the control loop owns it.
type gate struct {
	cfg      config.Gateway
	up       *gateway.Gateway // nil: there is none
	taken    string           // the tunnel that could take the default route once
	worked   bool             // all was as it should be once
	complain string           // why it is not
	advice   map[string]bool  // that was given
	mark     atomic.Bool      // the sockets by which names are looked up

	shown atomic.Pointer[api.GatewayStatus] // what came of it; nil: there is nothing to do
}

// syncGateway brings the gateway in line with the configuration and the tunnels'
// interfaces, and reports whether it was so once: what fails later is an error in
// the log, and tried again.
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
	e.tellGateway(done, err)
	g.shown.Store(newGatewayStatus(&g.cfg, wanted, done, err))
	g.worked = g.worked || err == nil && complete
	return g.worked
}

// waits is what the gateway waits for, or "".
func (g *gate) waits() string {
	switch {
	case len(g.cfg.Masquerade) == 0 && g.cfg.DefaultRoute == "":
		return ""
	case g.complain != "":
		return g.complain
	case g.worked:
		return ""
	}
	return "tunnel " + g.cfg.DefaultRoute + ", into which the default route is to lead"
}

// yieldDefaultRoute gives the default route up if the configuration does not want it
// any more, before the outer packets lose the mark that keeps them out of the tunnel.
func (e *Engine) yieldDefaultRoute() {
	if e.gate.cfg.DefaultRoute == "" && e.gate.taken != "" {
		e.gate.taken = ""
		e.syncGateway()
	}
}

// wantedGateway is what it shall do, which is complete when the default route's
// tunnel has been able to carry packets. Until then everything goes the old way,
// such as the look-up of the peer's name; from then on what the tunnel cannot carry
// is lost, and not sent where nobody shall see it.
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
	if slices.ContainsFunc(into.peers, func(p *peer) bool { return p.path.Load() != nil }) {
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

// tellGateway logs what came of it, each thing once.
func (e *Engine) tellGateway(done gateway.Done, err error) {
	g := &e.gate
	if len(done.Mended) > 0 {
		text := "the gateway's " + strings.Join(done.Mended, ", ") + " that somebody removed"
		e.log.Warn("put back: " + text)
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
		e.log.Info("gateway: all is well again")
	}
}

// closeGateway undoes it.
func (e *Engine) closeGateway() {
	if e.gate.up == nil {
		return
	}
	if err := e.gate.up.Close(); err != nil {
		e.log.Warn("undo the gateway", zap.Error(err))
	}
	e.gate.up, e.gate.taken = nil, ""
}

// newResolver looks names up by sockets that have the outer packets' mark while
// there is a default route into a tunnel: without its peer's address the tunnel
// does not carry the question for it.
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
