package engine

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/resolve"
	"sixfour/internal/api"
	"sixfour/internal/arrival"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/ddns"
	"sixfour/internal/discovery"
	"sixfour/internal/events"
	"sixfour/internal/gateway"
	"sixfour/internal/hostwatch"
	"sixfour/internal/keepalive"
	"sixfour/internal/kernelpath"
	"sixfour/internal/meeting"
	"sixfour/internal/names"
	"sixfour/internal/netcfg"
	"sixfour/internal/ports"
	"sixfour/internal/readiness"
	"sixfour/internal/report"
	"sixfour/internal/sessions"
	"sixfour/internal/tunif"
	"sixfour/internal/version"
	"sixfour/transport/wait"
	"sixfour/tun"
)

// Engine runs the tunnels of one configuration. The control loop, which is the goroutine
// in Run, makes all changes; the data goroutines read what it publishes.
type Engine struct {
	log    *zap.Logger
	ctx    context.Context // ends with Run
	wg     sync.WaitGroup
	about  about
	events events.Log
	datapath.Plane
	signals
	names *names.Queue
	running
	host
	receiving
	finder *discovery.Finder
	keeper *keepalive.Keeper
	kernel
	loop loop
}

// receiving is how packets and peers arrive. The control loop owns it.
type receiving struct {
	arrivals *arrival.Set
	meetings *meeting.Set // of ends that prove who they are
}

// about is what status says of the daemon as a whole.
type about struct {
	started time.Time
	reloads report.Reloads
	sandbox atomic.Pointer[api.Sandbox]
}

// signals are what other goroutines tell the control loop.
type signals struct {
	notify       chan struct{}    // something outside the engine changed
	lost         chan struct{}    // an interface is gone; the tunnel's state says which
	reloads      chan *reload     // configurations to replace the running one
	ended        chan struct{}    // closed when Run has returned
	learnt       chan *tunnel     // tunnels whose neighbours announced something for the interface
	tooLong      chan tooLong     // destinations with a smaller MTU than the others
	broken       chan broken      // receivers that failed
	healthChecks readiness.Checks // of the control loop
}

// running is the configuration that runs. Only the control loop changes it, so the loop
// reads it without mu.
type running struct {
	mu      sync.RWMutex // guards the list of tunnels, and each tunnel's peers and configuration
	tunnels []*tunnel
}

// host is what the engine knows about this host. The control loop owns it.
type host struct {
	router    *netcfg.Router
	addresses hostwatch.Addresses
	byIndex   map[int]*tunnel // tunnels with an interface in our own network namespace
	watcher   *hostwatch.Watcher
	Counters  resolve.Counters // of mechanisms; nil: there are none. It must be set before Run
	updates   *ddns.Set        // reports our outer addresses; any goroutine may read its status
}

// kernel is what the engine changes in the kernel beside interfaces. The control loop owns
// it.
type kernel struct {
	shield  hostwatch.Shield // suppresses the kernel's own ICMP errors
	gateway *gateway.Applier
	carrier *kernelpath.Set // carries packets in the kernel
}

// New prepares the tunnels of a configuration. It changes nothing on the system; Run
// does.
func New(cfg *config.Config, log *zap.Logger) (*Engine, error) {
	e := &Engine{
		log: log,
		signals: signals{
			notify:       make(chan struct{}, 1),
			lost:         make(chan struct{}, 1),
			reloads:      make(chan *reload),
			ended:        make(chan struct{}),
			learnt:       make(chan *tunnel),
			tooLong:      make(chan tooLong, 16),
			broken:       make(chan broken),
			healthChecks: make(readiness.Checks),
		},
		finder: discovery.New(log),
	}
	e.about.started, e.about.reloads.Events = time.Now(), &e.events
	e.addresses.Log, e.addresses.IsAutomatic = log, e.isAutomatic
	e.shield.Log = log
	e.Plane.Failed, e.Plane.Changed = e.isBroken, e.somethingChanged
	e.meetings = meeting.NewSet(log)
	e.arrivals = arrival.New(log, &e.Plane, sessions.Sockets{Sockets: ports.Kernel{}, Connected: e.meetings.Connected, Log: log}, e.arriving, e.receives)
	e.meetings.Use(e.arrivals.Sockets)
	e.keeper = keepalive.New(e.somethingChanged)
	e.gateway = gateway.NewApplier(cfg.Gateway, log)
	e.Captures.Changed = func() { e.carrier.Refresh() }
	e.carrier = kernelpath.New(log)
	e.names = names.NewQueue(names.NewResolver(e.gateway.Resolver()))
	e.updates = ddns.NewSet(log, e.gateway.Resolver(), e.events.Add)
	for i := range cfg.Tunnels {
		t, err := e.newTunnel(i, &cfg.Tunnels[i], len(cfg.Tunnels))
		if err != nil {
			return nil, err
		}
		e.tunnels = append(e.tunnels, t)
		e.arrivals.NeedShards(t.Queues)
	}
	return e, nil
}

// newTunnel makes one of the given number of tunnels. No other tunnel may have its id.
func (e *Engine) newTunnel(id int, cfg *config.Tunnel, of int) (*tunnel, error) {
	t, err := newTunnel(id, *cfg, cfg.QueuesOf(of), e.finder, e.arrivals.Sockets, &e.Captures, e.log)
	if err != nil {
		return nil, fmt.Errorf("tunnel %s: %w", cfg.Name, err)
	}
	t.kernel = e.carrier.Add(cfg, t.Log, func() bool { return e.Captures.Captures(t.Name) })
	t.toLoop, t.report.Events, t.workers.Keeper = e.tooLong, &e.events, e.keeper
	return t, nil
}

const (
	// settle is how long changes are collected before the engine acts on them.
	settle = 50 * time.Millisecond
	// rests limits how often changes cause a full evaluation: the pause after one is
	// rests times as long as it took, but at most maxRest. With a hundred thousand
	// peers and flapping routes the engine would otherwise do nothing else.
	rests   = 4
	maxRest = 2 * time.Second
	// lookAgain is the interval between full evaluations while no change is reported.
	lookAgain = 30 * time.Second // but tunif.Retry while something is missing
)

// spareProcessors is the number of packet-carrying goroutines for which the runtime gets
// an additional processor each while there is traffic.
const spareProcessors = 2 * config.MaxQueues

// Run makes the interfaces, carries packets until ctx ends, and removes what it made.
// The control loop calls tell and waits for it to return: first when every tunnel can
// carry packets, or some seconds after the start even if some cannot; later whenever
// that state has changed.
//
// A fault of one tunnel, or something that the host lacks for it, is never an error of
// Run: that tunnel reports what it waits for and is retried, and the others carry
// packets. Run returns an error only if no tunnel could work: the kernel's netlink or
// TUN device is missing.
func (e *Engine) Run(ctx context.Context, tell func(readiness.Summary)) (err error) {
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
	wait.Spare(spareProcessors)
	e.watcher = hostwatch.NewWatcher(ctx, &e.wg, e.log, e.changed)
	e.watchAll(e.tunnels)
	// Evaluate the paths first: the interfaces then start with the right MTU, and
	// their first packets have a path.
	e.evaluatePeers(e.tunnels)
	for _, t := range e.tunnels {
		e.tryOpen(t)
		e.begin(t)
		e.heartbeat()
	}
	e.wg.Go(func() { e.finder.Run(ctx) })
	e.wg.Go(func() { e.keeper.Run(ctx) })
	e.wg.Go(func() { e.meetings.Run(ctx) })
	e.wg.Go(func() { e.carrier.Run(ctx) })
	e.control(ctx, tell)
	return nil
}

// begin starts the background work of a tunnel that has its interface.
func (e *Engine) begin(t *tunnel) {
	e.followNames(t)
	if t.mech != nil {
		t.mech.Warn(t.Log)
	}
	if t.only != nil { // the MTUs of its paths are searched from the start
		for p := range t.paths() {
			e.finder.Watch(p.Search)
		}
	}
}

// control is the control loop, which makes all decisions.
func (e *Engine) control(ctx context.Context, tell func(readiness.Summary)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	e.loop.Begin()
	defer e.loop.End()
	for ctx.Err() == nil {
		begun := time.Now()
		complete := e.evaluateAll()
		e.loop.rest = time.Now().Add(min(rests*time.Since(begun), maxRest))
		e.arrivals.Sockets.Kept.CloseRest()
		e.arrivals.Sockets.CloseAhead()
		e.heartbeat()
		wait := e.nextDue(lookAgain)
		if !complete {
			wait = min(wait, tunif.Retry)
		}
		if again := e.loop.Report(e.summary, complete, tell); again > 0 {
			wait = min(wait, again)
		}
		timer.Reset(wait)
		e.loop.Pace(slices.ContainsFunc(e.tunnels, func(t *tunnel) bool { return t.cfg.Netns != "" })) // followNamespaces
		e.wait(ctx, timer.C)
	}
}

// wait handles events and returns when everything must be evaluated again. What is
// learnt about the path of one tunnel does not affect the others.
func (e *Engine) wait(ctx context.Context, timer <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer:
			return
		case <-e.notify:
			e.healthChecks.Sleep(ctx, max(settle, time.Until(e.loop.rest))) // one administrator command causes many changes
			return
		case <-e.healthChecks:
		case <-e.loop.Tick():
			e.heartbeat()
			if e.followNamespaces() {
				return
			}
		case <-e.lost:
			return
		case r := <-e.reloads:
			r.run()
			return
		case r := <-e.names.C():
			// All peers are evaluated once for many names of a hub, and not once for each.
			if e.names.Apply(ctx, r, settle) {
				return
			}
		case t := <-e.learnt:
			t.learn()
			e.arrivals.Renew() // the groups to join may have changed
			e.arrivals.Arrange()
		case b := <-e.broken:
			e.replaceReceiver(b)
			return
		case <-e.meetings.Ready():
			e.followMoves()
		case l := <-e.tooLong:
			e.narrowHop(l)
		case l := <-e.finder.Updates():
			e.applyMTUUpdate(l)
		}
	}
}

// evaluateAll updates every tunnel to the state of the host and the network, and reports
// whether all can carry packets.
func (e *Engine) evaluateAll() (complete bool) {
	for _, t := range e.tunnels {
		if t.Again(func() { e.tryOpen(t) }) {
			t.learn()
		}
		if t.IsGone() || t.Check() {
			e.interfaceLost(t)
		}
		t.ExpireFragments(time.Now(), t.dataPaths())
		e.heartbeat()
	}
	e.evaluatePeers(e.tunnels)
	complete = true
	var moving []ddns.Target
	for _, t := range e.tunnels {
		moving = append(moving, ddns.TargetOf(&t.cfg, t.dataPaths())...)
		t.setMTU()
		t.renumber()
		t.wires.CloseUnused(t.dataPaths())
		e.heartbeat()
		complete = complete && t.carries()
	}
	e.updates.Follow(e.ctx, &e.wg, moving)
	e.arrivals.Arrange()
	e.SetMessages(e.meetings.Update(e.meeting()))
	e.arrivals.CloseUnusedXDP()
	e.followKernel()
	e.shield.Update(e.arrivals.Unknown())
	e.arrivals.FollowMerging(slices.ContainsFunc(e.tunnels, func(t *tunnel) bool {
		return t.cfg.Outermost(&t.cfg.Peers[0].Paths[0]).Properties().Summed
	}))
	complete = e.syncGateway() && complete
	return complete && e.arrivals.IsComplete()
}

// evaluatePeers updates the paths of all peers of the given tunnels.
func (e *Engine) evaluatePeers(tunnels []*tunnel) {
	e.readHost()
	e.readPolicies()
	e.byIndex = make(map[int]*tunnel)
	var peers []*path
	for _, t := range e.tunnels {
		if index := int(t.Index.Load()); t.cfg.Netns == "" && index != 0 {
			e.byIndex[index] = t
		}
	}
	for _, t := range tunnels {
		peers = slices.AppendSeq(peers, t.paths())
	}
	now := time.Now()
	e.loop.moveAt = time.Time{}
	for _, p := range peers {
		e.leaveDead(p, now)
	}
	routes := e.routesTo(peers)
	held := make([][]netip.Prefix, len(tunnels))
	for i, t := range tunnels {
		held[i], t.held.Routes = t.held.Routes, nil
		t.report.LimitWaiting()
	}
	for i, p := range peers {
		p.report.Irregularities()
		p.Search.Widen(now)
		e.arrivals.Expire(p, now)
		e.evaluate(p, routes[i])
		e.heartbeat()
	}
	for i, t := range tunnels {
		t.holdRoutes(held[i])
	}
}

// interfaceGone makes the control loop look for the interface that is gone. It never
// blocks: the control loop may be waiting for the caller.
func (e *Engine) interfaceGone() {
	select {
	case e.lost <- struct{}{}:
	default:
	}
}

// close removes everything that the engine made, except what the next process adopts.
func (e *Engine) close(regular bool) {
	e.Captures.Close(errDaemonEnds)
	e.gateway.Close()
	e.carrier.Close()
	if regular && e.arrivals.Sockets.Kept.Stores() {
		e.handOver()
		shutAll(e.tunnels)
	} else {
		e.shutAll(e.tunnels)
	}
	e.arrivals.CloseUnusedXDP()
	e.shield.Close()
	e.arrivals.Close()
	e.wg.Wait()
	if e.router != nil {
		e.router.Close()
	}
}

// Sandboxed sets the restrictions of the process, which Status reports.
func (e *Engine) Sandboxed(s api.Sandbox) { e.about.sandbox.Store(&s) }

// Status returns the current state of all tunnels. Any goroutine may call it.
func (e *Engine) Status() api.Status {
	e.carrier.Collect()
	e.mu.RLock()
	defer e.mu.RUnlock()
	s := api.Status{Version: version.String(), Started: e.about.started, Reloads: e.about.reloads.Status(), Stray: e.Stray.Traffic(), UnknownSources: e.Strangers.List(), Sandbox: e.about.sandbox.Load(), Gateway: e.gateway.Status()}
	for _, t := range e.tunnels {
		one := t.status()
		one.AddressUpdate = e.updates.Status(one.Name)
		s.Tunnels = append(s.Tunnels, one)
	}
	return s
}

// Happened returns the log of the events. Any goroutine may use it.
func (e *Engine) Happened() *events.Log { return &e.events }
