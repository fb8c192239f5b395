package probing

import (
	"context"
	"time"

	"sixfour/internal/api"
)

// Ping sends echo requests to a peer's end of the tunnel. It calls each, which must not
// block, with the outcome of each request. It returns when all requests are answered or
// lost, or with ctx's error when ctx ends. If no inner address is known to answer, the
// requests go to the peer's outer address, or are GRE keepalives if the peer answers those.
func (e *Echo) Ping(ctx context.Context, p Peer, r api.PingRequest, each func(api.PingReply)) error {
	a, err := e.ask(p, r.Peer)
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
				each(api.PingReply{Seq: f.n, Size: f.size, Lost: true, Detail: a.peer.LastError(f.at)})
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
	if err := a.sendOne(sent+1, r.Size); err != nil {
		each(api.PingReply{Seq: sent + 1, Size: r.Size, Lost: true, Detail: err.Error()})
	}
	return sent + 1
}
