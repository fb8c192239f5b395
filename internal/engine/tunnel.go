package engine

import (
	"net/netip"

	"go.uber.org/zap"

	"sixfour/encap/source"
	"sixfour/internal/agents"
	"sixfour/internal/capture"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/discovery"
	"sixfour/internal/hostwatch"
	"sixfour/internal/icmpreply"
	"sixfour/internal/iface"
	"sixfour/internal/kernelpath"
	"sixfour/internal/names"
	"sixfour/internal/observing"
	"sixfour/internal/ports"
	"sixfour/internal/report"
	"sixfour/internal/selfroute"
	"sixfour/internal/site"
	"sixfour/internal/tunif"
	"sixfour/internal/wiring"
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
	wires *wiring.Maker
	*tunif.Interface
	held selfroute.Held // the control loop owns it
	followed
	surroundings hostwatch.Surroundings
	mech         *site.Mechanism // of an automatic tunnel
	workers      observing.Workers
	report       *report.Tunnel
	toLoop       chan<- tooLong // to the control loop; never blocks
	kernel       *kernelpath.Tunnel
}

// followed is what works for the mechanism of an automatic tunnel. The control loop owns it.
type followed struct {
	agent agents.Slot // runs what the mechanism sends itself
	hosts names.Group // the names of the mechanism's hosts
}

func newTunnel(id int, cfg config.Tunnel, queues int, f *discovery.Finder, s *ports.Set, c *capture.Set, log *zap.Logger) (*tunnel, error) {
	t := &tunnel{
		Tunnel: &datapath.Tunnel{ID: id, Name: cfg.Name, Queues: queues, Log: log.With(zap.String("tunnel", cfg.Name)), Captures: c},
		cfg:    cfg, workers: observing.Workers{Finder: f},
	}
	t.Owner, t.Reserve = t, cfg.Reserve
	t.wires = wiring.New(&t.cfg, s.NewSenders(queues), queues)
	t.report = report.NewTunnel(cfg.Name, cfg.Hub, t.Log)
	t.Interface = tunif.New(t.Tunnel, t.report, t.noteAll)
	t.Reply = icmpreply.New(t.cfg.Netns, &t.Index, t.Log)
	for i := range cfg.Peers {
		t.peers = append(t.peers, newPeer(t, &cfg.Peers[i]))
	}
	if !cfg.Hub {
		t.only = t.peers[0]
		t.Peers.Only = &t.only.Peer
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
	return source.NewPeersOf(len(peers), func(i int) (*datapath.Peer, []netip.Prefix) { return &peers[i].Peer, cfgs[i].Allowed })
}

// offload returns the most offloads that the device may enable.
func (t *tunnel) offload() tun.Offload {
	if t.cfg.NoOffload {
		return tun.OffloadNone
	}
	return tun.OffloadUDP
}

// settings returns the settings of the interface.
func (t *tunnel) settings() iface.Settings {
	return iface.Settings{
		Name:      t.cfg.Name,
		Namespace: t.cfg.Netns,
		MTU:       int(t.wires.MTUOver(t.dataPaths())),
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
func (t *tunnel) setMTU() { t.SetMTU(int(t.wires.MTUOver(t.dataPaths()))) }
