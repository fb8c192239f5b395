// Package wiring makes the wires of a tunnel's paths from the configuration: the stack of
// outer headers, the checks of inner sources, the sockets to send with, and the MTUs that
// follow. It also says at which ports the packets of a wire arrive.
package wiring

import (
	"iter"
	"math"
	"net/netip"
	"slices"
	"sync/atomic"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/source"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/liveness"
	"sixfour/internal/pathmtu"
	"sixfour/internal/ports"
	"sixfour/internal/probe"
	"sixfour/transport"
	"sixfour/transport/xdp"
)

// Maker makes the wires of a tunnel. Its methods are for the control loop.
type Maker struct {
	Senders *ports.Senders

	cfg     *config.Tunnel // the configuration that is in effect now
	queues  int
	version int           // of the settings in the configuration
	encaps  []config.Path // one path of each encapsulation; nil: not known yet
}

// New returns what makes the wires of a tunnel with a number of queues. The configuration
// may change; Changed must then be called.
func New(cfg *config.Tunnel, s *ports.Senders, queues int) *Maker {
	return &Maker{cfg: cfg, Senders: s, queues: queues}
}

// Changed takes note of another configuration. If onlyPeers is true, nothing but peers is
// different, and the wires of the others can stay.
func (m *Maker) Changed(onlyPeers bool) {
	m.encaps = nil
	if !onlyPeers {
		m.version++
	}
}

// AssumedMTU is the MTU of Ethernet, used while there is no path.
const AssumedMTU encap.PathMTU = 1500

// MTU returns the MTU that the interface should have over a path.
func (m *Maker) MTU(p encap.PathMTU) encap.TunnelMTU {
	if m.cfg.MTU != 0 {
		return m.cfg.MTU
	}
	if m.encaps == nil {
		m.encaps = m.cfg.Encapsulations()
	}
	mtu := encap.TunnelMTU(math.MaxInt)
	for i := range m.encaps { // a packet that fits must pass whichever path is in use
		layers := m.cfg.Stack(&m.cfg.Peers[0], &m.encaps[i], netip.Addr{}, netip.Addr{})
		mtu = min(mtu, encap.MTU(layers, p, m.cfg.Options, m.cfg.HasIPv6()))
	}
	return mtu
}

// MTUOver returns the MTU that the interface should have over some paths. It fits the
// largest first-hop MTU, or AssumedMTU if no path has a wire: packets too large for the
// other paths are answered with ICMP.
func (m *Maker) MTUOver(paths iter.Seq[*datapath.Path]) encap.TunnelMTU {
	var widest encap.PathMTU
	for p := range paths {
		if w := p.Wire.Load(); w != nil {
			widest = max(widest, w.Hop.MTU)
		}
	}
	if widest == 0 {
		widest = AssumedMTU
	}
	return m.MTU(widest)
}

// Sources returns the checks of the sources of packets from the interface, which has the
// addresses own, for packets to a peer with a stack of outer headers. Around describes the
// other links of this host.
func (m *Maker) Sources(peer *config.Peer, layers []encap.Layer, own []netip.Prefix, around *atomic.Pointer[source.Interface]) *source.Checks {
	addrs := make([]netip.Addr, 0, len(own))
	for _, p := range own {
		addrs = append(addrs, p.Addr())
	}
	ends := make([]netip.Addr, 0, len(layers))
	for _, l := range layers {
		ends = append(ends, l.Local)
	}
	var udp []uint16
	for i := range peer.Paths { // a packet may come by one path and be meant for another
		path := &peer.Paths[i]
		if path.Local.IsValid() && !slices.Contains(ends, path.Local) {
			ends = append(ends, path.Local)
		}
		if port := m.cfg.Outermost(path).Properties().Ports.Local; port != 0 {
			udp = append(udp, port)
		}
	}
	s := source.New(addrs, ends, m.cfg.Strict).Ports(udp).At(around, farEnds(layers))
	for _, l := range layers {
		s = s.For(l.Resolver)
	}
	return s
}

// Pairs returns the pairs of inner addresses between which probes to a peer go.
func (m *Maker) Pairs(peer *config.Peer) (all []probe.Pair) {
	for _, p := range m.cfg.Probed(peer) {
		all = append(all, probe.Pair{Local: p.Local, Remote: p.Remote, Near: p.Near})
	}
	return all
}

// Make completes a wire that has its path, layers, hop, path MTU and pairs of probes, and the
// version of what sources depends on beside the tunnel's configuration, with
// the checks that sources returns. If the path has such a wire already, Make returns that
// one. Otherwise it returns nil and what it waits for.
func (m *Maker) Make(next *datapath.Wire, sources func() *source.Checks) (w *datapath.Wire, waiting string) {
	next.Options = m.cfg.Options
	next.Version += m.version
	next.Life = liveness.Settings{Every: m.cfg.Keepalive, After: m.cfg.DeadAfter}
	old := next.Path.Wire.Load()
	if old.Same(next) {
		return old, ""
	}
	if old != nil && slices.Equal(old.Layers, next.Layers) {
		next.Layers = old.Layers // share the memory
	}
	var err error
	if next.Stack, err = encap.New(next.Layers, next.MTU, next.Options, sources(), next.Path.Record); err != nil {
		return nil, "valid outer headers: " + err.Error()
	}
	next.Whole = m.whole(next)
	next.Clamp = m.clamp(next)
	out, err := m.Senders.Open(Origin(next, m.cfg.FwMark), need(next.Outer().Kind, m.queues))
	if err != nil {
		return nil, "a socket to send with: " + err.Error()
	}
	if from, ok := originBeside(next, m.cfg.FwMark); ok {
		raw, err := m.Senders.Open(from, need(encap.SixInFour, m.queues))
		if err != nil {
			return nil, "a socket to send with: " + err.Error()
		}
		both := make([]transport.Sender, len(out))
		for i := range out {
			both[i] = transport.Beside(out[i], raw[i])
		}
		out = both
	}
	outer := next.Outer().Kind.Properties()
	next.Senders, next.Unsummed = out, outer.Protocol == header.UDP && !outer.Session
	if hop := &next.Hop; hop.Port != nil {
		next.Senders, next.Unsummed = nil, false
		for _, raw := range out {
			next.Senders = append(next.Senders, xdp.NewSender(hop.Port, hop.From, hop.To, raw))
		}
	}
	return next, ""
}

// whole returns the size of the largest inner packets that are not cut in two pieces. A path
// whose MTU no probe has shown may lose larger ones than every path carries.
func (m *Maker) whole(w *datapath.Wire) int {
	if m.cfg.Reserve == 0 || w.By != pathmtu.Route {
		return math.MaxInt
	}
	return int(encap.MinTunnelMTU6) - encap.Overhead(w.Layers, w.Options)
}

// clamp returns how the MSS of TCP connections is limited in packets of a wire.
func (m *Maker) clamp(w *datapath.Wire) datapath.Clamp {
	if m.cfg.NoMSSClamp {
		return datapath.Clamp{}
	}
	iface := m.MTU(w.Hop.MTU)
	iface = min(iface, encap.TunnelMTU(w.Whole))
	c := datapath.Clamp{IPv4: min(iface, w.Stack.Limit(4)), IPv6: min(iface, w.Stack.Limit(6))}
	// Where the path MTU is smaller than the MTU of the peer's own link may be, only
	// the MSS tells the peer what fits.
	if w.Stack.NeedsPathMTU() && w.MTU < max(w.Hop.MTU, AssumedMTU) {
		c.IPv4, c.IPv6 = min(c.IPv4, w.Stack.LimitBack(4, w.MTU)), min(c.IPv6, w.Stack.LimitBack(6, w.MTU))
	}
	return c
}

// CloseUnused closes senders that none of the tunnel's paths uses.
func (m *Maker) CloseUnused(paths iter.Seq[*datapath.Path]) {
	if m.Senders.Len() < 2 {
		return
	}
	used := make(map[ports.Origin]bool)
	for p := range paths {
		if w := p.Wire.Load(); w != nil {
			used[Origin(w, m.cfg.FwMark)] = true
			if from, ok := originBeside(w, m.cfg.FwMark); ok {
				used[from] = true
			}
		}
	}
	m.Senders.CloseUnused(func(from ports.Origin) bool { return used[from] })
}
