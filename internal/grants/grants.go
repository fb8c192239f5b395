// Package grants keeps the sessions of tunnels whose other end is a server, and makes the
// configuration that the engine runs of that of the file and of what the servers grant.
//
//	file ──▶ grants.Set ──▶ Engine.Reload
//	             ▲
//	             │ addresses, prefixes, MTU, path
//	   sessions in ports (ayiya, tsp, json), dialogues (tic), messages (heartbeat)
//
// A tunnel whose server has granted nothing is in the configuration without addresses. What was
// granted stays while the server is away, so that the interface and connections through it do.
package grants

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/config"
)

// Set has the sessions of all tunnels. Any goroutine may call its methods.
type Set struct {
	Options
	wake chan struct{} // a grant is new

	mu       sync.Mutex // guards the maps, and the order of Follow; before that of a session
	sessions map[identity]*session
	current  map[string]*session // those of the configuration that runs, by tunnel
	file     *config.Config      // that of the configuration that runs; nil: none does
	singly   bool                // new grants are applied one by one, to find the one that is wrong
	run      context.Context     // of Run; nil: it does not run yet
	wg       sync.WaitGroup
}

// Options are what a Set needs.
type Options struct {
	Log   *zap.Logger
	Event func(api.Event)
	// Look returns what the engine knows of the tunnels, by name.
	Look func() map[string]Seen
	// Networks returns the networks of this host's interfaces, by the names of these.
	Networks func() map[string][]netip.Prefix
	// Taken returns an error if another interface in a tunnel's namespace has a route; nil: none
	// has any.
	Taken func(t *config.Tunnel, route netip.Prefix) error
	Clock Clock
	// learn replaces the dialogue of TIC in tests; nil: it is held.
	learn learner
}

// Seen is what the engine knows of a tunnel.
type Seen struct {
	Phase         api.Phase
	Since         time.Time
	Local, Remote netip.Addr // outer addresses; invalid: not known
}

// Clock is the time. Tests replace it.
type Clock struct {
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
}

// RealClock is the clock of this host.
var RealClock = Clock{time.Now, time.After}

// identity is what makes a session another one.
type identity struct {
	tunnel string
	client config.Client
	local  netip.Addr
	mark   uint32
}

// New returns a Set without sessions.
func New(o Options) *Set {
	if o.Clock.Now == nil {
		o.Clock = RealClock
	}
	if o.Networks == nil {
		o.Networks = networks
	}
	return &Set{Options: o, wake: make(chan struct{}, 1), sessions: map[identity]*session{}, current: map[string]*session{}}
}

// identify returns the identity of the session that a tunnel needs; not ok: it needs none.
func identify(t *config.Tunnel) (id identity, ok bool) {
	if t.Client == (config.Client{}) {
		return id, false
	}
	return identity{t.Name, t.Client, t.Peers[0].Paths[0].Local, t.FwMark}, true
}

// Applied is a configuration that was made from that of a file.
type Applied struct {
	Config *config.Config
	set    *Set
	file   *config.Config
	used   map[*session]*grant
	fresh  int // grants that the engine did not have before
}

// Apply returns the configuration of a file with what servers have granted. Done must be called
// when the engine has taken it, or has not.
func (s *Set) Apply(file *config.Config) *Applied {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &Applied{Config: file, set: s, file: file, used: map[*session]*grant{}}
	var tunnels []config.Tunnel
	for i := range file.Tunnels {
		t := &file.Tunnels[i]
		id, ok := identify(t)
		if !ok {
			continue
		}
		one := s.sessions[id]
		if one == nil {
			one = newSession(s, id, t)
			s.sessions[id] = one
		}
		if tunnels == nil {
			tunnels = append([]config.Tunnel(nil), file.Tunnels...)
		}
		g, fresh := one.usable(s.singly && a.fresh > 0)
		if fresh {
			a.fresh++
		}
		a.used[one] = g
		tunnels[i] = granted(t, one, g, g != nil && s.defaultRoute(file, i) && one.mayRoute(t))
	}
	if tunnels != nil {
		copied := *file
		copied.Tunnels = tunnels
		a.Config = &copied
	}
	return a
}

// defaultRoute reports whether a tunnel of a file gets the default route without the key routes:
// the first one that a server grants addresses, if no tunnel has that route.
func (s *Set) defaultRoute(file *config.Config, index int) bool {
	first := -1
	for i := range file.Tunnels {
		t := &file.Tunnels[i]
		for _, r := range t.Routes {
			if t.Netns == file.Tunnels[index].Netns && r == allIPv6 {
				return false
			}
		}
		if _, set := t.Source.Keys["routes"]; first < 0 && !set && t.Client.Grants() && t.Netns == file.Tunnels[index].Netns && t.Mode.Layers[0].Over() == 4 {
			first = i
		}
	}
	return first == index
}

var allIPv6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)

// Done says whether the engine has taken the configuration. Sessions that it does not have are
// ended then, and new ones begin. Reread says that the configuration is of a file that was read
// again: if the engine has not taken it, what was granted is not the reason.
func (a *Applied) Done(err error, reread bool) {
	s := a.set
	s.mu.Lock()
	defer s.mu.Unlock()
	several := err != nil && a.fresh > 1
	for one, g := range a.used {
		switch {
		case err == nil:
			one.applied(g)
		case !reread && !several:
			one.reject(g, err)
		}
	}
	s.singly = s.singly && a.fresh > 0 || several
	if s.singly {
		s.poke()
	}
	if err == nil {
		s.current, s.file = map[string]*session{}, a.file
		for one := range a.used {
			s.current[one.id.tunnel] = one
		}
	}
	for id, one := range s.sessions {
		if s.current[id.tunnel] != one {
			one.end()
			delete(s.sessions, id)
			continue
		}
		s.begin(one)
	}
}

// begin starts what a session does by itself.
func (s *Set) begin(one *session) {
	if s.run == nil || one.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(s.run)
	one.stop = stop
	if work := one.work(); work != nil {
		s.wg.Go(func() { work(ctx) })
	}
}

const (
	// lookAgain is how often the Set looks at the state of tunnels, lookSoon while a session
	// needs to know where packets go and does not.
	lookAgain = 5 * time.Second
	lookSoon  = 500 * time.Millisecond
	// applyAgain is after which time a configuration is tried again that the engine has refused.
	applyAgain = time.Minute
)

// Run keeps the sessions until ctx ends. It calls reload when the servers grant something else:
// reload must apply the configuration of the file again.
func (s *Set) Run(ctx context.Context, reload func(context.Context) error) {
	s.mu.Lock()
	s.run = ctx
	for _, one := range s.current {
		s.begin(one)
	}
	s.mu.Unlock()
	defer s.wg.Wait()
	again := lookSoon
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
			again = lookSoon
			if err := reload(ctx); err != nil && ctx.Err() == nil {
				s.Log.Error("what a server has granted cannot be used", zap.Error(err))
			}
		case <-s.Clock.After(again):
			again = s.look()
		}
	}
}

// look tells the sessions what has become of their tunnels. It returns when to look again.
func (s *Set) look() (again time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.current) == 0 || s.Look == nil {
		return lookAgain
	}
	again = lookAgain
	seen := s.Look()
	for name, one := range s.current {
		if one.look(seen[name]) {
			again = lookSoon
		}
	}
	return again
}

// poke makes Run apply the configuration again. It does not block.
func (s *Set) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Fill adds the sessions to a status.
func (s *Set) Fill(status *api.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range status.Tunnels {
		if one := s.current[status.Tunnels[i].Name]; one != nil {
			status.Tunnels[i].Session = one.state()
		}
	}
}
