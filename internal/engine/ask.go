package engine

import (
	"context"
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

// asking is a series of an operator's questions to one peer.
type asking struct {
	p        *path
	q        question
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

// ask prepares questions to a peer. The caller must close the result.
func (e *Engine) ask(name string) (*asking, error) {
	p, err := e.find(name)
	if err != nil {
		return nil, err
	}
	a := &asking{p: p, heard: make(chan heardAt, maxAsked)}
	if err := a.renew(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return a, nil
}

// renew prepares for the present path.
func (a *asking) renew() error {
	p := a.p
	wire := p.Wire.Load()
	if wire == nil {
		return p.unreachable()
	}
	if wire == a.wire {
		return nil
	}
	a.wire = wire
	l := wire.Outer()
	a.q = question{way: wayOutside, kind: kindAsked, local: l.Local, remote: l.Remote}
	_, _, inside := probe.Ends(wire.Layers)
	proven := p.answersBy()
	switch {
	case p.t.automatic():
		relays := p.t.mech.relays().addrs
		if len(relays) == 0 {
			return errors.New("the tunnel takes outer addresses from the packets: it has no relay or router to ping")
		}
		down := addrs(&p.t.mech.down)
		a.q.remote = relays[max(0, slices.IndexFunc(relays, func(r netip.Addr) bool { return !slices.Contains(down, r) }))]
	case proven.way > wayInside && proven.way < wayOutside:
		a.q.way, a.q.between = proven.way, proven.between
	case inside:
		a.q.way = wayInside
	}
	a.shows = ""
	if a.q.way == wayOutside {
		a.shows = fmt.Sprintf("from the outer address %v, outside the tunnel", a.q.remote)
	}
	// Without fragmentation, and with a path MTU larger than any question.
	options := wire.Options
	options.StaticMTU = false
	var err error
	a.q.stack, err = encap.New(wire.Layers, api.MaxPingSize, options, nil, p.Record)
	return err
}

// errRemoved means that a reload has removed the peer.
var errRemoved = errors.New("a reload has removed or replaced it: try again")

// unreachable returns why nothing can be sent to a peer.
func (p *path) unreachable() error {
	if p.t.prober.hasForgotten(p) {
		return errRemoved
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Phase == api.Waiting {
		return fmt.Errorf("no packets can be sent: waiting for %s", p.state.Detail)
	}
	return errors.New("no packets can be sent yet: try again")
}

// send sends a question with the operator's number n.
func (a *asking) send(n, size int) error {
	if err := a.renew(); err != nil {
		return err
	}
	seq, err := a.p.asked.next(a.heard)
	if err != nil {
		return err
	}
	a.inFlight = append(a.inFlight, inFlight{seq, n, size, time.Now()})
	a.q.seq, a.q.size = seq, size
	if err := a.p.put(a.wire, a.q); err != nil {
		a.finish(len(a.inFlight) - 1)
		return err
	}
	return nil
}

// finish removes a question from those in flight.
func (a *asking) finish(i int) inFlight {
	f := a.inFlight[i]
	a.p.asked.forget(f.seq)
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

// wrong returns the last error after the given time, if there is one.
func (a *asking) wrong(since time.Time) string {
	a.p.mu.Lock()
	defer a.p.mu.Unlock()
	if a.p.trouble.At.After(since) {
		return a.p.trouble.What
	}
	return ""
}

func (a *asking) close() {
	for len(a.inFlight) > 0 {
		a.finish(0)
	}
}

// Ping sends echo requests to a peer's end of the tunnel. It calls each, which must not
// block, with the outcome of each request. It returns when all requests are answered or
// lost, or with ctx's error when ctx ends. If no inner address is known to answer, the
// requests go to the peer's outer address, or are GRE keepalives if the peer answers those.
func (e *Engine) Ping(ctx context.Context, r api.PingRequest, each func(api.PingReply)) error {
	if err := r.Check(); err != nil {
		return err
	}
	a, err := e.ask(r.Peer)
	if err != nil {
		return err
	}
	defer a.close()
	next, lost := time.NewTicker(r.Interval), time.NewTimer(0)
	defer next.Stop()
	defer lost.Stop()
	for sent := a.pingOne(0, r, each); sent < r.Count || len(a.inFlight) > 0; {
		if len(a.inFlight) > 0 {
			lost.Reset(time.Until(a.inFlight[0].at.Add(r.Timeout)))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case h := <-a.heard:
			if f, ok := a.answered(h); ok {
				each(api.PingReply{Seq: f.n, Size: f.size, RTT: h.at.Sub(f.at).Seconds(), Detail: a.shows})
			}
		case <-lost.C:
			for len(a.inFlight) > 0 && time.Since(a.inFlight[0].at) >= r.Timeout {
				f := a.finish(0)
				each(api.PingReply{Seq: f.n, Size: f.size, Lost: true, Detail: a.wrong(f.at)})
			}
		case <-next.C:
			if sent < r.Count {
				sent = a.pingOne(sent, r, each)
			}
		}
	}
	return nil
}

// pingOne sends the next request after sent others, and returns the new number.
func (a *asking) pingOne(sent int, r api.PingRequest, each func(api.PingReply)) int {
	if err := a.send(sent+1, r.Size); err != nil {
		each(api.PingReply{Seq: sent + 1, Size: r.Size, Lost: true, Detail: err.Error()})
	}
	return sent + 1
}
