package ayiya

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/ayiya"
	"sixfour/encap/header"
	"sixfour/transport"
)

// timing is how long things take. Tests have other values.
type timing struct {
	interval time.Duration // between heartbeats, if the settings do not say it
	first    time.Duration // between the first heartbeats, and after an error
	firsts   int           // how many there are, with an echo request each
	patience time.Duration // after which a server is connected that answers nothing
	lost     int           // intervals of silence after which a server that answers is not connected
	pause    time.Duration // after a shutdown
}

var usualTiming = timing{
	interval: DefaultHeartbeat, first: time.Second, firsts: 3, patience: 3 * time.Second, lost: 3, pause: ayiya.ShutdownPause,
}

// peer is a server of a port.
type peer struct {
	port     *Port
	remote   netip.AddrPort
	settings *Settings
	key      ayiya.Key
	client   identity
	nonce    [8]byte // in our echo requests

	up   atomic.Bool  // connected
	sent atomic.Int64 // when something was sent, in nanoseconds since the epoch of the process

	own    sync.Mutex // guards signer
	signer ayiya.Signer

	mu sync.Mutex // guards peerState
	peerState
}

// peerState is what changes of a server.
type peerState struct {
	id       any
	removed  bool
	problem  string // that was reported last; "": none
	recent   ayiya.Recent
	heard    time.Time // when a valid packet came
	answers  bool      // the server answers echo requests
	began    time.Time // when the first heartbeat was sent; zero: none was
	beats    int       // since then
	asked    time.Time // when the last echo request was sent
	tryAgain time.Time // no heartbeat before
	paused   bool      // shut down until then
}

// epoch is when the process began, for times in atomic values.
var epoch = time.Now()

func newPeer(p *Port, l transport.SessionPeer) *peer {
	s := l.Settings.(*Settings)
	h := s.Hash
	if h == 0 {
		h = ayiya.SHA1
	}
	n := &peer{
		port: p, remote: l.Remote, settings: s, peerState: peerState{id: l.ID},
		key: ayiya.NewKey(h, s.Secret), client: ayiya.Identity(s.Client),
	}
	_, _ = rand.Read(n.nonce[:]) // never fails
	return n
}

// report calls Connected, with an error only if it is another one than before. The caller
// holds mu.
func (s *peer) report(why error) {
	if s.removed {
		return
	}
	at, problem := s.remote, ""
	if why != nil {
		at, problem = netip.AddrPort{}, why.Error()
	}
	if up := why == nil; s.up.Load() == up && s.problem == problem {
		return
	}
	s.up.Store(why == nil)
	s.problem = problem
	if f := s.port.config.Connected; f != nil {
		f(s.id, at, why)
	}
}

// rename gives a server another ID. By that, it has not been reported yet.
func (s *peer) rename(id any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == s.id {
		return
	}
	s.id = id
	if f := s.port.config.Connected; f != nil && s.up.Load() {
		f(id, s.remote, nil)
	}
}

// remove makes sure that nothing is reported any more.
func (s *peer) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = true
	s.up.Store(false)
}

// run sends heartbeats until the port is closed.
func (p *Port) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-p.closed:
			return
		case <-p.wake:
		case <-timer.C:
		}
		now := time.Now()
		next := now.Add(MaxHeartbeat)
		for _, s := range *p.peers.Load() {
			if at := s.step(now); at.Before(next) {
				next = at
			}
		}
		timer.Reset(max(0, time.Until(next)))
	}
}

func (s *peer) interval() time.Duration {
	if s.settings.Heartbeat > 0 {
		return s.settings.Heartbeat
	}
	return s.port.timing.interval
}

// step does what is due, and returns when something will be.
func (s *peer) step(now time.Time) (next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, interval := &s.port.timing, s.interval()
	if s.removed {
		return now.Add(MaxHeartbeat)
	}
	if now.Before(s.tryAgain) {
		return s.tryAgain
	}
	if s.paused {
		s.paused, s.answers, s.beats, s.began, s.heard = false, false, 0, time.Time{}, time.Time{}
	}
	silent := now.Sub(s.heard) // long, if nothing was received yet
	if s.up.Load() && s.answers && silent > time.Duration(t.lost)*interval {
		s.report(fmt.Errorf("the AYIYA server %v has not answered for %v", s.remote, silent.Round(time.Second)))
	}
	due := epoch.Add(time.Duration(s.sent.Load())).Add(interval)
	early := s.beats < t.firsts && !s.up.Load()
	if ask := early || s.answers && silent >= interval && now.Sub(s.asked) >= interval; ask {
		if err := s.beat(now, true); err != nil {
			return s.failed(now, err)
		}
	} else if !now.Before(due) {
		if err := s.beat(now, false); err != nil {
			return s.failed(now, err)
		}
	}
	if !s.up.Load() && !s.answers && now.Sub(s.began) >= t.patience {
		s.report(nil)
	}
	return s.next(now)
}

// next returns when step has something to do again. The caller holds mu.
func (s *peer) next(now time.Time) time.Time {
	t, interval := &s.port.timing, s.interval()
	next := epoch.Add(time.Duration(s.sent.Load())).Add(interval)
	sooner := func(at time.Time) {
		if at.After(now) && at.Before(next) {
			next = at
		}
	}
	if s.beats < t.firsts && !s.up.Load() {
		s.tryAgain = now.Add(t.first)
		sooner(s.tryAgain)
	}
	if !s.up.Load() && !s.answers {
		sooner(s.began.Add(t.patience))
	}
	if s.answers {
		sooner(s.heard.Add(interval))
		sooner(s.asked.Add(interval))
	}
	return next
}

// beat sends a heartbeat, and an echo request before it: of the first packets, a server may
// answer only the one for which it has looked the client up. The caller holds mu.
func (s *peer) beat(now time.Time, ask bool) error {
	if ask {
		s.asked = now
		if err := s.say(ayiya.EchoRequest, s.nonce[:], now); err != nil {
			return err
		}
	}
	if err := s.say(ayiya.Noop, nil, now); err != nil {
		return err
	}
	if s.beats++; s.began.IsZero() {
		s.began = now
	}
	return nil
}

// failed notes that the port could not send. The caller holds mu.
func (s *peer) failed(now time.Time, err error) time.Time {
	if !errors.Is(err, unix.ENOBUFS) {
		s.report(fmt.Errorf("send to the AYIYA server %v: %w", s.remote, err))
	}
	s.began, s.beats = time.Time{}, 0
	s.tryAgain = now.Add(s.port.timing.first)
	return s.tryAgain
}

// say sends a message.
func (s *peer) say(op ayiya.OpCode, payload []byte, now time.Time) error {
	b := append(make([]byte, room, room+len(payload)), payload...)
	o := outer(s.port.Local(), netip.AddrPort{}, s.remote)
	h := ayiya.Header{Op: op, Next: ayiya.NextNone, Epoch: ayiya.Epoch(now), Identity: s.client}
	s.own.Lock()
	defer s.own.Unlock()
	if err := s.port.tx.SendOne(seal(b, &o, &h, &s.key, &s.signer)); err != nil {
		return err
	}
	s.sent.Store(int64(now.Sub(epoch)))
	return nil
}

// open returns the inner packet of a datagram from the server's address; nil: it has none, or
// is not valid.
func (s *peer) open(b []byte, o *header.Outer, now time.Time) []byte {
	m, err := ayiya.Parse(b)
	if err != nil {
		return nil
	}
	id, ok := m.Address()
	if !ok || id == s.client || s.settings.Server.IsValid() && id != s.settings.Server.As16() || !m.Verify(&s.key) {
		return nil
	}
	if !s.accept(&m, now) {
		return nil
	}
	switch m.Op {
	case ayiya.Forward, ayiya.EchoForward:
		if m.Op == ayiya.EchoForward {
			_ = s.say(ayiya.EchoResponse, m.Payload, now)
		}
		return m.Payload
	case ayiya.EchoRequest:
		_ = s.say(ayiya.EchoResponse, m.Payload, now)
	case ayiya.MOTD:
		s.notice(&m)
	case ayiya.QueryRequest:
		s.answer(&m, now)
	}
	return nil
}

// accept reports whether a verified packet is valid now and no copy.
func (s *peer) accept(m *ayiya.Message, now time.Time) bool {
	window := s.settings.Window
	if window == 0 {
		window = ayiya.DefaultWindow
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removed || s.paused {
		return false
	}
	if skew := ayiya.Skew(m.Epoch, now); skew > window || skew < -window {
		if !s.up.Load() {
			s.report(fmt.Errorf("the clock of this host and that of the AYIYA server %v differ by %v: set the clock (NTP)", s.remote, skew.Abs()))
		}
		return false
	}
	if s.recent.Check(m) == ayiya.Copy {
		return false
	}
	s.recent.Add(m, window)
	if s.heard = now; m.Op == ayiya.EchoResponse && subtle.ConstantTimeCompare(m.Payload, s.nonce[:]) == 1 {
		s.answers = true
	}
	s.report(nil)
	return true
}

// notice reports a message of the day.
func (s *peer) notice(m *ayiya.Message) {
	n, err := m.Notice()
	if err != nil {
		return
	}
	text := n.Title
	for _, more := range []string{n.Text, n.URL} {
		if more != "" {
			text += " " + more
		}
	}
	s.said(text)
}

func (s *peer) said(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.port.config.Said; f != nil && !s.removed {
		f(s.id, text)
	}
}

// errShutdown is why a tunnel is down that the server has shut down.
var errShutdown = errors.New("the server has shut the tunnel down")

// answer answers a query of the server.
func (s *peer) answer(m *ayiya.Message, now time.Time) {
	number, name := m.Query()
	text := ""
	switch name {
	case ayiya.QueryVersion:
		text = version
	case ayiya.QueryOuterEndpoint:
		text = s.port.Local().String()
	case ayiya.QueryShutdown:
		text = name
	}
	_ = s.say(ayiya.QueryResponse, ayiya.AppendQuery(nil, number, text), now)
	if name != ayiya.QueryShutdown {
		return
	}
	pause := s.port.timing.pause
	s.said(fmt.Sprintf("%v; the next attempt is in %v", errShutdown, pause))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused, s.tryAgain = true, now.Add(pause)
	s.report(fmt.Errorf("the AYIYA server %v: %w; the next attempt is in %v", s.remote, errShutdown, pause))
}
