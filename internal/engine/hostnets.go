package engine

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/source"
	"sixfour/internal/netcfg"
)

// hostNets holds the addresses in a network namespace.
type hostNets struct {
	list  []netcfg.Address
	nets  *source.HostNets // nil: not known yet
	fault string           // the last error in reading the addresses
}

// surroundings describes the other links around a tunnel's interface: inner packets must not have
// addresses of this host and of its other links as their sources.
type surroundings struct {
	now atomic.Pointer[source.Interface]

	// Inputs from which now was made; used by the control loop only.
	nets *source.HostNets
	link int
	old  bool // the configuration has changed since
}

// readHost updates what tunnels need to know about the host: its addresses in our own
// namespace and in each namespace with a tunnel's interface.
func (e *Engine) readHost() {
	looked := make(map[string]bool)
	e.readNamespace("", looked)
	for _, t := range e.tunnels {
		e.readNamespace(t.cfg.Netns, looked)
		if nets := e.hosts[t.cfg.Netns].nets; nets != nil {
			t.surroundings.update(t, nets)
		}
		if t.mech != nil {
			t.mech.SetLinks(e.links)
		}
	}
	for namespace := range e.hosts {
		if !looked[namespace] {
			delete(e.hosts, namespace)
		}
	}
}

func (e *Engine) readNamespace(namespace string, looked map[string]bool) {
	if looked[namespace] {
		return
	}
	looked[namespace] = true
	list, err := e.addresses(namespace)
	h := e.hosts[namespace]
	if err != nil { // keep what was known
		if h.fault != err.Error() {
			e.log.Warn("cannot follow changes of this host's addresses", zap.String("netns", namespace), zap.Error(err))
		}
		h.fault = err.Error()
		e.hosts[namespace] = h
		return
	}
	if h.nets != nil && h.fault == "" && slices.Equal(h.list, list) {
		return
	}
	addresses := make([]source.HostAddress, len(list))
	for i, a := range list {
		addresses[i] = source.HostAddress{Addr: a.Addr(), Subnet: a.Subnet, Link: a.Link}
		if e.isAutomatic(namespace, a.Link) {
			addresses[i].Subnet = netip.Prefix{}
		}
	}
	e.hosts[namespace] = hostNets{list: list, nets: source.NewHostNets(addresses)}
	if namespace == "" {
		e.setLinks(list)
	}
}

// isAutomatic reports whether a link is the interface of an automatic tunnel. Its subnet is
// the whole domain of the mechanism, whose hosts can also be reached, and can answer, in
// other ways.
func (e *Engine) isAutomatic(namespace string, link int) bool {
	return slices.ContainsFunc(e.tunnels, func(t *tunnel) bool {
		return t.automatic() && t.cfg.Netns == namespace && int(t.index.Load()) == link
	})
}

func (e *Engine) addresses(namespace string) ([]netcfg.Address, error) {
	if namespace == "" {
		return e.router.Addresses()
	}
	return netcfg.Addresses(namespace)
}

// setLinks sets the IPv4 addresses of our own namespace, which mechanisms use.
func (e *Engine) setLinks(list []netcfg.Address) {
	e.links = nil
	for _, a := range list {
		if a.Addr().Is4() {
			e.links = append(e.links, a.Prefix)
		}
	}
	slices.SortFunc(e.links, netip.Prefix.Compare)
}

// elsewhere returns the IPv6 subnets of the host's links in the namespace of a tunnel's
// interface. It leaves out link-local subnets and those of automatic tunnels, which depend
// on what their routers advertise.
func (e *Engine) elsewhere(t *tunnel) (subnets []netip.Prefix) {
	for _, a := range e.hosts[t.cfg.Netns].list {
		if s := a.Subnet; s.IsValid() && s.Addr().Is6() && !s.Addr().IsLinkLocalUnicast() && s.Bits() > 0 && !e.isAutomatic(t.cfg.Netns, a.Link) && !slices.Contains(subnets, s) {
			subnets = append(subnets, s)
		}
	}
	slices.SortFunc(subnets, netip.Prefix.Compare)
	return subnets
}

// update updates b to the tunnel's interface and the other links. In a hub, the table of
// peers decides which of them may send a packet.
func (b *surroundings) update(t *tunnel, nets *source.HostNets) {
	link := int(t.index.Load())
	if b.now.Load() != nil && b.nets == nets && b.link == link && !b.old {
		return
	}
	b.nets, b.link, b.old = nets, link, false
	behind := [][]netip.Prefix{t.addresses(), t.cfg.Routes}
	for i := range t.cfg.Peers {
		behind = append(behind, t.cfg.Peers[i].Allowed)
	}
	b.now.Store(source.NewInterface(nets, link, behind...))
}

// farEnds returns the remote addresses of a stack. They may be in a subnet of this host,
// which is then the link to the peer, and they belong to the peer inside the tunnel, too.
func farEnds(layers []encap.Layer) (ends []netip.Prefix) {
	for _, l := range layers {
		if l.Remote.IsValid() {
			ends = append(ends, netip.PrefixFrom(l.Remote, l.Remote.BitLen()))
		}
	}
	return ends
}
