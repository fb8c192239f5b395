// Package site runs the mechanism of an automatic tunnel at the site where this host is: it
// makes the resolver again when the site has changed, and knows which relays and routers
// carry packets whose destination has no embedded outer address.
package site

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"

	"sixfour/encap/resolve"

	"go.uber.org/zap"
)

// Mechanism is the automatic layer of a tunnel, with the resolver for its present site. Its
// methods are for the control loop, except for those that any goroutine may call.
type Mechanism struct {
	layer    int // index in the stack
	cfg      resolve.Mechanism
	hosts    [][]netip.Addr // known addresses of each of its hosts
	looked   bool           // the first look-up of one of their names has finished
	own      []netip.Addr   // this host's addresses
	site     resolve.Site   // for which the resolver was made
	resolver resolve.Resolver
	err      error

	// Also used by other goroutines.
	watched atomic.Pointer[Relays]
	down    atomic.Pointer[[]netip.Addr] // relays and routers that are down
	failed  atomic.Bool                  // the resolver panicked
}

// New returns a mechanism that addresses the layer with an index in the tunnel's stack.
func New(layer int, cfg resolve.Mechanism) *Mechanism {
	m := &Mechanism{layer: layer}
	m.SetConfig(cfg)
	return m
}

// SetConfig sets another configuration, and forgets everything about the old one.
func (m *Mechanism) SetConfig(cfg resolve.Mechanism) {
	m.cfg, m.hosts, m.looked, m.resolver, m.err = cfg, nil, false, nil, nil
	for _, h := range cfg.Hosts() {
		var known []netip.Addr
		if h.Addr.IsValid() {
			known = []netip.Addr{h.Addr}
		}
		m.hosts = append(m.hosts, known)
	}
}

// HasConfig reports whether the configuration is the given one.
func (m *Mechanism) HasConfig(cfg resolve.Mechanism) bool { return reflect.DeepEqual(m.cfg, cfg) }

// Layer returns the index of the layer in the tunnel's stack.
func (m *Mechanism) Layer() int { return m.layer }

// Hosts returns the relays and routers as they are configured.
func (m *Mechanism) Hosts() []resolve.Host { return m.cfg.Hosts() }

// Learn sets the addresses of a host's name, which was looked up. The host is given by its
// index in Hosts.
func (m *Mechanism) Learn(host int, addrs []netip.Addr) { m.hosts[host], m.looked = addrs, true }

// SetOwn sets the addresses of this host.
func (m *Mechanism) SetOwn(own []netip.Addr) { m.own = own }

// Waits returns what the mechanism waits for when no address is known to which packets go.
func (m *Mechanism) Waits() string {
	name := m.cfg.Hosts()[0].Name
	if !m.looked {
		return "the first look-up of the name " + name
	}
	return fmt.Sprintf("an address of %s: the name does not resolve", name)
}

// Warn logs what the user should know about the configuration.
func (m *Mechanism) Warn(log *zap.Logger) {
	if w, ok := m.cfg.(resolve.Warner); ok {
		for _, text := range w.Warnings() {
			log.Warn(text)
		}
	}
}

// Delegated returns the IPv6 prefix that the mechanism derives from an outer address. Ok is
// false if it derives none.
func (m *Mechanism) Delegated(local netip.Addr) (p netip.Prefix, ok bool) {
	d, ok := m.cfg.(resolve.Delegator)
	if !ok {
		return p, false
	}
	p, err := d.Delegated(local)
	return p, err == nil
}

// Site returns the site with one of our outer addresses, where the interface has the
// addresses own, as far as the mechanism knows it.
func (m *Mechanism) Site(local netip.Addr, own []netip.Prefix, strict bool) resolve.Site {
	return resolve.Site{Local: local, Own: own, Hosts: slices.Clone(m.hosts), Down: m.Down(), Strict: strict}
}

// At returns the resolver for a site. It makes a new one only if something has changed.
func (m *Mechanism) At(site resolve.Site) (resolve.Resolver, error) {
	if (m.resolver != nil || m.err != nil) && !m.failed.Swap(false) && reflect.DeepEqual(site, m.site) {
		return m.resolver, m.err
	}
	m.site = site
	m.resolver, m.err = m.cfg.Resolver(site)
	return m.resolver, m.err
}

// Local returns our outer address at the site for which a resolver was last made; invalid:
// none was made.
func (m *Mechanism) Local() netip.Addr { return m.site.Local }

// Fail makes At replace the resolver, which has panicked. Any goroutine may call it.
func (m *Mechanism) Fail() { m.failed.Store(true) }

// Toward returns an outer address to which packets go. The route to it gives the first hop
// and our own address. Invalid: there is none.
func (m *Mechanism) Toward() netip.Addr {
	var first netip.Addr
	down := m.Down()
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

// isOurs reports whether an address belongs to this host, as far as the mechanism knows.
func (m *Mechanism) isOurs(a netip.Addr) bool {
	return a.IsLoopback() || slices.Contains(m.own, a)
}

// OnlyOurs reports whether the mechanism needs another host as relay or router, but has only
// addresses of this host for it, and returns the first of them with the name that the
// configuration has for it. A 6rd border relay does not need the other relays in its list.
func (m *Mechanism) OnlyOurs() (host string, only bool) {
	if !resolve.NeedsHosts(m.cfg) {
		return "", false
	}
	for i, h := range m.cfg.Hosts() {
		for _, a := range m.hosts[i] {
			switch {
			case !m.isOurs(a):
				return "", false
			case host == "" && h.Name != "":
				host = fmt.Sprintf("%v (%s)", a, h.Name)
			case host == "":
				host = a.String()
			}
		}
	}
	return host, host != ""
}
