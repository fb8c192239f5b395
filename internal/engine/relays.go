package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"

	"sixfour/encap/resolve"
	"sixfour/internal/api"
	"sixfour/internal/liveness"
)

// addrs is a list that is replaced whole.
func addrs(p *atomic.Pointer[[]netip.Addr]) []netip.Addr {
	if list := p.Load(); list != nil {
		return *list
	}
	return nil
}

// relays are the hosts of a mechanism of which is watched whether they live. They are
// replaced whole.
type relays struct {
	addrs []netip.Addr
	self  netip.Addr // that of 6rd, to which they send packets back; invalid: they do not
}

// relays are those that there are. Any goroutine may ask.
func (m *mechanism) relays() relays {
	if r := m.watched.Load(); r != nil {
		return *r
	}
	return relays{}
}

// maxRelays is how many of them are watched.
const maxRelays = 64

// watchRelays notes the relays or routers through which a tunnel's packets go that no
// address shows the way of, in the order of the configuration, and reports whether
// they are others than before. A border relay's colleagues are none.
func (e *Engine) watchRelays(t *tunnel, local netip.Addr) bool {
	m := t.mech
	var now relays
	sixRD, ok := m.cfg.(resolve.SixRD)
	if m.layer == len(t.cfg.Layers)-1 && !isBorderRelay(m.cfg) {
		list := now.addrs
		for _, a := range slices.Concat(m.hosts...) {
			if a.Is4() && a != local && !m.isOurs(a) && !slices.Contains(list, a) && len(list) < maxRelays {
				list = append(list, a)
			}
		}
		now.addrs = list
		if d, err := sixRD.Delegated(local); ok && err == nil {
			now.self = d.Addr().Next()
		}
	}
	if was := m.relays(); now.self == was.self && slices.Equal(now.addrs, was.addrs) {
		return false
	}
	m.watched.Store(&now)
	return true
}

// chosen is the pulse of the relay that packets go to: the first that is not down, or
// else the first. Which are down the control loop is told, if that is news.
func (p *peer) chosen(k *keeper) *pulse {
	var best *pulse
	var down []netip.Addr
	watched := 0
	for _, pl := range p.pulses {
		if pl.place < 0 {
			continue
		}
		watched++
		if s, _ := pl.life.State(); s == liveness.Down {
			down = append(down, pl.target.remote)
		} else if best == nil {
			best = pl
		}
	}
	if len(down) == watched { // one is as good as the other
		down, best = nil, p.pulses[0]
	}
	m := p.t.mech
	before := addrs(&m.down)
	if slices.Equal(down, before) {
		return best
	}
	m.down.Store(&down)
	was := func(a netip.Addr) bool { return slices.Contains(before, a) }
	for _, a := range down {
		if !was(a) {
			p.log().Warn("relay or router is down", zap.Stringer("address", a), zap.Stringer("packets_go_to", best.target.remote))
		}
	}
	text := fmt.Sprintf("packets that no address shows the way of go to %v", best.target.remote)
	if len(down) > 0 {
		text += fmt.Sprintf(", %v being down", down)
	}
	p.event(api.EventState, text)
	k.changed()
	return best
}
