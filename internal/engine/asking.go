package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/report"
)

// find returns the peer of a name, as report.Find does.
func (e *Engine) find(name string) (*peer, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var peers []*peer
	var names []report.PeerName
	for _, t := range e.tunnels {
		for _, p := range t.peers {
			peers, names = append(peers, p), append(names, p.name())
		}
	}
	at, err := report.Find(name, names)
	if err != nil {
		return nil, err
	}
	return peers[at], nil
}

// Ping sends echo requests to a peer's end of the tunnel. It calls each, which must not
// block, with the outcome of each request. It returns when all requests are answered or
// lost, or with ctx's error when ctx ends. If no inner address is known to answer, the
// requests go to the peer's outer address, or are GRE keepalives if the peer answers those.
func (e *Engine) Ping(ctx context.Context, r api.PingRequest, each func(api.PingReply)) error {
	if err := r.Check(); err != nil {
		return err
	}
	peer, err := e.find(r.Peer)
	if err != nil {
		return err
	}
	p := peer.inUse()
	return p.Echo.Ping(ctx, p, r, each)
}

// ProbeMTU searches for the largest packet that reaches a peer unfragmented, and calls
// each, which must not block, for every size tried. It fails if the peer answers no probe,
// or when ctx ends. The result changes no state.
func (e *Engine) ProbeMTU(ctx context.Context, peer string, each func(api.MTUProbe)) (api.MTUResult, error) {
	of, err := e.find(peer)
	if err != nil {
		return api.MTUResult{}, err
	}
	p := of.inUse()
	return p.Echo.SearchMTU(ctx, p, peer, each)
}

// Relay returns the relay or router of an automatic tunnel to which packets go now: the
// first that is not down, or the first if all are down. Invalid: there is none.
func (p *path) Relay() netip.Addr { return p.t.mech.Relay() }

// errRemoved means that a reload has removed the peer.
var errRemoved = errors.New("a reload has removed or replaced it: try again")

// Unreachable returns why nothing can be sent to a peer.
func (p *path) Unreachable() error {
	if p.IsForgotten() {
		return errRemoved
	}
	if phase, detail := p.report.Phase(); phase == api.Waiting {
		return fmt.Errorf("no packets can be sent: waiting for %s", detail)
	}
	return errors.New("no packets can be sent yet: try again")
}

// LastError returns the last error after the given time, if there is one.
func (p *path) LastError(since time.Time) string { return p.report.LastError(since) }
