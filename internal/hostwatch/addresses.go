package hostwatch

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"

	"sixfour/encap/source"
	"sixfour/internal/netcfg"
)

// Addresses are the addresses of this host in some network namespaces. Log and IsAutomatic
// must be set before Read is called. One goroutine owns them.
type Addresses struct {
	Log *zap.Logger
	// IsAutomatic reports whether a link is the interface of an automatic tunnel. Its subnet
	// is the whole domain of the mechanism, whose hosts can also be reached, and can answer,
	// in other ways.
	IsAutomatic func(namespace string, link int) bool

	hosts map[string]namespaceAddresses // by namespace
	links []netip.Prefix                // IPv4 addresses in our own namespace
}

// namespaceAddresses are the addresses in one network namespace.
type namespaceAddresses struct {
	list  []netcfg.Address
	hosts []source.HostAddress // the same, for nets
	nets  *source.HostNets     // nil: not known yet
	fault string               // the last error in reading the addresses
}

// Read reads the addresses in our own namespace and in the others of a list, and forgets
// those in all others. If reading fails, it keeps what was known.
func (a *Addresses) Read(router *netcfg.Router, namespaces []string) {
	looked := make(map[string]bool)
	for _, ns := range append([]string{""}, namespaces...) {
		if looked[ns] {
			continue
		}
		looked[ns] = true
		var list []netcfg.Address
		var err error
		if ns == "" {
			list, err = router.Addresses()
		} else {
			list, err = netcfg.Addresses(ns)
		}
		a.set(ns, list, err)
	}
	for ns := range a.hosts {
		if !looked[ns] {
			delete(a.hosts, ns)
		}
	}
}

// set sets the addresses in a namespace, or an error in reading them.
func (a *Addresses) set(namespace string, list []netcfg.Address, err error) {
	h := a.hosts[namespace]
	if a.hosts == nil {
		a.hosts = make(map[string]namespaceAddresses)
	}
	if err != nil { // keep what was known
		if h.fault != err.Error() {
			a.Log.Warn("cannot follow changes of this host's addresses", zap.String("netns", namespace), zap.Error(err))
		}
		h.fault = err.Error()
		a.hosts[namespace] = h
		return
	}
	if h.nets != nil && h.fault == "" && slices.Equal(h.list, list) {
		return
	}
	addresses := make([]source.HostAddress, len(list))
	for i, one := range list {
		addresses[i] = source.HostAddress{Addr: one.Addr(), Subnet: one.Subnet, Link: one.Link}
		if a.IsAutomatic(namespace, one.Link) {
			addresses[i].Subnet = netip.Prefix{}
		}
	}
	a.hosts[namespace] = namespaceAddresses{list: list, hosts: addresses, nets: source.NewHostNets(addresses)}
	if namespace == "" {
		a.setLinks(list)
	}
}

// setLinks sets the IPv4 addresses of our own namespace.
func (a *Addresses) setLinks(list []netcfg.Address) {
	a.links = nil
	for _, one := range list {
		if one.Addr().Is4() {
			a.links = append(a.links, one.Prefix)
		}
	}
	slices.SortFunc(a.links, netip.Prefix.Compare)
}

// List returns the addresses in a namespace. The caller must not change them.
func (a *Addresses) List(namespace string) []source.HostAddress { return a.hosts[namespace].hosts }

// Links returns the IPv4 addresses in our own namespace, sorted, which mechanisms use.
func (a *Addresses) Links() []netip.Prefix { return a.links }

// Own returns all addresses in our own namespace.
func (a *Addresses) Own() (own []netip.Addr) {
	for _, one := range a.hosts[""].list {
		own = append(own, one.Addr())
	}
	return own
}

// Elsewhere returns the IPv6 subnets of the host's links in a namespace. It leaves out
// link-local subnets and those of automatic tunnels, which depend on what their routers
// advertise.
func (a *Addresses) Elsewhere(namespace string) (subnets []netip.Prefix) {
	for _, one := range a.hosts[namespace].list {
		if s := one.Subnet; s.IsValid() && s.Addr().Is6() && !s.Addr().IsLinkLocalUnicast() && s.Bits() > 0 && !a.IsAutomatic(namespace, one.Link) && !slices.Contains(subnets, s) {
			subnets = append(subnets, s)
		}
	}
	slices.SortFunc(subnets, netip.Prefix.Compare)
	return subnets
}

// Surroundings are the other links around a tunnel's interface: inner packets must not have
// addresses of this host and of its other links as their sources. The control loop owns them;
// other goroutines may read Now.
type Surroundings struct {
	Now atomic.Pointer[source.Interface]

	// Inputs from which Now was made.
	nets *source.HostNets
	link int
	old  bool
}

// Renew makes the next Update use other prefixes behind the interface.
func (s *Surroundings) Renew() { s.old = true }

// Update updates the surroundings to the addresses in the namespace of a tunnel's interface,
// which has the given index. The function returns the prefixes at and behind the interface.
func (s *Surroundings) Update(a *Addresses, namespace string, link int, behind func() [][]netip.Prefix) {
	nets := a.hosts[namespace].nets
	if nets == nil || s.Now.Load() != nil && s.nets == nets && s.link == link && !s.old {
		return
	}
	s.nets, s.link, s.old = nets, link, false
	s.Now.Store(source.NewInterface(nets, link, behind()...))
}
