package engine

import (
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"

	"sixfour/encap/resolve"
	"sixfour/internal/config"
)

// mechanism is the automatic layer of a tunnel, with the resolver for the tunnel's present
// site. The control loop owns it.
type mechanism struct {
	layer    int // index in the stack
	cfg      resolve.Mechanism
	hosts    [][]netip.Addr // known addresses of each of its hosts
	looked   bool           // the first look-up of one of their names has finished
	links    []netip.Prefix // this host's IPv4 addresses
	site     resolve.Site   // for which the resolver was made
	resolver resolve.Resolver
	err      error
	numbered []netip.Prefix // addresses last given to the interface

	// Also used by other goroutines.
	watched atomic.Pointer[relays]
	down    atomic.Pointer[[]netip.Addr] // relays and routers that are down
	failed  atomic.Bool                  // the resolver panicked
}

func newMechanism(layer int, cfg resolve.Mechanism) *mechanism {
	m := &mechanism{layer: layer}
	m.assume(cfg)
	return m
}

// assume sets another mechanism, and forgets everything about the old one.
func (m *mechanism) assume(cfg resolve.Mechanism) {
	m.cfg, m.hosts, m.looked, m.resolver, m.err = cfg, nil, false, nil, nil
	for _, h := range cfg.Hosts() {
		var known []netip.Addr
		if h.Addr.IsValid() {
			known = []netip.Addr{h.Addr}
		}
		m.hosts = append(m.hosts, known)
	}
}

// towards returns an outer address to which packets go. The route to it gives the first hop
// and our own address. Invalid: there is none.
func (m *mechanism) towards() netip.Addr {
	var first netip.Addr
	down := addrs(&m.down)
	for _, known := range m.hosts {
		for _, a := range known {
			if m.isOurs(a) {
				continue
			}
			if !slices.Contains(down, a) {
				return a
			}
			if !first.IsValid() {
				first = a
			}
		}
	}
	return first
}

// at returns the resolver for a site. It makes a new one only if something has changed.
func (m *mechanism) at(site resolve.Site) (resolve.Resolver, error) {
	if (m.resolver != nil || m.err != nil) && !m.failed.Swap(false) && reflect.DeepEqual(site, m.site) {
		return m.resolver, m.err
	}
	m.site = site
	m.resolver, m.err = m.cfg.Resolver(site)
	return m.resolver, m.err
}

// site returns the site of a tunnel's mechanism with one of our outer addresses.
func (e *Engine) site(t *tunnel, local netip.Addr) resolve.Site {
	s := resolve.Site{Local: local, Own: t.cfg.AddressAt(local), Hosts: slices.Clone(t.mech.hosts), Links: e.links, Strict: t.cfg.Strict}
	s.Down, s.Elsewhere = addrs(&t.mech.down), e.elsewhere(t)
	for _, other := range e.tunnels {
		if other.mech == nil {
			continue
		}
		if d, ok := other.mech.cfg.(resolve.Delegator); ok {
			if p, err := d.Delegated(other.mechanismAt()); err == nil {
				s.Delegated = append(s.Delegated, p)
			}
		}
	}
	return s
}

// mechanismAt returns our outer address at which the mechanism runs or, if it is not
// configured, last ran; invalid: it never ran.
func (t *tunnel) mechanismAt() netip.Addr {
	if local := t.cfg.LocalOf(t.mech.layer, &t.cfg.Peers[0].Paths[0]); local.IsValid() {
		return local
	}
	return t.mech.site.Local
}

// warn logs the warnings about a tunnel's mechanism.
func (t *tunnel) warn() {
	if t.mech == nil {
		return
	}
	if w, ok := t.mech.cfg.(resolve.Warner); ok {
		for _, text := range w.Warnings() {
			t.Log.Warn(text)
		}
	}
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
	return cfg.AddressAt(t.mech.site.Local)
}

// renumber gives the interface new addresses when the outer address has changed.
func (t *tunnel) renumber() {
	if t.mech == nil || t.link == nil {
		return
	}
	want := t.addresses()
	if slices.Equal(want, t.mech.numbered) {
		return
	}
	if err := t.link.RemoveOthers(want, t.routes()); err != nil { // retried later
		t.troubled(&t.warned.state, err)
		return
	}
	err := t.link.AddPossible(want, t.routes())
	if t.lack(err); err != nil {
		t.troubled(&t.warned.state, err)
	}
	t.mech.numbered, t.surroundings.old = want, true
	fields := []zap.Field{zap.Stringer("local", t.mech.site.Local), zap.Stringers("address", want)}
	if d, ok := t.mech.cfg.(resolve.Delegator); ok {
		if p, err := d.Delegated(t.mech.site.Local); err == nil {
			fields = append(fields, zap.Stringer("delegated", p))
		}
	}
	t.Log.Info("the interface's addresses were changed, because the local address has changed: if there are networks behind this host, change their addresses, too", fields...)
}
