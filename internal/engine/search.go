package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sixfour/encap"
	"sixfour/internal/api"
	"sixfour/internal/pathmtu"
)

// Of a search: every path carries the first of these, and nearly every one the
// second. A size that is not answered so often does not pass; an answer is waited for
// four round trips, and not less than that.
const (
	probeLeast   = 128
	probeUsual   = 1280
	probeTries   = 3
	probePatient = 300 * time.Millisecond
)

// ProbeMTU searches for the largest packet that comes through to a peer whole, and
// calls each for every size that was tried. It fails if the peer answers nothing, or
// ctx ends. Nothing is changed by what it finds. Each must not block.
func (e *Engine) ProbeMTU(ctx context.Context, peer string, each func(api.MTUProbe)) (api.MTUResult, error) {
	a, err := e.ask(peer)
	if err != nil {
		return api.MTUResult{}, err
	}
	defer a.close()
	rtt, err := a.passes(ctx, probeLeast, api.PingTimeout)
	if err != nil {
		return api.MTUResult{}, err
	}
	if rtt == 0 {
		return api.MTUResult{}, fmt.Errorf("%s answers no probes, not even small ones: how large packets may be is not known that way; sixfourctl status shows what is known", peer)
	}
	each(api.MTUProbe{Size: probeLeast, Answered: true})
	patience := min(max(probePatient, 4*rtt), api.MaxPingTimeout)
	good, bad := probeLeast, int(a.path.link)+1
	for size := bad - 1; good+1 < bad; size = (good + bad) / 2 {
		if good == probeLeast && bad <= int(a.path.link) && bad > probeUsual {
			size = probeUsual
		}
		rtt, err := a.passes(ctx, size, patience)
		if err != nil {
			return api.MTUResult{}, err
		}
		each(api.MTUProbe{Size: size, Answered: rtt > 0})
		if rtt > 0 {
			good = size
		} else {
			bad = size
		}
	}
	mtu := encap.MTU(a.path.layers, encap.PathMTU(good), a.path.options, false)
	return api.MTUResult{PathMTU: good, TunnelMTU: int(mtu), By: string(pathmtu.Probe)}, nil
}

// passes sends packets of a size until one is answered, and returns how long that
// took; 0: none was.
func (a *asking) passes(ctx context.Context, size int, patience time.Duration) (time.Duration, error) {
	lost := time.NewTimer(0)
	defer lost.Stop()
	for n := range probeTries {
		if err := a.send(n+1, size); err != nil {
			if a.p.path.Load() == nil || errors.Is(err, errBusy) {
				return 0, err
			}
			continue // it is larger than the first hop takes
		}
		lost.Reset(patience)
	wait:
		for {
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case h := <-a.heard:
				if f, ok := a.take(h); ok && f.size == size {
					return max(1, h.at.Sub(f.at)), nil
				}
			case <-lost.C:
				break wait
			}
		}
	}
	for len(a.flying) > 0 {
		a.land(0)
	}
	return 0, nil
}
