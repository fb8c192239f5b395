package engine

import (
	"net/netip"
	"reflect"

	"sixfour/encap/resolve"
)

// mechanism is the automatic layer of a tunnel: the resolver where the tunnel is
// now. The control loop owns it.
type mechanism struct {
	layer    int // of the stack
	cfg      resolve.Mechanism
	hosts    [][]netip.Addr // addresses of its hosts, as far as they are known
	site     resolve.Site   // that the resolver was made for
	resolver resolve.Resolver
	err      error
}

func newMechanism(layer int, cfg resolve.Mechanism) *mechanism {
	m := &mechanism{layer: layer, cfg: cfg}
	for _, h := range cfg.Hosts() {
		var known []netip.Addr
		if h.Addr.IsValid() {
			known = []netip.Addr{h.Addr}
		}
		m.hosts = append(m.hosts, known)
	}
	return m
}

// towards is an outer address that packets go to, by whose route the first hop and
// our own address are known; invalid: there is none.
func (m *mechanism) towards() netip.Addr {
	for _, known := range m.hosts {
		if len(known) > 0 {
			return known[0]
		}
	}
	return netip.Addr{}
}

// at is the resolver for an outer address of ours: the one that there is, as long
// as nothing has changed.
func (m *mechanism) at(t *tunnel, local netip.Addr) (resolve.Resolver, error) {
	site := resolve.Site{Local: local, Own: t.cfg.Address, Hosts: append([][]netip.Addr(nil), m.hosts...), Strict: t.cfg.Strict}
	if (m.resolver != nil || m.err != nil) && reflect.DeepEqual(site, m.site) {
		return m.resolver, m.err
	}
	m.site = site
	m.resolver, m.err = m.cfg.Resolver(site)
	return m.resolver, m.err
}
