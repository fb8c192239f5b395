package site

import (
	"net/netip"
	"slices"

	"sixfour/encap/resolve"
)

// Relays are the hosts of a mechanism that have liveness checks. The value never changes.
type Relays struct {
	Addrs []netip.Addr
	Self  netip.Addr // address of ours to which relays return probes; invalid: they do not
}

// maxRelays limits how many relays are checked.
const maxRelays = 64

// WatchRelays determines the relays or routers that carry packets whose destination has no
// embedded address, in the order of the configuration, and reports whether they have
// changed. The other relays of a border relay are not included, and there is none if the
// mechanism does not address the outermost layer.
func (m *Mechanism) WatchRelays(local netip.Addr, outermost bool) (changed bool) {
	var now Relays
	if outermost && resolve.NeedsHosts(m.cfg) {
		list := now.Addrs
		for _, a := range slices.Concat(m.hosts...) {
			if a.Is4() == local.Is4() && a != local && !m.isOurs(a) && !slices.Contains(list, a) && len(list) < maxRelays {
				list = append(list, a)
			}
		}
		now.Addrs = list
		if r, ok := m.cfg.(resolve.Returner); ok {
			now.Self = r.ProbeAddress(local)
		}
	}
	if was := m.Relays(); now.Self == was.Self && slices.Equal(now.Addrs, was.Addrs) {
		return false
	}
	m.watched.Store(&now)
	return true
}

// Relays returns the present relays. Any goroutine may call it.
func (m *Mechanism) Relays() Relays {
	if r := m.watched.Load(); r != nil {
		return *r
	}
	return Relays{}
}

// Down returns the relays and routers that are down. The caller must not change the list.
// Any goroutine may call it.
func (m *Mechanism) Down() []netip.Addr {
	if list := m.down.Load(); list != nil {
		return *list
	}
	return nil
}

// SetDown sets the relays and routers that are down. It returns those that were not before,
// and whether anything has changed. Any goroutine may call it, but not several at once.
func (m *Mechanism) SetDown(down []netip.Addr) (fresh []netip.Addr, changed bool) {
	before := m.Down()
	if slices.Equal(down, before) {
		return nil, false
	}
	m.down.Store(&down)
	for _, a := range down {
		if !slices.Contains(before, a) {
			fresh = append(fresh, a)
		}
	}
	return fresh, true
}

// Relay returns the relay or router to which packets go now: the first that is not down, or
// the first if all are down. Invalid: there is none. Any goroutine may call it.
func (m *Mechanism) Relay() netip.Addr {
	relays := m.Relays().Addrs
	if len(relays) == 0 {
		return netip.Addr{}
	}
	down := m.Down()
	return relays[max(0, slices.IndexFunc(relays, func(r netip.Addr) bool { return !slices.Contains(down, r) }))]
}
