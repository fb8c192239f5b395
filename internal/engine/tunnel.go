package engine

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/resolve"
	"sixfour/internal/config"
	"sixfour/internal/netcfg"
	"sixfour/transport"
	"sixfour/tun"
)

// tunnel is one TUN interface with its peers. The control loop owns it; what its
// data goroutines read is behind atomic pointers, or never changes.
type tunnel struct {
	id int // no other tunnel of the engine has it
	// What says how the interface is made never changes: its name, namespace, and
	// whether there are many peers. The rest is for the control loop, and for those
	// who hold the engine's mu.
	cfg   config.Tunnel
	log   *zap.Logger
	peers []*peer                              // as well
	only  *peer                                // that everything goes to; nil: the table says
	table atomic.Pointer[resolve.Peers[*peer]] // by inner destination
	in    counters                             // what no peer is to blame for
	out   counters

	device  atomic.Pointer[tun.Device]  // nil: the interface is gone
	index   atomic.Int64                // of the interface, in its namespace
	gone    atomic.Pointer[netcfg.Link] // the last that was found to be lost
	touched atomic.Bool                 // somebody changed the interface
	retired atomic.Bool                 // it is no longer one of the engine's
	mtu     atomic.Int64                // that the interface has

	queues         int
	beside         beside
	fragments      reassembly
	speaker        atomic.Pointer[speaker] // nil: the mechanism has nothing to say
	reply          *replier
	prober         *prober
	keeper         *keeper // nil: nobody looks after the peers' lives
	events         *events // nil: nobody is told
	repairs        repairCounts
	troubles       *rate.Limiter // of events about them
	falls, returns *rate.Limiter // of lines about peers that fall silent, and come back
	capturing      *capturing    // nil: nobody does
	overflow       overflow
	tooLong        chan<- tooLong // tells the control loop, if it is not busy

	// Of the control loop only.
	waiting  int                // peers that began to wait since the last look at all
	version  int                // of what the configuration says of paths
	unfollow context.CancelFunc // the names of its mechanism; nil: there are none
	link     *netcfg.Link
	down     bool // the interface is
	mending  mending
	opening  opening
	warned   struct{ state, mtu string } // the last warnings about the interface
	lastWay  lastWay                     // of the peer that was the first to have it
	mech     *mechanism                  // of an automatic tunnel
	speaks   resolve.Resolver            // that the speaker, if there is one, is
	sockets  map[origin]sockets          // through which packets leave
	sorted   *sortedRoutes               // of cfg
	held     []netip.Prefix              // routes of the configuration that would lead outer packets into the tunnel
	noXDP    string                      // what was said last of why packets do not leave through AF_XDP
	wg       sync.WaitGroup              // of the goroutines that use the device
}

// origin is what all packets through a socket have in common.
type origin struct {
	local    netip.Addr
	mark     uint32
	protocol byte
	device   int // by which link-local packets leave; 0: that of the route
}

// sockets send, one for each queue.
type sockets []transport.Sender

func newTunnel(id int, cfg config.Tunnel, queues int, p *prober, log *zap.Logger) (*tunnel, error) {
	t := &tunnel{
		id: id, cfg: cfg, log: log.With(zap.String("tunnel", cfg.Name)), queues: queues,
		prober: p, sockets: make(map[origin]sockets),
		troubles: rate.NewLimiter(troublesPerSecond, troublesAtOnce),
		falls:    newLifeLimit(),
		returns:  newLifeLimit(),
	}
	t.reply = newReplier(t)
	for i := range cfg.Peers {
		t.peers = append(t.peers, newPeer(t, &cfg.Peers[i]))
	}
	if !cfg.Hub {
		t.only = t.peers[0]
	} else {
		table, err := newBehind(t.peers, cfg.Peers)
		if err != nil {
			return nil, err
		}
		t.table.Store(table)
	}
	for i, l := range cfg.Layers {
		if l.Mechanism != nil {
			t.mech = newMechanism(i, l.Mechanism)
		}
	}
	return t, nil
}

// newBehind is the table of a hub's peers, by what is configured for each.
func newBehind(peers []*peer, cfgs []config.Peer) (*resolve.Peers[*peer], error) {
	list := make([]resolve.Peer[*peer], len(peers))
	for i, p := range peers {
		list[i] = resolve.Peer[*peer]{Peer: p, Allowed: cfgs[i].Allowed}
	}
	return resolve.NewPeers(list)
}

// to is the peer for an inner packet; nil: there is none.
func (t *tunnel) to(inner []byte) *peer {
	if t.only != nil {
		return t.only
	}
	p, _ := t.table.Load().To(inner)
	return p
}

// toward is the peer to which packets for an address go; nil: there is none.
func (t *tunnel) toward(a netip.Addr) *peer {
	if t.only != nil {
		return t.only
	}
	p, _ := t.table.Load().Toward(a)
	return p
}

// maxQueues is how many queues a tunnel has at most if the configuration does not
// say.
const maxQueues = 4

// queues is how many queues a tunnel has of n tunnels: one for every two
// processors, because each is two goroutines, and on two processors a second one
// was measured to cost a tenth of the throughput. Many tunnels keep all busy with
// one each, and a second one costs the kernel megabytes.
func queues(configured, n int) int {
	if configured != 0 {
		return configured
	}
	return max(1, min(runtime.NumCPU()/2/n, maxQueues))
}

// queuesOf is how many queues a tunnel has, one of n.
func queuesOf(cfg *config.Tunnel, n int) int {
	if inOrder(cfg) {
		return 1
	}
	return queues(cfg.Queues, n)
}

// inOrder reports whether the order of the packets counts.
func inOrder(cfg *config.Tunnel) bool {
	return slices.ContainsFunc(cfg.Layers, func(l config.Layer) bool { return l.GRE.Sequence })
}

// offload is the most that the kernel is asked to leave to us.
func (t *tunnel) offload() tun.Offload {
	if t.cfg.NoOffload {
		return tun.OffloadNone
	}
	return tun.OffloadUDP
}

// newSources are the checks for what comes out of the tunnel, with the outer
// addresses that are ours now.
func (t *tunnel) newSources(layers []encap.Layer) *resolve.Sources {
	own := make([]netip.Addr, 0, len(t.cfg.Address))
	for _, p := range t.addresses() {
		own = append(own, p.Addr())
	}
	ends := make([]netip.Addr, 0, len(layers))
	for _, l := range layers {
		ends = append(ends, l.Local)
	}
	s := resolve.NewSources(own, ends, t.cfg.Strict).At(&t.beside.now, farEnds(layers))
	for _, l := range layers {
		s = s.For(l.Resolver)
	}
	return s
}

// has6 reports whether the interface carries IPv6, and so needs 1280 bytes. Where it
// can carry nothing else it need not have an address yet: it may learn one.
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

// wantMTU is what the interface's MTU should be over a path.
func (t *tunnel) wantMTU(p encap.PathMTU) encap.TunnelMTU {
	if t.cfg.MTU != 0 {
		return t.cfg.MTU
	}
	return encap.MTU(t.cfg.Stack(&t.cfg.Peers[0], netip.Addr{}, netip.Addr{}), p, t.cfg.Options, t.has6())
}

// widest is the widest first hop of the tunnel's paths, or what is assumed while
// there is none: what does not fit the narrower ones is answered with ICMP.
func (t *tunnel) widest() encap.PathMTU {
	var widest encap.PathMTU
	for _, p := range t.peers {
		if path := p.path.Load(); path != nil {
			widest = max(widest, path.link)
		}
	}
	if widest == 0 {
		return assumedMTU
	}
	return widest
}

// clamp is what TCP segments inside may add up to, by IP version; 0: anything.
// It goes with the path, so that connections that begin fit it.
type clamp struct{ ipv4, ipv6 encap.TunnelMTU }

func (t *tunnel) newClamp(p *path) clamp {
	if t.cfg.NoMSSClamp {
		return clamp{}
	}
	iface := t.wantMTU(p.link)
	c := clamp{min(iface, p.stack.Limit(4)), min(iface, p.stack.Limit(6))}
	// Where the path is narrower than the peer's own link may be, the peer finds
	// out what fits only by the MSS.
	if p.stack.NeedsPathMTU() && p.mtu < max(p.link, assumedMTU) {
		c.ipv4, c.ipv6 = min(c.ipv4, p.stack.LimitBack(4, p.mtu)), min(c.ipv6, p.stack.LimitBack(6, p.mtu))
	}
	return c
}

// apply lowers the MSS that a TCP SYN offers.
func (c *clamp) apply(inner []byte) {
	mtu := c.ipv4
	if header.Version(inner) == 6 {
		mtu = c.ipv6
	}
	if mtu != 0 {
		encap.ClampMSS(inner, mtu)
	}
}

// assumedMTU is the path MTU before there is a path: Ethernet's.
const assumedMTU encap.PathMTU = 1500

// settings are what the interface should have.
func (t *tunnel) settings() netcfg.Settings {
	return netcfg.Settings{
		Name:      t.cfg.Name,
		Namespace: t.cfg.Netns,
		MTU:       int(t.wantMTU(t.widest())),
		Addresses: t.addresses(),
		Routes:    t.routes(),
		Queues:    t.queues,
		Offload:   t.offload(),

		NoLinkLocal: t.automatic() || t.cfg.Hub,
	}
}

// open makes the interface and starts the goroutines that use it. Lost is called,
// once, when the interface is gone, from another goroutine.
func (t *tunnel) open(s netcfg.Settings, lost func()) error {
	t.mtu.Store(int64(s.MTU))
	link, err := netcfg.Open(s)
	if err != nil {
		return err
	}
	t.link, t.down = link, false
	if t.mech != nil {
		t.mech.numbered = s.Addresses
	}
	t.index.Store(int64(link.Index()))
	t.overflow.watch(link)
	t.device.Store(link.Device)
	if got, want := link.Device.Offload(), t.offload(); got < want {
		t.log.Info("the kernel leaves less to us than it could: packets cost more", zap.Stringer("offload", got), zap.Stringer("wanted", want))
	}
	var once sync.Once
	for i, q := range link.Device.Queues() {
		out := newOutbound(t, q, i)
		t.wg.Go(func() {
			out.run()
			once.Do(func() {
				t.gone.Store(link)
				lost()
			})
		})
	}
	return nil
}

// isGone reports whether those who use the interface have found that it is gone.
func (t *tunnel) isGone() bool { return t.link != nil && t.gone.Load() == t.link }

// look sees how the interface is after somebody changed it, and puts back what
// the kernel took away when it was down.
//
// That the interface is gone its goroutines see, too, but not while they wait for
// room in a socket.
func (t *tunnel) look() (gone bool) {
	if t.link == nil || !t.touched.Swap(false) {
		return false
	}
	up, err := t.link.IsUp()
	if errors.Is(err, netcfg.ErrGone) {
		return true
	}
	now := time.Now()
	if err == nil && up && now.Before(t.mending.next) {
		t.touched.Store(true) // then
	} else if err == nil && up {
		var r netcfg.Restored
		r, err = t.link.Restore()
		t.mended(r, now)
		if err == nil {
			err = t.link.Taken()
		}
		if err == nil {
			t.warned.state = ""
		}
	}
	switch {
	case err != nil:
		t.troubled(&t.warned.state, err)
		t.touched.Store(true)
		if next := now.Add(lookSoon); t.mending.next.Before(next) {
			t.mending.next = next
		}
	case !up && !t.down:
		t.log.Warn("interface is down: packets are lost until it is up again (ip link set " + t.cfg.Name + " up)")
	case up && t.down:
		t.log.Info("interface is up again")
	}
	t.down = err == nil && !up
	return false
}

// lookSoon is after how long an interface is looked at again that could not be brought
// in order.
const lookSoon = 5 * time.Second

// troubled tells of what is wrong with an interface that is there, if that is another
// thing than the last warning was about.
func (t *tunnel) troubled(last *string, err error) {
	if err.Error() == *last {
		return
	}
	*last = err.Error()
	t.log.Warn("interface is not as it should be", zap.Error(err))
	for _, p := range t.peers {
		p.note("interface " + t.cfg.Name + ": " + err.Error())
	}
}

// close removes the interface and waits for the goroutines that used it. There must
// be no path any more.
func (t *tunnel) close() {
	if t.link == nil {
		return
	}
	t.device.Store(nil)
	t.overflow.end(t)
	if err := t.link.Close(); err != nil {
		t.log.Warn("close interface", zap.Error(err))
	}
	t.closeSockets() // who uses the device may wait for one
	t.wg.Wait()
	t.reply.close()
	t.link = nil
}

// closeSockets closes all sockets of the tunnel, of which no path may be left.
func (t *tunnel) closeSockets() {
	for from, s := range t.sockets {
		s.close()
		delete(t.sockets, from)
	}
}

// setMTU gives the interface, if there is one, the MTU for its paths.
func (t *tunnel) setMTU() {
	mtu := t.wantMTU(t.widest())
	if t.link != nil && int64(mtu) != t.mtu.Load() {
		if err := t.link.SetMTU(int(mtu)); err != nil {
			t.troubled(&t.warned.mtu, err)
			return
		}
	}
	t.mtu.Store(int64(mtu))
}
