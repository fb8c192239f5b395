package engine

import (
	"context"
	"math"
	"net/netip"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"

	"sixfour/encap"
	"sixfour/encap/resolve"
	"sixfour/encap/source"
	"sixfour/internal/agents"
	"sixfour/internal/capture"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/discovery"
	"sixfour/internal/hostwatch"
	"sixfour/internal/icmpreply"
	"sixfour/internal/iface"
	"sixfour/internal/keepalive"
	"sixfour/internal/ports"
	"sixfour/internal/report"
	"sixfour/internal/selfroute"
	"sixfour/internal/site"
	"sixfour/internal/tunif"
	"sixfour/tun"
)

// tunnel is one TUN interface with its peers. The control loop owns it; the fields that
// the data goroutines read are atomic pointers, or never change.
type tunnel struct {
	*datapath.Tunnel
	// The name, the namespace and Hub never change: they decide how the interface is
	// made. Only the control loop, or code that holds the engine's mu, may use the rest.
	cfg   config.Tunnel
	peers []*peer // same rule as for cfg
	only  *peer   // the only one; nil: the tunnel is a hub
	wiring
	*tunif.Interface
	held         selfroute.Held // the control loop owns it
	surroundings hostwatch.Surroundings
	mech         *site.Mechanism // of an automatic tunnel
	agentState
	finder *discovery.Finder
	keeper *keepalive.Keeper // nil: no liveness checks
	report *report.Tunnel
	toLoop chan<- tooLong // to the control loop; never blocks
}

// wiring is what a tunnel's wires are made of, apart from their paths. The control loop owns
// it.
type wiring struct {
	version int // of the settings in the tunnel's configuration
	senders *ports.Senders
	noXDP   string        // last reported reason why packets do not leave through AF_XDP
	encaps  []config.Path // one path of each encapsulation; nil: not known yet
}

// agentState is how the mechanism of an automatic tunnel speaks and follows names.
type agentState struct {
	agent atomic.Pointer[agents.Runner] // nil: the mechanism sends nothing of its own

	// Used by the control loop only.
	agentResolver resolve.Resolver   // for which the agent runs, if it is one
	stopAgent     context.CancelFunc // stops the agent; nil: none runs
	unfollowHosts context.CancelFunc // stops following the mechanism's names; nil: it has none
}

func newTunnel(id int, cfg config.Tunnel, queues int, f *discovery.Finder, s *ports.Set, c *capture.Set, log *zap.Logger) (*tunnel, error) {
	t := &tunnel{
		Tunnel: &datapath.Tunnel{ID: id, Name: cfg.Name, Queues: queues, Log: log.With(zap.String("tunnel", cfg.Name)), Captures: c},
		cfg:    cfg, finder: f, wiring: wiring{senders: s.NewSenders(queues)},
	}
	t.Owner = t
	t.report = report.NewTunnel(cfg.Name, cfg.Hub, t.Log)
	t.Interface = tunif.New(t.Tunnel, t.report, t.noteAll)
	t.Reply = icmpreply.New(t.cfg.Netns, &t.Index, t.Log)
	for i := range cfg.Peers {
		t.peers = append(t.peers, newPeer(t, &cfg.Peers[i]))
	}
	if !cfg.Hub {
		t.only = t.peers[0]
		t.Peers.Only = t.only.Peer
	} else {
		table, err := newBehind(t.peers, cfg.Peers)
		if err != nil {
			return nil, err
		}
		t.Peers.Table.Store(table)
	}
	for i, l := range cfg.Layers {
		if l.Mechanism != nil {
			t.mech = site.New(i, l.Mechanism)
		}
	}
	return t, nil
}

// newBehind makes the table of a hub's peers from the configured prefixes of each.
func newBehind(peers []*peer, cfgs []config.Peer) (*source.Peers[*datapath.Peer], error) {
	list := make([]source.Peer[*datapath.Peer], len(peers))
	for i, p := range peers {
		list[i] = source.Peer[*datapath.Peer]{Peer: p.Peer, Allowed: cfgs[i].Allowed}
	}
	return source.NewPeers(list)
}

// offload returns the most offloads that the device may enable.
func (t *tunnel) offload() tun.Offload {
	if t.cfg.NoOffload {
		return tun.OffloadNone
	}
	return tun.OffloadUDP
}

// newSources returns the source checks for packets from the tunnel, with our present
// outer addresses.
func (t *tunnel) newSources(p *config.Peer, layers []encap.Layer) *source.Checks {
	own := make([]netip.Addr, 0, len(t.cfg.Address))
	for _, p := range t.addresses() {
		own = append(own, p.Addr())
	}
	ends := make([]netip.Addr, 0, len(layers))
	for _, l := range layers {
		ends = append(ends, l.Local)
	}
	var udp []uint16
	for i := range p.Paths { // a packet may come by one path and be meant for another
		path := &p.Paths[i]
		if path.Local.IsValid() && !slices.Contains(ends, path.Local) {
			ends = append(ends, path.Local)
		}
		if port := t.cfg.Outermost(path).Properties().Ports.Local; port != 0 {
			udp = append(udp, port)
		}
	}
	s := source.New(own, ends, t.cfg.Strict).Ports(udp).At(&t.surroundings.Now, farEnds(layers))
	for _, l := range layers {
		s = s.For(l.Resolver)
	}
	return s
}

// wantMTU returns the MTU that the interface should have over a path.
func (t *tunnel) wantMTU(p encap.PathMTU) encap.TunnelMTU {
	if t.cfg.MTU != 0 {
		return t.cfg.MTU
	}
	if t.encaps == nil {
		t.encaps = t.cfg.Encapsulations()
	}
	mtu := encap.TunnelMTU(math.MaxInt)
	for i := range t.encaps { // a packet that fits must pass whichever path is in use
		layers := t.cfg.Stack(&t.cfg.Peers[0], &t.encaps[i], netip.Addr{}, netip.Addr{})
		mtu = min(mtu, encap.MTU(layers, p, t.cfg.Options, t.cfg.HasIPv6()))
	}
	return mtu
}

// widest returns the largest first-hop MTU of the tunnel's paths, or assumedMTU if there
// is none. Packets too large for the other paths are answered with ICMP.
func (t *tunnel) widest() encap.PathMTU {
	var widest encap.PathMTU
	for p := range t.paths() {
		if wire := p.Wire.Load(); wire != nil {
			widest = max(widest, wire.Hop.MTU)
		}
	}
	if widest == 0 {
		return assumedMTU
	}
	return widest
}

func (t *tunnel) newClamp(p *datapath.Wire) datapath.Clamp {
	if t.cfg.NoMSSClamp {
		return datapath.Clamp{}
	}
	iface := t.wantMTU(p.Hop.MTU)
	c := datapath.Clamp{IPv4: min(iface, p.Stack.Limit(4)), IPv6: min(iface, p.Stack.Limit(6))}
	// Where the path MTU is smaller than the MTU of the peer's own link may be, only
	// the MSS tells the peer what fits.
	if p.Stack.NeedsPathMTU() && p.MTU < max(p.Hop.MTU, assumedMTU) {
		c.IPv4, c.IPv6 = min(c.IPv4, p.Stack.LimitBack(4, p.MTU)), min(c.IPv6, p.Stack.LimitBack(6, p.MTU))
	}
	return c
}

// assumedMTU is the MTU of Ethernet, used while there is no path.
const assumedMTU encap.PathMTU = 1500

// settings returns the settings of the interface.
func (t *tunnel) settings() iface.Settings {
	return iface.Settings{
		Name:      t.cfg.Name,
		Namespace: t.cfg.Netns,
		MTU:       int(t.wantMTU(t.widest())),
		Addresses: t.addresses(),
		Routes:    t.routes(),
		Queues:    t.Queues,
		Offload:   t.offload(),

		NoLinkLocal: t.automatic() || t.cfg.Hub,
	}
}

// noteAll records an error of all paths.
func (t *tunnel) noteAll(text string) {
	for p := range t.paths() {
		p.report.Note(text)
	}
}

// setMTU sets the interface's MTU, if there is an interface, to fit its paths.
func (t *tunnel) setMTU() { t.SetMTU(int(t.wantMTU(t.widest()))) }
