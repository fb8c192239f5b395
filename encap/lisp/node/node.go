// Package node has the LISP routers of a site and of a provider: the xTR, which is ingress and
// egress tunnel router, and the proxy xTR (RFC 9300, RFC 9301, RFC 6832). Each is a
// resolve.Mechanism, whose resolver is an agent that is passed the time and opens no sockets.
package node

import (
	"fmt"
	"net/netip"
	"slices"

	"sixfour/encap/framing"
	"sixfour/encap/lisp"
	"sixfour/encap/resolve"
)

// Router is an xTR or a proxy xTR.
type Router struct {
	// EIDs are the prefixes of the xTR's site. With Proxy, they are the prefixes of all sites
	// for which the proxy xTR carries packets from and to hosts without LISP.
	EIDs     []netip.Prefix
	Proxy    bool
	Instance uint32

	RLOCs     []RLOC         // locators of the site; nil: the local address
	Resolvers []resolve.Host // map resolvers
	Servers   []resolve.Host // map servers, at which an xTR registers
	ProxyETRs []resolve.Host // where an xTR sends packets to hosts without LISP
	Key       Key            // for Servers
	NonceFile string         // of the counter for registrations

	// Answers makes map servers answer for this xTR.
	Answers bool
	// Checked makes the outer source of a received packet have to be a locator of its inner
	// source, if the mapping of that is known.
	Checked bool
}

// RLOC is a locator of a site.
type RLOC struct {
	Addr             netip.Addr
	Priority, Weight uint8
}

// Key authenticates registrations.
type Key struct {
	File      string // from which the secret is
	Algorithm lisp.Algorithm
	secret    string
}

// NewKey returns a key with a secret from a file. The secret may be empty, while the file
// cannot be read: then nothing is registered.
func NewKey(file, secret string, a lisp.Algorithm) Key { return Key{file, a, secret} }

// String keeps the secret out of texts.
func (k Key) String() string { return k.File }

// GoString keeps the secret out of %#v.
func (k Key) GoString() string { return fmt.Sprintf("node.Key{%q, %d}", k.File, k.Algorithm) }

// Framing returns the framing of the router's packets.
func (m Router) Framing() framing.Framing { return framing.LISP{Instance: m.Instance} }

// Hosts returns the map resolvers, the map servers and the proxy ETRs.
func (m Router) Hosts() []resolve.Host { return slices.Concat(m.Resolvers, m.Servers, m.ProxyETRs) }

// NeedsHosts reports that none of the hosts carries all packets.
func (Router) NeedsHosts() bool { return false }

// SecretFile returns the file with the key.
func (m Router) SecretFile() string { return m.Key.File }

// CounterFile returns the file with the nonces of registrations; "": nothing is registered.
func (m Router) CounterFile() string {
	if len(m.Servers) == 0 {
		return ""
	}
	return m.NonceFile
}

// Resolver returns the agent of the router.
func (m Router) Resolver(at resolve.Site) (resolve.Resolver, error) {
	if a := at.Local; !a.IsValid() || a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || a.IsLinkLocalUnicast() {
		return nil, fmt.Errorf("lisp: local address %v: an xTR needs an address of this host that other xTRs reach: set local to one", a)
	}
	for _, p := range m.EIDs {
		if p.Contains(at.Local) {
			return nil, fmt.Errorf("lisp: eid has %v, which contains the locator %v: packets to the locator would enter the tunnel; use other prefixes for hosts than for the network between the sites", p, at.Local)
		}
	}
	r := newRouter(m, at.Local)
	r.nonces.counters = at.Counters
	addrs := make([][]netip.Addr, 0, len(m.Hosts()))
	for i, h := range m.Hosts() {
		list := []netip.Addr{h.Addr}
		if !h.Addr.IsValid() {
			list = nil
			if i < len(at.Hosts) {
				list = at.Hosts[i]
			}
		}
		addrs = append(addrs, slices.DeleteFunc(slices.Clone(list), func(a netip.Addr) bool { return a.Is4() != at.Local.Is4() }))
	}
	n, s := len(m.Resolvers), len(m.Resolvers)+len(m.Servers)
	r.resolvers = flat(addrs[:n])
	for _, a := range flat(addrs[n:s]) {
		r.servers = append(r.servers, &registration{at: a})
	}
	for _, a := range flat(addrs[s:]) {
		if a != at.Local {
			r.proxies = append(r.proxies, r.endpoint(a))
		}
	}
	return r, nil
}

func flat(lists [][]netip.Addr) (all []netip.Addr) {
	for _, l := range lists {
		for _, a := range l {
			if !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	return all
}
