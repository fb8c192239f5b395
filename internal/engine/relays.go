package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"

	"sixfour/encap/resolve"
	"sixfour/internal/api"
)

// addrs returns the list behind an atomic pointer. The list is only replaced as a whole.
func addrs(p *atomic.Pointer[[]netip.Addr]) []netip.Addr {
	if list := p.Load(); list != nil {
		return *list
	}
	return nil
}

// relays are the hosts of a mechanism that have liveness checks. The value is only replaced
// as a whole.
type relays struct {
	addrs []netip.Addr
	self  netip.Addr // address of ours to which relays return probes; invalid: they do not
}

// relays returns the present relays. Any goroutine may call it.
func (m *mechanism) relays() relays {
	if r := m.watched.Load(); r != nil {
		return *r
	}
	return relays{}
}

// maxRelays limits how many relays are checked.
const maxRelays = 64

// watchRelays determines the relays or routers that carry packets whose destination has no
// embedded address, in the order of the configuration, and reports whether they have
// changed. The other relays of a border relay are not included.
func (e *Engine) watchRelays(t *tunnel, local netip.Addr) bool {
	m := t.mech
	var now relays
	if m.layer == len(t.cfg.Layers)-1 && resolve.NeedsHosts(m.cfg) {
		list := now.addrs
		for _, a := range slices.Concat(m.hosts...) {
			if a.Is4() && a != local && !m.isOurs(a) && !slices.Contains(list, a) && len(list) < maxRelays {
				list = append(list, a)
			}
		}
		now.addrs = list
		if r, ok := m.cfg.(resolve.Returner); ok {
			now.self = r.ProbeAddress(local)
		}
	}
	if was := m.relays(); now.self == was.self && slices.Equal(now.addrs, was.addrs) {
		return false
	}
	m.watched.Store(&now)
	return true
}

// Relays returns the relays and routers of an automatic tunnel that have liveness
// sessions, and our inner address to which relays return probes. Any goroutine may call it.
func (p *path) Relays() (list []netip.Addr, self netip.Addr) {
	r := p.t.mech.relays()
	return r.addrs, r.self
}

// RelaysDown records the relays and routers that are down, and reports whether others were
// down before: packets then go to another one.
func (p *path) RelaysDown(down []netip.Addr, inUse netip.Addr) bool {
	m := p.t.mech
	before := addrs(&m.down)
	if slices.Equal(down, before) {
		return false
	}
	m.down.Store(&down)
	for _, a := range down {
		if !slices.Contains(before, a) {
			p.report.Log().Warn("a relay or router is down", zap.Stringer("address", a), zap.Stringer("packets_go_to", inUse))
		}
	}
	text := fmt.Sprintf("packets whose destination contains no outer address go to %v", inUse)
	if len(down) > 0 {
		text += fmt.Sprintf(", because %v is down", down)
	}
	p.report.Event(api.EventState, text)
	return true
}
