package meeting

import (
	"context"
	"iter"
	"net/netip"
	"sync"

	"go.uber.org/zap"

	"sixfour/internal/datapath"
	"sixfour/internal/ports"
	"sixfour/internal/roaming"
)

// Set has the Paths of all tunnels. Its methods are for the control loop, except for
// Connected.
type Set struct {
	log      *zap.Logger
	sockets  *ports.Set
	exchange *roaming.Exchange
	answers  *ports.Senders // of the exchange
	moves    moves
}

// NewSet returns a Set. Use and Run must follow.
func NewSet(log *zap.Logger) *Set {
	return &Set{log: log, exchange: roaming.New(log), moves: moves{ready: make(chan struct{}, 1)}}
}

// Use sets the ports that are used.
func (s *Set) Use(sockets *ports.Set) { s.sockets, s.answers = sockets, sockets.NewSenders(1) }

// Run exchanges messages until ctx ends.
func (s *Set) Run(ctx context.Context) { s.exchange.Run(ctx) }

// Move is news of where the peer of a path is.
type Move struct {
	path *Path
	at   netip.AddrPort // zero: not there
	why  string         // why not
}

// Owner returns the path.
func (m *Move) Owner() Owner { return m.path.owner }

// Apply takes note of the news. It reports whether something has changed.
func (m *Move) Apply() bool {
	p := m.path
	if p.at == m.at && p.why == m.why {
		return false
	}
	if p.at.IsValid() && m.at.IsValid() {
		p.set.log.Info("the peer has another address", zap.Stringer("path", p), zap.Stringer("remote", m.at), zap.Stringer("before", p.at))
	}
	p.at, p.why = m.at, m.why
	return true
}

// moves are what the control loop does not know yet. Any goroutine may add to them, and never
// waits.
type moves struct {
	mu    sync.Mutex
	all   []Move
	ready chan struct{} // has a value if all is not empty
}

func (m *moves) add(one Move) {
	m.mu.Lock()
	m.all = append(m.all, one)
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// Ready returns a channel that has a value when Moves returns something.
func (s *Set) Ready() <-chan struct{} { return s.moves.ready }

// Moves returns the news since the last call, in their order.
func (s *Set) Moves() []Move {
	m := &s.moves
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.all
	m.all = nil
	return all
}

// Connected takes note of the state of a connection, as transport.Connected says.
func (s *Set) Connected(id any, at netip.AddrPort, why error) {
	m := Move{path: id.(*Path), at: at}
	if why != nil {
		m.why = why.Error()
	}
	s.moves.add(m)
}

// Update makes the exchange of messages follow the paths, after their ports were opened. It
// returns what handles arriving packets that may be messages; nil: nothing.
func (s *Set) Update(paths iter.Seq[*Path]) datapath.Messages {
	var listening []roaming.Listening
	var calling []roaming.Calling
	used := make(map[ports.Origin]bool)
	for p := range paths {
		secret, ok := p.secret()
		switch {
		case !ok:
		case !p.of.Listen:
			calling = append(calling, roaming.Calling{Secret: secret, Every: p.tunnel.Keepalive, Path: p})
		case p.awaits && s.sockets.Err(p.key) == nil:
			from := ports.Origin{Key: p.key, Mark: p.tunnel.FwMark}
			tx, err := s.answers.Open(from, p.need)
			if err != nil {
				p.why = err.Error()
				continue
			}
			used[from] = true
			listening = append(listening, roaming.Listening{Name: p.String(), Local: p.key.Local, Secret: secret, Tx: tx[0], Path: p})
		}
	}
	for _, err := range s.exchange.Set(listening, calling) {
		s.log.Error("a path cannot learn where its peer is", zap.Error(err))
	}
	s.answers.CloseUnused(func(o ports.Origin) bool { return used[o] })
	if len(listening)+len(calling) == 0 {
		return nil
	}
	return s.exchange.ReceivePacket
}
