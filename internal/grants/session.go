package grants

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/session/heartbeat"
	"sixfour/internal/text"
)

// grant is what a server has granted, and when.
type grant struct {
	config.Grant
	at    time.Time
	beats *config.Heartbeat // what the server must be sent; nil: nothing
	every time.Duration     // how often
	to    netip.AddrPort    // where
}

// session is the session of one tunnel.
type session struct {
	set  *Set
	id   identity
	mode string
	log  *zap.Logger
	stop context.CancelFunc // nil: it has not begun; the Set owns it
	wake chan struct{}      // something below has changed for the goroutine

	mu sync.Mutex // guards what follows
	offers
	attempt *attempt
	asked   time.Time // when the server was asked last
	repeats int       // how often it was asked since the other end is down
	beats   *heartbeat.Client
	seen    Seen
	silent  bool // nothing comes from the server
	status  api.Session
}

// offers is what was granted, and what has become of it.
type offers struct {
	grant    *grant    // the last one; nil: none
	inUse    *grant    // that the engine has
	rejected *grant    // that the engine refuses; nil: none
	retryAt  time.Time // when it is tried again
	bare     bool      // another interface has the default route
}

// attempt is the config.Reports of the port of a session. Another one makes another path of the
// tunnel, so that the port begins again.
type attempt struct{ *session }

// current reports whether the attempt is the last one of the session.
func (a *attempt) current() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.session.attempt == a
}

// Granted implements config.Reports.
func (a *attempt) Granted(g config.Grant) {
	if a.current() {
		a.granted(g)
	}
}

// Connected implements config.Reports.
func (a *attempt) Connected(at netip.AddrPort, why error) {
	if a.current() {
		a.connected(at, why)
	}
}

// Said implements config.Reports.
func (a *attempt) Said(words string) {
	if a.current() {
		a.said(words)
	}
}

func newSession(s *Set, id identity, t *config.Tunnel) *session {
	one := &session{set: s, id: id, mode: t.Mode.Name, wake: make(chan struct{}, 1)}
	one.attempt = &attempt{one}
	one.log = s.Log.With(zap.String("tunnel", id.tunnel))
	one.status = api.Session{Server: serverOf(&id.client), State: api.SessionConnecting, Since: s.Clock.Now(), Attempts: map[string]uint64{"success": 0, "failure": 0}}
	return one
}

// serverOf returns the server as the file names it.
func serverOf(c *config.Client) string {
	host := c.Server.Name
	if host == "" {
		host = c.Server.Addr.String()
	}
	return host
}

// work returns what the session does on a goroutine of its own until a context ends; nil:
// nothing, because a port does.
func (s *session) work() func(context.Context) {
	switch of := s.id.client.Settings.(type) {
	case config.TIC:
		return func(ctx context.Context) { s.ask(ctx, &of) }
	case config.Heartbeat:
		return func(ctx context.Context) { s.beat(ctx, &of, s.id.client.Port, 0) }
	}
	return nil
}

// end ends the session. The Set's mutex is held.
func (s *session) end() {
	if s.stop != nil {
		s.stop()
	}
}

// usable returns the grant for the next configuration, and whether the engine does not have it
// yet: the last one, unless the engine has refused it or a new one has to wait.
func (s *session) usable(waits bool) (g *grant, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if waits || s.grant == s.rejected {
		return s.inUse, false
	}
	return s.grant, s.grant != s.inUse
}

// applied says that the engine runs a configuration with a grant.
func (s *session) applied(g *grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.inUse
	s.inUse = g
	if g == nil || g == before {
		return
	}
	s.rejected = nil
	if before == nil || !reflect.DeepEqual(before.Grant, g.Grant) {
		s.tell("the server grants "+describe(g), false)
	}
}

// reject says that the engine does not take a configuration with a grant.
func (s *session) reject(g *grant, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g == nil || g == s.inUse {
		return
	}
	s.rejected, s.retryAt = g, s.set.Clock.Now().Add(applyAgain)
	s.status.Error = fmt.Sprintf("what the server grants, %s, cannot be used here: %v", describe(g), err)
	s.tell(s.status.Error, true)
}

// tell reports an event. The mutex is held.
func (s *session) tell(what string, bad bool) {
	kind := api.EventSession
	if bad {
		kind = api.EventError
		s.log.Warn("session: "+what, zap.String("server", s.status.Server))
	} else {
		s.log.Info("session: "+what, zap.String("server", s.status.Server))
	}
	if s.set.Event != nil {
		s.set.Event(api.Event{At: s.set.Clock.Now(), Tunnel: s.id.tunnel, Kind: kind, Text: s.status.Server + ": " + what})
	}
}

// maxSaid is how much of a text of the server is kept, in bytes.
const maxSaid = 300

// said takes note of a text of the server.
func (s *session) said(words string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if words = text.Cut(text.Clean(words), maxSaid); words != s.status.Said && words != "" {
		s.status.Said = words
		s.tell("the server says: "+words, false)
	}
}

// granted takes note of what a server grants to the port.
func (s *session) granted(g config.Grant) {
	if s.take(&grant{Grant: g}) && g.Path != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked = s.set.Clock.Now()
		s.succeed() // the port has done what it had to
	}
}

// take takes what a server has granted. It reports whether it is safe.
func (s *session) take(g *grant) bool {
	g.at = s.set.Clock.Now()
	why := s.unsafe(&g.Grant)
	s.mu.Lock()
	defer s.mu.Unlock()
	if why != "" {
		s.fail("what the server grants is refused: " + why)
		return false
	}
	if old := s.grant; old != nil && reflect.DeepEqual(old.Grant, g.Grant) && reflect.DeepEqual(old.beats, g.beats) && old.to == g.to {
		return true
	}
	s.grant = g
	s.set.poke()
	return true
}

// again begins the session of a port again, and takes back a path that was granted. Addresses
// stay. The mutex is held.
func (s *session) again() {
	s.attempt = &attempt{s}
	if s.grant != nil && s.grant.Path != nil {
		g := *s.grant
		g.Path, g.beats = nil, nil
		s.grant = &g
	}
	s.set.poke()
}

// connected takes note of the state of a connection.
func (s *session) connected(at netip.AddrPort, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.IsValid() {
		s.succeed()
		return
	}
	s.fail(s.advise(why))
}

// succeed notes a success. The mutex is held.
func (s *session) succeed() {
	s.status.Attempts["success"]++
	s.status.Error, s.status.Next = "", time.Time{}
	if s.enter(api.SessionUp) {
		s.tell("the session is up", false)
	}
}

// fail notes a failure, in words. The mutex is held.
func (s *session) fail(why string) {
	why = text.Cut(text.Clean(why), 2*maxSaid)
	s.status.Attempts["failure"]++
	changed := s.status.Error != why
	s.status.Error = why
	if s.enter(api.SessionRetrying) || changed {
		s.tell(why, true)
	}
}

// enter changes the state. It reports whether it was another one. The mutex is held.
func (s *session) enter(state string) bool {
	if s.status.State == state {
		return false
	}
	s.status.State, s.status.Since = state, s.set.Clock.Now()
	return true
}

// state returns the status.
func (s *session) state() *api.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Attempts = maps.Clone(st.Attempts)
	if g := s.inUse; g != nil {
		if g.Address.IsValid() {
			st.Address = g.Address.String()
		}
		for _, p := range g.Routed {
			st.Routed = append(st.Routed, p.String())
		}
		st.MTU, st.Granted, st.Type = g.MTU, g.at, kindOf(s.mode, g)
	}
	return &st
}

// The server is asked again when the other end has been down for downFor, then after the double
// of it, up to mostDown.
const (
	downFor  = 10 * time.Second
	mostDown = 10 * time.Minute
)

// look takes note of the state of the tunnel. It reports whether the session needs to know where
// packets go, and does not.
func (s *session) look(now Seen) (needs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.seen
	s.seen = now
	if !s.retryAt.IsZero() && s.rejected != nil && s.set.Clock.Now().After(s.retryAt) {
		s.rejected, s.retryAt = nil, time.Time{}
		s.set.poke()
	}
	if s.beats != nil && (before.Remote != now.Remote || before.Local != now.Local) {
		s.beats.Wake()
	}
	s.judge(now.Phase)
	needs = s.beats != nil && !now.Remote.IsValid()
	if now.Phase == api.Up {
		s.repeats = 0
	}
	if s.inUse == nil || s.mode != "tsp" && s.mode != "tic" {
		return needs
	}
	at, pause := s.set.Clock.Now(), min(downFor<<min(s.repeats, 8), mostDown)
	moved := s.inUse.Path != nil && before.Local.IsValid() && now.Local.IsValid() && before.Local != now.Local
	dead := now.Phase == api.Down && at.Sub(now.Since) >= pause && at.Sub(s.asked) >= pause
	if !moved && !dead {
		return needs
	}
	s.asked = at
	s.repeats++
	if s.mode == "tsp" {
		s.again()
	} else {
		s.kick()
	}
	return needs
}

// judge takes the state of the tunnel for that of the session, if the server never answers a
// message that it does not take. The mutex is held.
func (s *session) judge(phase api.Phase) {
	silent := s.silence()
	if silent == "" {
		return
	}
	switch {
	case phase == api.Down && s.status.State == api.SessionUp:
		s.silent = true
		s.fail(silent)
	case phase == api.Up && s.silent:
		s.silent = false
		s.succeed()
	}
}

// silence returns what it may mean that nothing comes from the server; "": a session ends then.
func (s *session) silence() string {
	port, identity := s.id.client.Port, s.id.client.Identity()
	kind := s.mode
	if g := s.inUse; g != nil && g.Path != nil {
		kind, identity = kindOf(s.mode, g), g.Address.Addr()
		port = config.HeartbeatPortNumber
		if kind == "ayiya" {
			port = config.AYIYAPortNumber
		}
	}
	const begins = "nothing comes from the server, which answers no message that it does not take: does it know the identity %v, is the password right, do both clocks agree within a minute, and does UDP port %d pass"
	switch kind {
	case "ayiya":
		return fmt.Sprintf(begins+"? Do both ends have the same hash?", identity, port)
	case "heartbeat", withHeartbeats:
		return fmt.Sprintf(begins+", and protocol 41?", identity, port)
	}
	return ""
}

// kick wakes the goroutine of the session.
func (s *session) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// withHeartbeats is what packets of 6in4 travel in whose server learns our address.
const withHeartbeats = "6in4 with heartbeats"

// kindOf returns what packets travel in.
func kindOf(mode string, g *grant) string {
	switch {
	case g.beats != nil:
		return withHeartbeats
	case g.Path != nil && g.Path.Encap == config.NoEncapsulation:
		return "6in4"
	case g.Path != nil:
		return g.Path.Encap
	}
	switch mode {
	case "tsp":
		return "UDP"
	case "json":
		return "TCP"
	}
	return mode
}

// describe returns a grant in words.
func describe(g *grant) string {
	words := "no address"
	if g.Address.IsValid() {
		words = g.Address.String()
	}
	for i, p := range g.Routed {
		if i == 0 {
			words += ", and routes "
		} else {
			words += " and "
		}
		words += p.String() + " to it"
	}
	return words
}
