package tunif

import (
	"sync"

	"go.uber.org/zap"

	"sixfour/encap/drop"
	"sixfour/internal/datapath"
	"sixfour/internal/iface"
)

// overflow counts packets for which the queues of a tunnel's interface had no room. The
// kernel counts them itself; its counter is read when a status is requested.
type overflow struct {
	mu   sync.Mutex
	link *iface.Link // nil: the interface is gone
	lost uint64      // of that interface, already counted
}

// watch starts counting for an interface.
func (o *overflow) watch(link *iface.Link) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.link = link
	o.lost, _ = link.Dropped() // if this fails, look fails later as well
}

// look adds the packets lost since the last call. Any goroutine may call it.
func (o *overflow) look(t *datapath.Tunnel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.link == nil {
		return
	}
	n, err := o.link.Dropped()
	if err != nil || n <= o.lost {
		return
	}
	t.Out.Dropped(drop.NoRoom, int(n-o.lost))
	t.Log.Named("out").Warn("dropped", zap.Stringer("reason", drop.NoRoom), zap.Uint64("packets", n-o.lost))
	o.lost = n
}

// end adds the last lost packets and stops counting.
func (o *overflow) end(t *datapath.Tunnel) {
	o.look(t)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.link = nil
}
