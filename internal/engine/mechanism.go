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

// mechanism is the automatic layer of a tunnel: the resolver where the tunnel is
// now. The control loop owns it.
type mechanism struct {
	layer    int // of the stack
	cfg      resolve.Mechanism
	hosts    [][]netip.Addr // addresses of its hosts, as far as they are known
	looked   bool           // the first look-up of one of their names has ended
	links    []netip.Prefix // this host's addresses
	site     resolve.Site   // that the resolver was made for
	resolver resolve.Resolver
	err      error
	numbered []netip.Prefix // addresses that the interface was given last

	// What other goroutines ask.
	watched atomic.Pointer[relays]
	down    atomic.Pointer[[]netip.Addr] // those that do not live
	failed  atomic.Bool                  // the resolver panicked
}

func newMechanism(layer int, cfg resolve.Mechanism) *mechanism {
	m := &mechanism{layer: layer}
	m.assume(cfg)
	return m
}

// assume makes the mechanism another one, of which nothing is known yet.
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

// towards is an outer address that packets go to, by whose route the first hop and
// our own address are known; invalid: there is none.
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

// at is the resolver for a place: the one that there is, as long as nothing has
// changed.
func (m *mechanism) at(site resolve.Site) (resolve.Resolver, error) {
	if (m.resolver != nil || m.err != nil) && !m.failed.Swap(false) && reflect.DeepEqual(site, m.site) {
		return m.resolver, m.err
	}
	m.site = site
	m.resolver, m.err = m.cfg.Resolver(site)
	return m.resolver, m.err
}

// site is where a tunnel's mechanism runs, with an outer address of ours.
func (e *Engine) site(t *tunnel, local netip.Addr) resolve.Site {
	s := resolve.Site{Local: local, Own: t.cfg.AddressAt(local), Hosts: slices.Clone(t.mech.hosts), Links: e.links, Strict: t.cfg.Strict}
	s.Down, s.Elsewhere = addrs(&t.mech.down), e.elsewhere(t)
	for _, other := range e.tunnels {
		if other.mech == nil {
			continue
		}
		if d, ok := other.mech.cfg.(delegator); ok {
			if p, err := d.Delegated(other.mechanismAt()); err == nil {
				s.Delegated = append(s.Delegated, p)
			}
		}
	}
	return s
}

// mechanismAt is the outer address of ours at which the mechanism runs, or ran last
// if that is not configured; invalid: it never did.
func (t *tunnel) mechanismAt() netip.Addr {
	if local := t.cfg.Layers[t.mech.layer].Local; local.IsValid() {
		return local
	}
	return t.mech.site.Local
}

// isBorderRelay reports whether a mechanism is that of a 6rd border relay.
func isBorderRelay(m resolve.Mechanism) bool {
	sixRD, ok := m.(resolve.SixRD)
	return ok && sixRD.Role != resolve.RoleCE
}

// warn tells the user what there is to know of a tunnel's mechanism.
func (t *tunnel) warn() {
	if t.mech == nil {
		return
	}
	if w, ok := t.mech.cfg.(resolve.Warner); ok {
		for _, text := range w.Warnings() {
			t.log.Warn(text)
		}
	}
}

// delegator is a mechanism that gives each outer address a prefix.
type delegator interface {
	Delegated(local netip.Addr) (netip.Prefix, error)
}

// addresses are those that the interface is to have now: of an automatic tunnel, whose
// outer address is in them, they follow that.
func (t *tunnel) addresses() []netip.Prefix {
	return t.addressesOf(&t.cfg)
}

// addressesOf is that by a configuration of the tunnel.
func (t *tunnel) addressesOf(cfg *config.Tunnel) []netip.Prefix {
	if t.mech == nil {
		return cfg.Address
	}
	return cfg.AddressAt(t.mech.site.Local)
}

// renumber gives the interface the addresses that follow from another outer address.
func (t *tunnel) renumber() {
	if t.mech == nil || t.link == nil {
		return
	}
	want := t.addresses()
	if slices.Equal(want, t.mech.numbered) {
		return
	}
	if err := t.link.Leave(want, t.routes()); err != nil { // and try again
		t.troubled(&t.warned.state, err)
		return
	}
	err := t.link.TakeSome(want, t.routes())
	if t.lack(err); err != nil {
		t.troubled(&t.warned.state, err)
	}
	t.mech.numbered, t.beside.old = want, true
	fields := []zap.Field{zap.Stringer("local", t.mech.site.Local), zap.Stringers("address", want)}
	if d, ok := t.mech.cfg.(delegator); ok {
		if p, err := d.Delegated(t.mech.site.Local); err == nil {
			fields = append(fields, zap.Stringer("delegated", p))
		}
	}
	t.log.Info("the interface's addresses follow the local address: those of the networks behind it, if there are any, must follow, too", fields...)
}
