package engine

import (
	"context"
	"errors"
	"slices"

	"go.uber.org/zap"

	"sixfour/internal/netcfg"
)

// watched is a namespace in which changes are followed, perhaps also those of
// neighbours.
type watched struct {
	namespace  string
	neighbours bool
}

// watchAll follows what changes in our own namespace and in those of the tunnels'
// interfaces, and no longer in others.
func (e *Engine) watchAll(tunnels []*tunnel) {
	wanted := map[watched]bool{{"", slices.ContainsFunc(tunnels, (*tunnel).wantsXDP)}: true}
	for _, t := range tunnels {
		if ns := t.cfg.Netns; ns != "" {
			wanted[watched{ns, false}] = true
		}
	}
	for w := range wanted {
		if e.watched[w] == nil {
			ctx, cancel := context.WithCancel(e.ctx)
			e.watched[w] = cancel
			e.watch(ctx, w)
		}
	}
	for w, cancel := range e.watched {
		if !wanted[w] {
			cancel()
			delete(e.watched, w)
		}
	}
}

// watch follows what changes in a namespace until ctx ends.
func (e *Engine) watch(ctx context.Context, w watched) {
	e.wg.Go(func() {
		var err error
		guarded(e.log, "follow changes of interfaces and routes", func() {
			err = errors.New("the daemon failed by a fault of its own")
			err = netcfg.Watch(ctx, w.namespace, w.neighbours, func(link int) { e.changed(w.namespace, link) })
		})
		if err != nil {
			e.log.Warn("changes of interfaces and routes are noticed late", zap.String("netns", w.namespace), zap.Error(err))
		}
	})
	if !w.neighbours {
		return
	}
	e.wg.Go(func() { // somebody sends through AF_XDP, which goes past IPsec
		if err := netcfg.WatchPolicies(ctx, e.somethingChanged); err != nil {
			e.log.Warn("changes of IPsec policies are noticed late", zap.Error(err))
		}
	})
}

// changed notes that something around us changed: a link of a namespace, or, if
// its index is 0, something else.
func (e *Engine) changed(namespace string, link int) {
	if link != 0 {
		e.touch(namespace, link)
	}
	e.somethingChanged()
}

// somethingChanged has the control loop look at everything soon. Any goroutine may
// call it.
func (e *Engine) somethingChanged() {
	select {
	case e.notify <- struct{}{}:
	default:
	}
}

// touch notes whose link it is.
func (e *Engine) touch(namespace string, link int) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, t := range e.tunnels {
		if t.cfg.Netns == namespace && t.index.Load() == int64(link) {
			t.touched.Store(true)
		}
	}
}
