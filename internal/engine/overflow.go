package engine

import (
	"sync"

	"go.uber.org/zap"

	"sixfour/encap/drop"
	"sixfour/internal/netcfg"
)

// overflow is what the kernel had no room for in the queues of a tunnel's interface:
// it counts that itself, and is asked when somebody wants to know.
type overflow struct {
	mu   sync.Mutex
	link *netcfg.Link // nil: the interface is gone
	lost uint64       // that have been counted, of that interface
}

// watch counts from now on.
func (o *overflow) watch(link *netcfg.Link) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.link = link
	o.lost, _ = link.Lost() // where that cannot be asked now, it will not be later
}

// look counts what was lost since the last time. Any goroutine may call it.
func (o *overflow) look(t *tunnel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.link == nil {
		return
	}
	n, err := o.link.Lost()
	if err != nil || n <= o.lost {
		return
	}
	t.out.dropped(drop.NoRoom, int(n-o.lost))
	t.log.Named("out").Warn("dropped", zap.Stringer("reason", drop.NoRoom), zap.Uint64("packets", n-o.lost))
	o.lost = n
}

// end counts for the last time.
func (o *overflow) end(t *tunnel) {
	o.look(t)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.link = nil
}
