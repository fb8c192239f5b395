// Package engine runs the life cycle of tunnels: it makes their interfaces and
// sockets, runs a goroutine for each direction, and follows what changes around
// them.
//
// A panic in a goroutine that handles what others send, packets, ICMP errors, neighbour
// discovery or answers to probes, costs what was being handled. The goroutine recovers,
// replaces what may be half changed, and goes on; the packet is counted as
// drop.InternalError and the tunnel's repairs count a panic (see guarded). The
// alternative, to end the process and take over the kept descriptors, would let the
// sender of one packet stop all tunnels for a second, as often as wanted, and for good
// where nobody keeps descriptors. A panic in the control loop ends the process: its
// state is that of all tunnels, and cannot be replaced.
package engine

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/netcfg"
	"sixfour/internal/version"
	"sixfour/transport"
	"sixfour/transport/wait"
	"sixfour/tun"
)

// Engine runs the tunnels of one configuration. One goroutine, in Run, decides
// everything that changes; the data goroutines read what it publishes.
type Engine struct {
	log      *zap.Logger
	router   *netcfg.Router
	notify   chan struct{}   // something around us changed
	lost     chan struct{}   // an interface is gone: its tunnel knows
	reloads  chan *reload    // configurations to be run instead
	ended    chan struct{}   // closed when Run has
	names    chan resolution // a name has other addresses
	learnt   chan *tunnel    // its neighbours have told something for its interface
	tooLong  chan tooLong    // a destination that is narrower than others
	looking  chan struct{}   // names that are being looked up
	broken   chan broken     // a receiver is
	resolver *net.Resolver
	prober   *prober
	keeper   *keeper
	ports    map[int]*port       // by the device
	policies policies            // that AF_XDP would bypass
	segments *transport.Segments // of packets that the kernel put together; nil: not known
	shards   int                 // receivers at each local address
	shield   shield              // against the kernel's own answers
	gate     gate                // what [gateway] says
	events   events
	captures capturing
	pulse    chan struct{} // somebody wants to know whether the control loop lives
	loop     loop
	started  time.Time
	kept     kept
	ahead    ahead
	wg       sync.WaitGroup
	ctx      context.Context // ends with Run

	// mu guards what a reload changes: the list of the tunnels, and their lists of
	// peers and configurations. The control loop alone changes them, and so reads
	// them without.
	mu       sync.RWMutex
	tunnels  []*tunnel
	reloaded api.Reloads

	sandbox   atomic.Pointer[api.Sandbox]
	table     atomic.Pointer[table]
	stale     bool                // the table is
	moveAt    time.Time           // a peer that is down goes to the next address of its name; zero: none does
	rest      time.Time           // not before: look at everything again because of a change
	links     []netip.Prefix      // this host's IPv4 addresses
	hosts     map[string]hostNets // by namespace
	byIndex   map[int]*tunnel     // those with an interface in our own namespace
	watched   map[watched]watching
	deaf      map[listener]string     // places where packets should be received, and why they are not
	stray     counters                // packets that arrived and belong to no tunnel
	strangers strangers               // from where
	inbounds  map[listener][]*inbound // a shard each
	receivers sync.WaitGroup          // of their goroutines
	errors    map[netip.Addr]transport.Receiver
}

// New prepares the tunnels of a configuration; nothing is changed on the system
// before Run.
func New(cfg *config.Config, log *zap.Logger) (*Engine, error) {
	e := &Engine{
		log:      log,
		notify:   make(chan struct{}, 1),
		lost:     make(chan struct{}, 1),
		reloads:  make(chan *reload),
		ended:    make(chan struct{}),
		watched:  make(map[watched]watching),
		deaf:     make(map[listener]string),
		names:    make(chan resolution),
		learnt:   make(chan *tunnel),
		tooLong:  make(chan tooLong, 16),
		looking:  make(chan struct{}, lookups),
		broken:   make(chan broken),
		pulse:    make(chan struct{}),
		ports:    make(map[int]*port),
		inbounds: make(map[listener][]*inbound),
		errors:   make(map[netip.Addr]transport.Receiver),
		hosts:    make(map[string]hostNets),
		prober:   newProber(),
		started:  time.Now(),
	}
	e.prober.log = log
	var err error
	if e.segments, err = transport.OpenSegments(); err != nil { // what is received is cut as far as it can be without
		log.Info("how the uplink puts packets together (GRO) is not known", zap.Error(err))
	}
	e.keeper = newKeeper(e.somethingChanged)
	e.gate.cfg = cfg.Gateway
	e.resolver = e.newResolver()
	e.table.Store(new(table))
	for i := range cfg.Tunnels {
		t, err := e.newTunnel(i, &cfg.Tunnels[i], len(cfg.Tunnels))
		if err != nil {
			return nil, err
		}
		e.tunnels = append(e.tunnels, t)
		e.shards = max(e.shards, t.queues)
	}
	return e, nil
}

// newTunnel makes a tunnel, one of so many, with a number that no other one has.
func (e *Engine) newTunnel(id int, cfg *config.Tunnel, of int) (*tunnel, error) {
	t, err := newTunnel(id, *cfg, queuesOf(cfg, of), e.prober, e.log)
	if err != nil {
		return nil, fmt.Errorf("tunnel %s: %w", cfg.Name, err)
	}
	t.tooLong, t.events, t.capturing, t.keeper = e.tooLong, &e.events, &e.captures, e.keeper
	return t, nil
}

const (
	// settle is how long changes are gathered before they are acted on.
	settle = 50 * time.Millisecond
	// rests is how many times as long as a look at everything took, there is none
	// again, however much changes: with a hundred thousand peers, and routes that
	// flap, we would do nothing else.
	rests   = 4
	maxRest = 2 * time.Second
	// lookAgain is how often everything is looked at though nobody said that
	// it changed.
	lookAgain = 30 * time.Second
	// retry is how often that is while something is missing.
	retry = time.Second
)

// spareProcessors is for how many goroutines that carry packets the runtime gets
// a processor of their own, for as long as there is traffic.
const spareProcessors = 2 * maxQueues

// Run makes the interfaces, carries packets until ctx ends, and takes away what
// it made. Tell is called by the control loop, which waits for it: once every tunnel
// can carry packets, or, some seconds after the start, with those that cannot; and
// from then on when that has changed.
//
// What is wrong with one tunnel, or what the host lacks for it, is never an error: that
// tunnel waits and says for what, it is tried again, and the others carry. An error is
// what no tunnel could run without: the kernel's netlink, or its TUN device.
func (e *Engine) Run(ctx context.Context, tell func(Summary)) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		close(e.ended)
		e.close(err == nil)
	}()
	e.ctx = ctx
	if e.router, err = netcfg.NewRouter(); err != nil {
		return err
	}
	if err := tun.Check(); err != nil {
		return err
	}
	e.listenAhead()
	e.gate.mark.Store(e.gate.cfg.DefaultRoute != "")
	wait.Spare(spareProcessors)
	e.watchAll(e.tunnels)
	// The paths first: the interfaces then come up with the right MTU, and their
	// first packets find their way.
	e.evaluatePeers(e.tunnels)
	for _, t := range e.tunnels {
		e.tryOpen(t)
		e.begin(t)
		e.beat()
	}
	e.wg.Go(func() { e.prober.run(ctx) })
	e.wg.Go(func() { e.keeper.run(ctx) })
	e.control(ctx, tell)
	return nil
}

// begin starts what follows a tunnel that has its interface.
func (e *Engine) begin(t *tunnel) {
	e.followNames(t)
	t.warn()
	if t.only != nil { // the prober greets its path
		e.prober.watch(t.only)
	}
}

// control is the loop in which everything is decided.
func (e *Engine) control(ctx context.Context, tell func(Summary)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer e.loop.begin().Stop()
	for ctx.Err() == nil {
		begun := time.Now()
		complete := e.evaluateAll()
		e.rest = time.Now().Add(min(rests*time.Since(begun), maxRest))
		e.closeRest()
		e.closeAhead()
		e.beat()
		wait := e.awaited(lookAgain)
		if !complete {
			wait = min(wait, retry)
		}
		timer.Reset(min(wait, e.loop.tell(e.summary, complete, tell)))
		e.loop.pace(e.tunnels)
		e.wait(ctx, timer.C)
	}
}

// wait returns when it is time to look at everything again. What is learnt of one
// tunnel's path concerns no other.
func (e *Engine) wait(ctx context.Context, timer <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer:
			return
		case <-e.notify:
			e.pause(ctx, max(settle, time.Until(e.rest))) // one command of an administrator is a burst of changes
			return
		case <-e.pulse:
		case <-e.loop.tick:
			e.beat()
			if e.followNamespaces() {
				return
			}
		case <-e.lost:
			return
		case r := <-e.reloads:
			r.run()
			return
		case r := <-e.names:
			if e.takeNames(ctx, r) {
				return
			}
		case t := <-e.learnt:
			t.learn()
			e.stale = true // the groups to join may have changed
			e.arrange()
		case b := <-e.broken:
			e.replaceReceiver(b)
			return
		case l := <-e.tooLong:
			e.narrowHop(l)
		case l := <-e.prober.lessons:
			e.takeLesson(l)
		}
	}
}

// evaluateAll brings every tunnel in line with what is around it, and reports
// whether all can carry packets.
func (e *Engine) evaluateAll() (complete bool) {
	for _, t := range e.tunnels {
		e.openAgain(t)
		if t.isGone() || t.look() {
			e.interfaceLost(t)
		}
		t.expireFragments(time.Now())
	}
	e.evaluatePeers(e.tunnels)
	complete = true
	for _, t := range e.tunnels {
		t.setMTU()
		t.renumber()
		t.closeUnused()
		complete = complete && t.carries()
	}
	e.arrange()
	e.closePorts()
	e.shieldUs()
	e.followAggregates()
	complete = e.syncGateway() && complete
	return complete && !e.stale
}

// evaluatePeers does so for the paths of all peers of some tunnels.
func (e *Engine) evaluatePeers(tunnels []*tunnel) {
	e.lookAtHost()
	e.lookAtPolicies()
	e.byIndex = make(map[int]*tunnel)
	var peers []*peer
	for _, t := range e.tunnels {
		if index := int(t.index.Load()); t.cfg.Netns == "" && index != 0 {
			e.byIndex[index] = t
		}
	}
	for _, t := range tunnels {
		peers = append(peers, t.peers...)
	}
	now := time.Now()
	e.moveAt = time.Time{}
	for _, p := range peers {
		e.leaveDead(p, now)
	}
	routes := e.routesTo(peers)
	held := make([][]netip.Prefix, len(tunnels))
	for i, t := range tunnels {
		held[i], t.held, t.waiting = t.held, nil, 0
	}
	for i, p := range peers {
		p.complain()
		p.widen(now)
		if p.former != nil && !now.Before(p.until) || p.parted(now) {
			e.stale = true
		}
		e.evaluate(p, routes[i])
	}
	for i, t := range tunnels {
		t.holdRoutes(held[i])
	}
}

// aLinkIsLost makes the control loop look whose it is. It does not wait for it, who
// may wait for the caller.
func (e *Engine) aLinkIsLost() {
	select {
	case e.lost <- struct{}{}:
	default:
	}
}

// close takes everything away again, except what is to be handed over.
func (e *Engine) close(regular bool) {
	e.captures.close(errDaemonEnds)
	e.closeGateway()
	if regular && e.kept.store != nil {
		e.handOver()
		shutAll(e.tunnels)
	} else {
		e.shutAll(e.tunnels)
	}
	e.closeAhead()
	e.closePorts()
	e.dropShield()
	for _, shards := range e.inbounds {
		for _, in := range shards {
			in.rx.Close()
		}
	}
	for _, rx := range e.errors {
		rx.Close()
	}
	e.receivers.Wait()
	e.wg.Wait()
	if e.router != nil {
		e.router.Close()
	}
	if e.segments != nil {
		if err := e.segments.Close(); err != nil {
			e.log.Warn("close", zap.Error(err))
		}
	}
}

// Sandboxed says what Status is to tell of the process's rights.
func (e *Engine) Sandboxed(s api.Sandbox) { e.sandbox.Store(&s) }

// Status is what every tunnel is doing now. Any goroutine may call it.
func (e *Engine) Status() api.Status {
	e.mu.RLock()
	defer e.mu.RUnlock()
	s := api.Status{Version: version.String(), Started: e.started, Reloads: e.reloaded, Stray: e.stray.traffic(), Strangers: e.strangers.list(), Sandbox: e.sandbox.Load(), Gateway: e.gate.shown.Load()}
	for _, t := range e.tunnels {
		s.Tunnels = append(s.Tunnels, t.status())
	}
	return s
}
