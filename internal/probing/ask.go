package probing

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sixfour/encap"
	"sixfour/internal/api"
	"sixfour/internal/datapath"
	"sixfour/internal/probe"
)

// asked holds the operators' questions that wait for an answer.
type asked struct {
	mu      sync.Mutex
	seq     uint16
	waiting map[uint16]chan<- heardAt // by sequence number; nil: none
}

// heardAt is an answer and its time of arrival.
type heardAt struct {
	seq uint16
	at  time.Time
}

// maxAsked limits the waiting questions about one peer.
const maxAsked = 1000

var errBusy = errors.New("too many pings and MTU tests run at the same time: try again later")

// next returns the number of a new question. The answer will be sent to the channel, if the
// channel has room.
func (a *asked) next(to chan<- heardAt) (uint16, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) >= maxAsked {
		return 0, errBusy
	}
	if a.waiting == nil {
		a.waiting = make(map[uint16]chan<- heardAt)
	}
	for a.waiting[a.seq] != nil {
		a.seq++
	}
	a.seq++
	a.waiting[a.seq-1] = to
	return a.seq - 1, nil
}

// forget releases a number. It must be called for each number from next.
func (a *asked) forget(seq uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, seq)
	if len(a.waiting) == 0 {
		a.waiting = nil
	}
}

// answer passes on an answer.
func (a *asked) answer(seq uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if to := a.waiting[seq]; to != nil {
		select {
		case to <- heardAt{seq, time.Now()}:
		default: // more than one answer to a question
		}
	}
}

// Peer is what an operator's questions need to know of the peer that is asked.
type Peer interface {
	// Relay returns the relay or router of an automatic tunnel to which packets go now;
	// invalid: there is none.
	Relay() netip.Addr
	// Unreachable returns why nothing can be sent to the peer at present.
	Unreachable() error
	// LastError returns the last error after the given time, if there is one.
	LastError(since time.Time) string
}

// asking is a series of an operator's questions to one peer.
type asking struct {
	echo     *Echo
	peer     Peer
	q        Request
	wire     *datapath.Wire
	shows    string // what an answer shows, if not that the tunnel works
	heard    chan heardAt
	inFlight []inFlight // questions in flight, in the order of sending
}

// inFlight is a question in flight: sent, but not answered.
type inFlight struct {
	seq  uint16
	n    int // the operator's number
	size int
	at   time.Time
}

// ask prepares questions to a peer of the given name. The caller must close the result.
func (e *Echo) ask(p Peer, name string) (*asking, error) {
	a := &asking{echo: e, peer: p, heard: make(chan heardAt, maxAsked)}
	if err := a.renew(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return a, nil
}

// renew prepares for the present wire of the path.
func (a *asking) renew() error {
	wire := a.echo.path.Wire.Load()
	if wire == nil {
		return a.peer.Unreachable()
	}
	if wire == a.wire {
		return nil
	}
	a.wire = wire
	l := wire.Outer()
	a.q = Request{Way: Outside, Local: l.Local, Remote: l.Remote, purpose: forOperator}
	_, _, inside := probe.Ends(wire.Layers)
	proven := a.echo.Proof()
	switch {
	case wire.Automatic():
		if a.q.Remote = a.peer.Relay(); !a.q.Remote.IsValid() {
			return errors.New("the tunnel takes outer addresses from the packets: it has no relay or router to ping")
		}
	case proven.Way > Inside && proven.Way < Outside:
		a.q.Way, a.q.Between = proven.Way, proven.between
	case inside:
		a.q.Way = Inside
	}
	a.shows = ""
	if pair, ok := a.echo.between(wire); ok && a.q.Way == Outside {
		a.q.Way, a.q.Between = Between, pair
	}
	if a.q.Way == Outside && inConnection(wire) {
		return errors.New("no inner address of the peer is known, and packets outside the connection do not show whether it works: set probe to an inner address of the peer that answers pings")
	}
	if a.q.Way == Outside {
		a.shows = fmt.Sprintf("from the outer address %v, outside the tunnel", a.q.Remote)
	}
	// Without fragmentation, and with a path MTU larger than any question.
	options := wire.Options
	options.StaticMTU = false
	var err error
	a.q.Stack, err = encap.New(wire.Layers, api.MaxPingSize, options, nil, a.echo.path.Record)
	return err
}

// sendOne sends a question with the operator's number n.
func (a *asking) sendOne(n, size int) error {
	if err := a.renew(); err != nil {
		return err
	}
	seq, err := a.echo.asked.next(a.heard)
	if err != nil {
		return err
	}
	a.inFlight = append(a.inFlight, inFlight{seq, n, size, time.Now()})
	a.q.Seq, a.q.size = seq, size
	if err := a.echo.send(a.wire, a.q); err != nil {
		a.finish(len(a.inFlight) - 1)
		return err
	}
	return nil
}

// finish removes a question from those in flight.
func (a *asking) finish(i int) inFlight {
	f := a.inFlight[i]
	a.echo.asked.forget(f.seq)
	a.inFlight = slices.Delete(a.inFlight, i, i+1)
	return f
}

// answered handles an answer; false: the question was already answered or given up.
func (a *asking) answered(h heardAt) (inFlight, bool) {
	if i := slices.IndexFunc(a.inFlight, func(f inFlight) bool { return f.seq == h.seq }); i >= 0 {
		return a.finish(i), true
	}
	return inFlight{}, false
}

// close gives up the questions in flight.
func (a *asking) close() {
	for len(a.inFlight) > 0 {
		a.finish(0)
	}
}
