// Package hostwatch follows what tunnels depend on in this host: changes of interfaces and
// routes, the addresses in network namespaces, and whether the kernel itself answers the
// packets that tunnels receive.
package hostwatch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/netcfg"
	"sixfour/internal/netns"
	"sixfour/internal/recovery"
)

// Watcher follows changes in network namespaces. One goroutine owns it.
type Watcher struct {
	ctx     context.Context
	wg      *sync.WaitGroup
	log     *zap.Logger
	changed func(namespace string, c netcfg.Change)

	watched map[watched]watching
}

// watched identifies a namespace in which changes are followed, optionally with changes of
// neighbours and of IPsec policies.
type watched struct {
	namespace  string
	neighbours bool
}

// watching is a namespace whose changes are followed.
type watching struct {
	cancel context.CancelFunc
	id     netns.ID
}

// NewWatcher returns a Watcher whose goroutines belong to wg and end with ctx. They call
// changed for each change; the zero Change means that something else has changed.
func NewWatcher(ctx context.Context, wg *sync.WaitGroup, log *zap.Logger, changed func(namespace string, c netcfg.Change)) *Watcher {
	return &Watcher{ctx: ctx, wg: wg, log: log, changed: changed, watched: make(map[watched]watching)}
}

// Follow follows changes in our own namespace and in others, and stops following those that
// are not in the list. In our own, it follows neighbours and IPsec policies if bypass is true:
// packets may then bypass the kernel's IP layer.
func (w *Watcher) Follow(namespaces []string, bypass bool) {
	wanted := []watched{{"", bypass}}
	for _, ns := range namespaces {
		if ns != "" && !slices.Contains(wanted, watched{ns, false}) {
			wanted = append(wanted, watched{ns, false})
		}
	}
	for _, one := range wanted {
		if _, ok := w.watched[one]; !ok {
			id, err := netns.Identify(one.namespace)
			if err == nil { // otherwise it is followed once it contains an interface
				w.start(one, id)
			}
		}
	}
	for one := range w.watched {
		if !slices.Contains(wanted, one) {
			w.stop(one)
		}
	}
}

// start starts to follow changes in a namespace with the given identity.
func (w *Watcher) start(one watched, id netns.ID) {
	ctx, cancel := context.WithCancel(w.ctx)
	w.watched[one] = watching{cancel, id}
	w.wg.Go(func() {
		w.keep(ctx, one.namespace, "interfaces and routes", func() error {
			return netcfg.Watch(ctx, one.namespace, one.neighbours, func(c netcfg.Change) { w.changed(one.namespace, c) })
		})
	})
	if !one.neighbours {
		return
	}
	w.wg.Go(func() {
		w.keep(ctx, "", "IPsec policies", func() error {
			return netcfg.WatchPolicies(ctx, func() { w.changed("", netcfg.Change{}) })
		})
	})
}

// again is the pause before a failed watch is restarted.
const again = 5 * time.Second

// keep follows changes until ctx ends, and retries after failures such as a lack of
// descriptors.
func (w *Watcher) keep(ctx context.Context, namespace, of string, watch func() error) {
	said := ""
	for {
		var err error
		recovery.Guard(w.log, "following changes of "+of, func() {
			err = errors.New("a bug in the daemon")
			err = watch()
		})
		if err == nil || ctx.Err() != nil {
			return
		}
		if err.Error() != said {
			said = err.Error()
			w.log.Warn("cannot follow changes of "+of+": they are noticed late", zap.String("netns", namespace), zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(again):
			w.changed(namespace, netcfg.Change{}) // there may have been changes meanwhile
		}
	}
}

func (w *Watcher) stop(one watched) {
	if now, ok := w.watched[one]; ok {
		now.cancel()
		delete(w.watched, one)
	}
}

// Lost stops following a namespace that was deleted.
func (w *Watcher) Lost(namespace string) { w.stop(watched{namespace, false}) }

// Made follows the namespace of the given name and identity in which an interface was made,
// if no namespace or another one of the same name was followed until now.
func (w *Watcher) Made(namespace string, id netns.ID) {
	one := watched{namespace, false}
	if namespace == "" || w.watched[one].id == id {
		return
	}
	w.stop(one)
	w.start(one, id)
}
