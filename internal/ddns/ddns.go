// Package ddns reports a tunnel's outer address to a broker when it has changed. It speaks the
// protocol of dynamic DNS services, which tunnel brokers have taken over: a GET request over
// HTTPS with a user, a password and the name of what has the address, which is answered by a
// line such as "good 203.0.113.10".
//
// The address itself is not in the request. The request leaves from the tunnel's outer
// address, so the broker sees what it will see of the tunnel's packets, also behind a NAT.
package ddns

import (
	"context"
	"iter"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
)

// Target is a tunnel whose address is reported.
type Target struct {
	Tunnel  string
	Account config.AddressUpdate
	Mark    uint32 // SO_MARK of the connection
	// Local is the tunnel's outer address. If it is invalid, it is not known now, and nothing
	// is reported.
	Local netip.Addr
}

// TargetOf returns a tunnel with its configuration and its paths, in the order of the
// configuration, as a target; none: its address is not reported. The address is that of the
// first path for which routing chooses it.
func TargetOf(cfg *config.Tunnel, paths iter.Seq[*datapath.Path]) []Target {
	if cfg.Update == (config.AddressUpdate{}) {
		return nil
	}
	t := Target{Tunnel: cfg.Name, Account: cfg.Update, Mark: cfg.FwMark}
	next, stop := iter.Pull2(cfg.AllPaths())
	defer stop()
	for p := range paths {
		_, spec, ok := next()
		if ok && spec.Local.IsValid() {
			continue
		}
		if wire := p.Wire.Load(); wire != nil {
			t.Local = wire.Outer().Local
		}
		break
	}
	return []Target{t}
}

// Set reports the addresses of several tunnels, each on a goroutine of its own. One goroutine
// calls its methods, except for Status, which any goroutine may call.
type Set struct {
	log      *zap.Logger
	resolver *net.Resolver       // for the names of the servers
	event    func(api.Event)     // may be called by any goroutine
	ask      func(Target) answer // replaces the request in tests; nil: it is sent

	mu       sync.Mutex // guards the map, which Follow changes
	updaters map[string]*updater
}

// NewSet returns a Set that looks up the names of servers with a resolver, and reports events
// from any goroutine.
func NewSet(log *zap.Logger, r *net.Resolver, event func(api.Event)) *Set {
	return &Set{log: log, resolver: r, event: event, updaters: map[string]*updater{}}
}

// Follow makes the set report the addresses of the targets, and of no other tunnels. What it
// was given before it continues: it sends a request only if the address or the account is new.
// The goroutines belong to wg, and end with ctx.
func (s *Set) Follow(ctx context.Context, wg *sync.WaitGroup, targets []Target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := make(map[string]bool, len(targets))
	for _, t := range targets {
		wanted[t.Tunnel] = true
		u := s.updaters[t.Tunnel]
		if u != nil && (u.account != t.Account || u.mark != t.Mark) {
			u.stop()
			u = nil
		}
		if u == nil {
			u = s.start(ctx, wg, t)
			s.updaters[t.Tunnel] = u
		}
		u.setLocal(t.Local)
	}
	for name, u := range s.updaters {
		if !wanted[name] {
			u.stop()
			delete(s.updaters, name)
		}
	}
}

// start starts the goroutine for a target.
func (s *Set) start(ctx context.Context, wg *sync.WaitGroup, t Target) *updater {
	u := &updater{tunnel: t.Tunnel, account: t.Account, mark: t.Mark, wake: make(chan struct{}, 1)}
	u.log = s.log.With(zap.String("tunnel", t.Tunnel))
	u.event = s.event
	u.status = api.AddressUpdate{Server: server(t.Account.URL), Host: t.Account.Host, State: api.UpdateWaiting}
	ctx, u.stop = context.WithCancel(ctx)
	u.ask = func(ctx context.Context, local netip.Addr) answer {
		return request(ctx, s.resolver, t.Account, t.Mark, local)
	}
	if s.ask != nil {
		u.ask = func(_ context.Context, local netip.Addr) answer {
			t.Local = local
			return s.ask(t)
		}
	}
	wg.Go(func() { u.run(ctx) })
	return u
}

// Resume makes the set report addresses again whose reports were refused for good, because
// the administrator may have changed something.
func (s *Set) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.updaters {
		u.resume()
	}
}

// Status returns the state of a tunnel's reports; nil: it has none.
func (s *Set) Status(tunnel string) *api.AddressUpdate {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.updaters[tunnel]
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	status := u.status
	return &status
}

// server returns the host of a URL.
func server(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Hostname()
}

// updater reports the address of one tunnel.
type updater struct {
	tunnel  string
	account config.AddressUpdate
	mark    uint32
	log     *zap.Logger
	event   func(api.Event)
	ask     func(ctx context.Context, local netip.Addr) answer
	stop    context.CancelFunc
	wake    chan struct{} // something below has changed

	mu     sync.Mutex // guards what follows
	local  netip.Addr
	over   bool // no more requests until resume
	status api.AddressUpdate
}

// setLocal sets the address to report; invalid: it is not known.
func (u *updater) setLocal(a netip.Addr) {
	u.mu.Lock()
	changed := u.local != a
	u.local = a
	u.mu.Unlock()
	if changed {
		u.poke()
	}
}

func (u *updater) resume() {
	u.mu.Lock()
	over := u.over
	u.over = false
	u.mu.Unlock()
	if over {
		u.poke()
	}
}

func (u *updater) poke() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// The pauses after a request.
const (
	afterSuccess = 10 * time.Second // before the next address
	firstRetry   = 30 * time.Second // of a request without an answer; it doubles
	lastRetry    = time.Hour
	// A server that has trouble asks for half an hour at least.
	troublePause    = 30 * time.Minute
	maxTroublePause = 6 * time.Hour
	// A server that refuses because there were too many requests would refuse for longer
	// with each further one.
	abusePause    = 6 * time.Hour
	maxAbusePause = 24 * time.Hour
)

// run sends requests until ctx ends.
func (u *updater) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var reported netip.Addr // the address of the last accepted report
	var tried netip.Addr    // that of the last request
	var last time.Time      // of the last request
	var next time.Time      // earliest time of the next one
	patient := false        // next holds for another address, too
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-u.wake:
		}
		u.mu.Lock()
		local, over := u.local, u.over
		u.mu.Unlock()
		if over || !local.IsValid() || local == reported {
			continue
		}
		due := next
		if soon := last.Add(afterSuccess); local != tried && !patient && soon.Before(due) {
			due = soon
		}
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			continue
		}
		a := u.ask(ctx, local)
		if ctx.Err() != nil {
			return
		}
		tried, last = local, time.Now()
		if a.verdict == accepted {
			reported, failures = local, 0
		} else {
			reported = netip.Addr{}
			failures++
		}
		next, patient = last.Add(a.verdict.pause(failures)), a.verdict != accepted && a.verdict != failed
		u.record(a, local, last, next)
		timer.Reset(time.Until(next))
	}
}

// pause returns the pause after a request, the last one of so many failures in a row.
func (v verdict) pause(failures int) time.Duration {
	doubled := func(first, last time.Duration) time.Duration { return min(first<<min(max(failures-1, 0), 16), last) }
	switch v {
	case accepted:
		return afterSuccess
	case trouble:
		return doubled(troublePause, maxTroublePause)
	case abuse:
		return doubled(abusePause, maxAbusePause)
	}
	return doubled(firstRetry, lastRetry)
}

// record writes the result of a request into the log, the events and the status.
func (u *updater) record(a answer, local netip.Addr, at, next time.Time) {
	u.mu.Lock()
	before := u.status
	s := &u.status
	s.Local, s.Answer, s.Error, s.At, s.Next = local.String(), a.text, a.problem, at, next
	switch a.verdict {
	case accepted:
		s.State, s.Next = api.UpdateDone, time.Time{}
	case refused:
		s.State, s.Next, u.over = api.UpdateStopped, time.Time{}, true
	default:
		s.State = api.UpdateRetrying
	}
	now := *s
	u.mu.Unlock()

	fields := []zap.Field{zap.String("server", now.Server), zap.String("host", now.Host), zap.String("local", now.Local)}
	if now.Answer != "" {
		fields = append(fields, zap.String("answer", now.Answer))
	}
	if a.verdict == accepted {
		u.log.Info("the broker knows our address", fields...)
		u.event(api.Event{At: at, Tunnel: u.tunnel, Kind: api.EventAddress, Text: now.Server + " answers " + now.Answer})
		return
	}
	text := now.Server + ": " + now.Error
	if now.State == api.UpdateStopped {
		text += ": then reload"
	} else {
		fields = append(fields, zap.Duration("retry_in", next.Sub(at)))
	}
	u.log.Warn("cannot report our address to the broker", append(fields, zap.String("why", now.Error))...)
	if now.Error != before.Error || now.State != before.State {
		u.event(api.Event{At: at, Tunnel: u.tunnel, Kind: api.EventError, Text: text})
	}
}
