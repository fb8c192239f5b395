package engine

import (
	"net/netip"

	"go.uber.org/zap"

	"sixfour/encap/resolve"
	"sixfour/internal/config"
)

// site returns the site of a tunnel's mechanism with one of our outer addresses.
func (e *Engine) site(t *tunnel, local netip.Addr) resolve.Site {
	s := t.mech.Site(local, t.cfg.AddressAt(local), t.cfg.Strict)
	s.Counters = e.Counters
	s.Links, s.Elsewhere = e.addresses.Links(), e.addresses.Elsewhere(t.cfg.Netns)
	for _, other := range e.tunnels {
		if other.mech == nil {
			continue
		}
		if p, ok := other.mech.Delegated(other.mechanismAt()); ok {
			s.Delegated = append(s.Delegated, p)
		}
	}
	return s
}

// mechanismAt returns our outer address at which the mechanism runs or, if it is not
// configured, last ran; invalid: it never ran.
func (t *tunnel) mechanismAt() netip.Addr {
	if local := t.cfg.LocalOf(t.mech.Layer(), &t.cfg.Peers[0].Paths[0]); local.IsValid() {
		return local
	}
	return t.mech.Local()
}

// addresses returns the addresses that the interface is to have now. In an automatic tunnel
// they may be derived from the outer address.
func (t *tunnel) addresses() []netip.Prefix {
	return t.addressesOf(&t.cfg)
}

// addressesOf returns the addresses that the interface is to have with another
// configuration of the tunnel.
func (t *tunnel) addressesOf(cfg *config.Tunnel) []netip.Prefix {
	if t.mech == nil {
		return cfg.Address
	}
	return cfg.AddressAt(t.mech.Local())
}

// renumber gives the interface new addresses when the outer address has changed.
func (t *tunnel) renumber() {
	if t.mech == nil {
		return
	}
	want := t.addresses()
	if !t.Renumber(want, t.routes()) {
		return
	}
	t.surroundings.Renew()
	fields := []zap.Field{zap.Stringer("local", t.mech.Local()), zap.Stringers("address", want)}
	if p, ok := t.mech.Delegated(t.mech.Local()); ok {
		fields = append(fields, zap.Stringer("delegated", p))
	}
	t.Log.Info("the interface's addresses were changed, because the local address has changed: if there are networks behind this host, change their addresses, too", fields...)
}

// Relays returns the relays and routers of an automatic tunnel that have liveness
// sessions, and our inner address to which relays return probes. Any goroutine may call it.
func (p *path) Relays() (list []netip.Addr, self netip.Addr) {
	r := p.t.mech.Relays()
	return r.Addrs, r.Self
}

// RelaysDown records the relays and routers that are down, and reports whether others were
// down before: packets then go to another one.
func (p *path) RelaysDown(down []netip.Addr, inUse netip.Addr) bool {
	fresh, changed := p.t.mech.SetDown(down)
	if changed {
		p.report.RelaysDown(fresh, down, inUse)
	}
	return changed
}
