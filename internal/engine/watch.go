package engine

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/netcfg"
	"sixfour/internal/netns"
	"sixfour/internal/recovery"
)

// watched identifies a namespace in which changes are followed, optionally with changes of
// neighbours.
type watched struct {
	namespace  string
	neighbours bool
}

// watchAll follows changes in our own namespace and in those of the tunnels' interfaces,
// and stops following others.
func (e *Engine) watchAll(tunnels []*tunnel) {
	wanted := map[watched]bool{{"", slices.ContainsFunc(tunnels, (*tunnel).wantsXDP)}: true}
	for _, t := range tunnels {
		if ns := t.cfg.Netns; ns != "" {
			wanted[watched{ns, false}] = true
		}
	}
	for w := range wanted {
		if _, ok := e.watched[w]; !ok {
			id, err := netns.Identify(w.namespace)
			if err == nil { // otherwise it is followed once it contains an interface
				e.watch(w, id)
			}
		}
	}
	for w := range e.watched {
		if !wanted[w] {
			e.unwatch(w)
		}
	}
}

// watching is a namespace whose changes are followed.
type watching struct {
	cancel context.CancelFunc
	id     netns.ID
}

// watch starts to follow changes in a namespace with the given identity.
func (e *Engine) watch(w watched, id netns.ID) {
	ctx, cancel := context.WithCancel(e.ctx)
	e.watched[w] = watching{cancel, id}
	e.wg.Go(func() {
		e.keepWatching(ctx, w.namespace, "interfaces and routes", func() error {
			return netcfg.Watch(ctx, w.namespace, w.neighbours, func(c netcfg.Change) { e.changed(w.namespace, c) })
		})
	})
	if !w.neighbours {
		return
	}
	e.wg.Go(func() { // a tunnel may send through AF_XDP, which bypasses IPsec
		e.keepWatching(ctx, "", "IPsec policies", func() error { return netcfg.WatchPolicies(ctx, e.somethingChanged) })
	})
}

// watchAgain is the pause before a failed watch is restarted.
const watchAgain = 5 * time.Second

// keepWatching follows changes until ctx ends, and retries after failures such as a lack of
// descriptors.
func (e *Engine) keepWatching(ctx context.Context, namespace, of string, watch func() error) {
	said := ""
	for {
		var err error
		recovery.Guard(e.log, "following changes of "+of, func() {
			err = errors.New("a bug in the daemon")
			err = watch()
		})
		if err == nil || ctx.Err() != nil {
			return
		}
		if err.Error() != said {
			said = err.Error()
			e.log.Warn("cannot follow changes of "+of+": they are noticed late", zap.String("netns", namespace), zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(watchAgain):
			e.somethingChanged() // there may have been changes meanwhile
		}
	}
}

func (e *Engine) unwatch(w watched) {
	if now, ok := e.watched[w]; ok {
		now.cancel()
		delete(e.watched, w)
	}
}

// watchNamespace follows the namespace in which a tunnel's interface was made, if no
// namespace or another one of the same name was followed until now.
func (e *Engine) watchNamespace(t *tunnel) {
	w := watched{t.cfg.Netns, false}
	if w.namespace == "" || e.watched[w].id == t.link.Namespace() {
		return
	}
	e.unwatch(w)
	e.watch(w, t.link.Namespace())
}

// changed handles a change reported for a namespace.
func (e *Engine) changed(namespace string, c netcfg.Change) {
	if c != (netcfg.Change{}) {
		e.touch(namespace, c)
	}
	e.somethingChanged()
}

// somethingChanged makes the control loop evaluate everything soon. It never blocks. Any
// goroutine may call it.
func (e *Engine) somethingChanged() {
	select {
	case e.notify <- struct{}{}:
	default:
	}
}

// touch marks the tunnels whose interface or route has changed.
func (e *Engine) touch(namespace string, c netcfg.Change) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, t := range e.tunnels {
		if t.cfg.Netns == namespace && (c.Link != 0 && t.index.Load() == int64(c.Link) || c.Replaced.IsValid() && slices.ContainsFunc(t.cfg.Routes, func(p netip.Prefix) bool { return p.Masked() == c.Replaced })) {
			t.touched.Store(true)
		}
	}
}
