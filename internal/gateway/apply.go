package gateway

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/internal/api"
	"sixfour/internal/config"
)

// Applier applies the [gateway] section of a configuration to the tunnels, as they change.
// Except for Resolver and Status, its methods must not be called at the same time.
type Applier struct {
	log      *zap.Logger
	cfg      config.Gateway
	up       *Gateway        // nil: not active
	taken    string          // the tunnel that has been able to carry the default route
	worked   bool            // everything was in order once
	complain string          // the present error
	advice   map[string]bool // advice already logged
	mark     atomic.Bool     // set the mark on sockets for name look-ups

	shown atomic.Pointer[api.GatewayStatus] // for Status; nil: nothing configured
}

// TunnelState is what an Applier needs to know about a tunnel.
type TunnelState struct {
	Tunnel
	Mark      uint32 // of its outer packets; 0: none is configured
	Elsewhere bool   // its interface is in another network namespace than the gateway
	Index     int    // of its interface; 0: there is no interface
	HasPath   bool   // it can send packets to at least one peer
	Share     *Share // what IPv4 packets into it are translated to; nil: nothing
}

// ShareOf returns the Share of a tunnel; nil: it has none.
func ShareOf(t *config.Tunnel) *Share {
	a, p, ok := t.Share()
	if !ok {
		return nil
	}
	return &Share{Interface: t.Name, Address: a, Ports: p}
}

// NewApplier returns an Applier for a configuration. It changes nothing on the system; Sync
// does.
func NewApplier(cfg config.Gateway, log *zap.Logger) *Applier {
	a := &Applier{log: log, cfg: cfg}
	a.mark.Store(cfg.DefaultRoute != "")
	return a
}

// Config returns the configuration.
func (a *Applier) Config() config.Gateway { return a.cfg }

// SetConfig replaces the configuration. Sync applies it.
func (a *Applier) SetConfig(cfg config.Gateway) { a.cfg = cfg }

// MustYield reports whether the default route leads into a tunnel, but the configuration no
// longer has it. Sync must then be called before outer packets lose the mark that keeps them
// out of the tunnel.
func (a *Applier) MustYield() bool { return a.cfg.DefaultRoute == "" && a.taken != "" }

// Carries reports whether restored routes and rules of the gateway concern a tunnel.
func (a *Applier) Carries(t TunnelState) bool {
	return t.Interface == a.cfg.DefaultRoute || a.cfg.DefaultRoute == "" && !t.Elsewhere
}

// Sync updates the gateway to the configuration and to the tunnels' interfaces, and reports
// whether it has been in order at least once. Later failures are logged as errors; the next
// call tries again. If another program had removed something, restored says what was added
// again.
func (a *Applier) Sync(tunnels []TunnelState) (restored string, worked bool) {
	a.mark.Store(a.cfg.DefaultRoute != "")
	wanted, complete := a.wanted(tunnels)
	if len(a.cfg.Masquerade) == 0 && a.cfg.DefaultRoute == "" && len(wanted.Shares) == 0 {
		a.Close()
		a.complain = ""
		a.shown.Store(nil)
		return "", true
	}
	var err error
	var done Done
	if a.up == nil {
		a.up, err = Open()
	}
	if err == nil {
		done, err = a.up.Sync(wanted)
	}
	restored = a.report(done, err)
	a.shown.Store(newStatus(&a.cfg, wanted, done, err))
	a.worked = a.worked || err == nil && complete
	return restored, a.worked
}

// Status returns the state after the last Sync; nil: nothing is configured. Any goroutine may
// call it.
func (a *Applier) Status() *api.GatewayStatus { return a.shown.Load() }

// Waits returns what the gateway waits for, or "".
func (a *Applier) Waits() string {
	switch {
	case a.complain != "":
		return a.complain
	case a.worked, len(a.cfg.Masquerade) == 0 && a.cfg.DefaultRoute == "":
		return ""
	}
	return "tunnel " + a.cfg.DefaultRoute + ", for the default route"
}

// wanted returns what the gateway is to do, and whether the tunnel of the default route has
// been able to carry packets. Until then all traffic uses the old routes, for example to look
// up the peer's name. From then on, packets that the tunnel cannot carry are lost: they must
// not leave where others could read them.
func (a *Applier) wanted(tunnels []TunnelState) (w Wanted, complete bool) {
	w.Masquerade = a.cfg.Masquerade
	marks := make(map[uint32]bool)
	var into *TunnelState
	for i, t := range tunnels {
		if t.Mark != 0 && t.Mark != config.GatewayMark {
			marks[t.Mark] = true
		}
		if t.Elsewhere {
			continue
		}
		w.Tunnels = append(w.Tunnels, t.Tunnel)
		if t.Share != nil {
			w.Shares = append(w.Shares, *t.Share)
		}
		if t.Interface == a.cfg.DefaultRoute {
			into = &tunnels[i]
		}
	}
	if into == nil {
		if a.cfg.DefaultRoute == "" {
			a.taken = ""
		}
		return w, true
	}
	if into.HasPath {
		a.taken = into.Interface
	}
	if a.taken != into.Interface {
		return w, false
	}
	w.Default = &Default{
		Interface: into.Interface, Index: into.Index, IPv4: a.cfg.IPv4, IPv6: a.cfg.IPv6, Bypass: a.cfg.Bypass,
		Mark: config.GatewayMark, Marks: slices.Sorted(maps.Keys(marks)),
	}
	return w, true
}

// report logs the results of a Sync, each only once, and returns what was restored, or "".
func (a *Applier) report(done Done, err error) (restored string) {
	if len(done.Restored) > 0 {
		restored = "another program had removed the gateway's " + strings.Join(done.Restored, ", ") + ": restored"
		a.log.Warn(restored)
	}
	given := make(map[string]bool)
	for _, text := range done.Advice {
		if given[text] = true; !a.advice[text] {
			a.log.Warn("gateway: " + text)
		}
	}
	a.advice = given
	complain := ""
	if err != nil {
		complain = oneLine(err)
	}
	was := a.complain
	switch a.complain = complain; {
	case complain != "" && complain != was:
		a.log.Error("gateway: " + complain)
	case complain == "" && was != "":
		a.log.Info("gateway: works again")
	}
	return restored
}

// Close undoes everything that the gateway did.
func (a *Applier) Close() {
	if a.up == nil {
		return
	}
	if err := a.up.Close(); err != nil {
		a.log.Warn("could not remove all routes and rules of the gateway", zap.Error(err))
	}
	a.up, a.taken = nil, ""
}

// Resolver returns a resolver whose sockets have the mark of outer packets while the default
// route leads into a tunnel: without its peer's address the tunnel could not carry the DNS
// query for that address. Any goroutine may use it.
func (a *Applier) Resolver() *net.Resolver {
	dialer := net.Dialer{ControlContext: func(_ context.Context, _, _ string, c syscall.RawConn) (err error) {
		if !a.mark.Load() {
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
