package probing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sixfour/encap"
	"sixfour/internal/api"
	"sixfour/internal/pathmtu"
)

// Parameters of a search. Every path carries probeLeast bytes, and nearly every path
// probeUsual. A size is too large if probeTries probes are not answered. The timeout is
// four round trips, but at least probePatient.
const (
	probeLeast   = 128
	probeUsual   = 1280
	probeTries   = 3
	probePatient = 300 * time.Millisecond
)

// SearchMTU searches for the largest packet that reaches a peer unfragmented, and calls
// each, which must not block, for every size tried. It fails if the peer answers no probe,
// or when ctx ends. The result changes no state.
func (e *Echo) SearchMTU(ctx context.Context, p Peer, name string, each func(api.MTUProbe)) (api.MTUResult, error) {
	a, err := e.ask(p, name)
	if err != nil {
		return api.MTUResult{}, err
	}
	defer a.close()
	rtt, err := a.passes(ctx, probeLeast, api.PingTimeout)
	if err != nil {
		return api.MTUResult{}, err
	}
	if rtt == 0 {
		return api.MTUResult{}, fmt.Errorf("%s answers no probes, not even small ones: the path MTU cannot be measured; sixfourctl status shows the value in use", name)
	}
	each(api.MTUProbe{Size: probeLeast, Answered: true})
	patience := min(max(probePatient, 4*rtt), api.MaxPingTimeout)
	good, bad := probeLeast, int(a.wire.Hop.MTU)+1
	for size := bad - 1; good+1 < bad; size = (good + bad) / 2 {
		if good == probeLeast && bad <= int(a.wire.Hop.MTU) && bad > probeUsual {
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
	mtu := encap.MTU(a.wire.Layers, encap.PathMTU(good), a.wire.Options, false)
	return api.MTUResult{PathMTU: good, TunnelMTU: int(mtu), By: string(pathmtu.Probe)}, nil
}

// passes sends packets of a size until one is answered, and returns the round-trip time; 0:
// none was answered.
func (a *asking) passes(ctx context.Context, size int, patience time.Duration) (time.Duration, error) {
	lost := time.NewTimer(0)
	defer lost.Stop()
	for n := range probeTries {
		if err := a.sendOne(n+1, size); err != nil {
			if a.echo.path.Wire.Load() == nil || errors.Is(err, errBusy) {
				return 0, err
			}
			continue // larger than the MTU of the first hop
		}
		lost.Reset(patience)
	wait:
		for {
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case h := <-a.heard:
				if f, ok := a.answered(h); ok && f.size == size {
					return max(1, h.at.Sub(f.at)), nil
				}
			case <-lost.C:
				break wait
			}
		}
	}
	for len(a.inFlight) > 0 {
		a.finish(0)
	}
	return 0, nil
}
