package engine

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
	"sixfour/internal/site"
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
	ifaceState
	routing
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

// ifaceState is the state of a tunnel's interface.
type ifaceState struct {
	index    atomic.Int64               // in its namespace
	gone     atomic.Pointer[iface.Link] // the last link that was found to be gone
	touched  atomic.Bool                // it was changed from outside
	overflow overflow

	// Used by the control loop only.
	link      *iface.Link
	numbered  []netip.Prefix // addresses last given to the interface because of its outer address
	down      bool           // administratively down
	restoring restoring
	opening   opening
	warned    struct{ state, mtu string } // the last warnings about the interface
	wg        sync.WaitGroup              // for the goroutines that use the device
}

// routing is which of a tunnel's routes the interface has. The control loop owns it.
type routing struct {
	sorted *sortedRoutes  // of cfg
	held   []netip.Prefix // configured routes that would lead outer packets into the tunnel
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
	t.Reply = icmpreply.New(t.cfg.Netns, &t.index, t.Log)
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

// maxQueues is the most queues that a tunnel has if the configuration does not set their
// number.
const maxQueues = 4

// queues returns the number of queues of each of n tunnels. It is one for every two
// processors: each queue needs two goroutines, and on two processors a second queue
// reduced the throughput by a tenth when measured. With many tunnels one queue each keeps
// all processors busy, and a second queue costs the kernel megabytes.
func queues(configured, n int) int {
	if configured != 0 {
		return configured
	}
	return max(1, min(runtime.NumCPU()/2/n, maxQueues))
}

// queuesOf returns the number of queues of one of n tunnels.
func queuesOf(cfg *config.Tunnel, n int) int {
	if inOrder(cfg) {
		return 1
	}
	return queues(cfg.Queues, n)
}

// inOrder reports whether the tunnel must keep the order of packets.
func inOrder(cfg *config.Tunnel) bool {
	return cfg.InOrder()
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
func (t *tunnel) newSources(layers []encap.Layer) *source.Checks {
	own := make([]netip.Addr, 0, len(t.cfg.Address))
	for _, p := range t.addresses() {
		own = append(own, p.Addr())
	}
	ends := make([]netip.Addr, 0, len(layers))
	for _, l := range layers {
		ends = append(ends, l.Local)
	}
	s := source.New(own, ends, t.cfg.Strict).At(&t.surroundings.Now, farEnds(layers))
	for _, l := range layers {
		s = s.For(l.Resolver)
	}
	return s
}

// has6 reports whether the interface carries IPv6, and so needs an MTU of at least 1280
// bytes. An interface that carries only IPv6 need not have an address yet: it may learn
// one.
func (t *tunnel) has6() bool {
	if !t.cfg.Mode.Carries(4) {
		return true
	}
	for _, p := range t.cfg.Address {
		if p.Addr().Is6() {
			return true
		}
	}
	for _, p := range t.cfg.Routes {
		if p.Addr().Is6() {
			return true
		}
	}
	return false
}

// wantMTU returns the MTU that the interface should have over a path.
func (t *tunnel) wantMTU(p encap.PathMTU) encap.TunnelMTU {
	if t.cfg.MTU != 0 {
		return t.cfg.MTU
	}
	if t.encaps == nil {
		t.encaps = encapsulations(&t.cfg)
	}
	mtu := encap.TunnelMTU(math.MaxInt)
	for i := range t.encaps { // a packet that fits must pass whichever path is in use
		layers := t.cfg.Stack(&t.cfg.Peers[0], &t.encaps[i], netip.Addr{}, netip.Addr{})
		mtu = min(mtu, encap.MTU(layers, p, t.cfg.Options, t.has6()))
	}
	return mtu
}

// encapsulations returns one path of each encapsulation in a configuration.
func encapsulations(cfg *config.Tunnel) (one []config.Path) {
	for _, p := range cfg.AllPaths() {
		if !slices.ContainsFunc(one, func(o config.Path) bool { return o.Encap == p.Encap }) {
			one = append(one, *p)
		}
	}
	return one
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

// open makes the interface and starts the goroutines that use it. It calls lost at most
// once, from another goroutine, when the interface is gone.
func (t *tunnel) open(s iface.Settings, lost func()) error {
	t.MTU.Store(int64(s.MTU))
	link, err := iface.Open(s)
	if err != nil {
		return err
	}
	t.link, t.down = link, false
	t.numbered = s.Addresses
	t.index.Store(int64(link.Index()))
	t.overflow.watch(link)
	t.Device.Store(link.Device)
	if got, want := link.Device.Offload(), t.offload(); got < want {
		t.Log.Info("the kernel offers fewer offloads than wanted: packets cost more processor time", zap.Stringer("offload", got), zap.Stringer("wanted", want))
	}
	var once sync.Once
	for i, q := range link.Device.Queues() {
		out := datapath.NewOutbound(t.Tunnel, q, i)
		t.wg.Go(func() {
			out.Run()
			once.Do(func() {
				t.gone.Store(link)
				lost()
			})
		})
	}
	return nil
}

// isGone reports whether a goroutine that uses the interface has found it gone.
func (t *tunnel) isGone() bool { return t.link != nil && t.gone.Load() == t.link }

// look checks the interface after a change from outside, and restores what the kernel
// removed while it was down.
//
// The interface's goroutines also find that it is gone, but not while they wait for room
// in a socket.
func (t *tunnel) look() (gone bool) {
	if t.link == nil || !t.touched.Swap(false) {
		return false
	}
	up, err := t.link.IsUp()
	if errors.Is(err, iface.ErrGone) {
		return true
	}
	now := time.Now()
	if err == nil && up && now.Before(t.restoring.next) {
		t.touched.Store(true) // check again at that time
	} else if err == nil && up {
		var r iface.Restored
		r, err = t.link.Restore()
		t.restored(r, now)
		if err == nil {
			err = t.link.RouteConflict()
		}
		if err == nil {
			t.warned.state = ""
		}
	}
	switch {
	case err != nil:
		t.troubled(&t.warned.state, err)
		t.touched.Store(true)
		if next := now.Add(lookSoon); t.restoring.next.Before(next) {
			t.restoring.next = next
		}
	case !up && !t.down:
		t.Log.Warn("the interface is down: packets are lost until it is up again (ip link set " + t.cfg.Name + " up)")
	case up && t.down:
		t.Log.Info("the interface is up again")
	}
	t.down = err == nil && !up
	return false
}

// lookSoon is the time after which an interface is checked again if restoring it failed.
const lookSoon = 5 * time.Second

// troubled reports a fault of an existing interface, unless the last warning was the
// same.
func (t *tunnel) troubled(last *string, err error) {
	if err.Error() == *last {
		return
	}
	*last = err.Error()
	t.Log.Warn("cannot restore the interface", zap.Error(err))
	for p := range t.paths() {
		p.report.Note("interface " + t.cfg.Name + ": " + err.Error())
	}
}

// close removes the interface and waits for the goroutines that use it. No peer may have
// a path any more.
func (t *tunnel) close() {
	if t.link == nil {
		return
	}
	t.Device.Store(nil)
	t.overflow.end(t)
	if err := t.link.Close(); err != nil {
		t.Log.Warn("cannot close the interface", zap.Error(err))
	}
	t.senders.Close() // a goroutine that uses the device may be blocked in a socket
	t.wg.Wait()
	t.Reply.Close()
	t.link = nil
}

// setMTU sets the interface's MTU, if there is an interface, to fit its paths.
func (t *tunnel) setMTU() {
	mtu := t.wantMTU(t.widest())
	if t.link != nil && int64(mtu) != t.MTU.Load() {
		if err := t.link.SetMTU(int(mtu)); err != nil {
			t.troubled(&t.warned.mtu, err)
			return
		}
	}
	t.MTU.Store(int64(mtu))
}
