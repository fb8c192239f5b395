// Package tally counts packets: those that are carried, and those that are dropped, with the
// reason. Drops are also logged, at a limited rate, and shown to the running captures.
package tally

import (
	"sync/atomic"

	"sixfour/encap/drop"
	"sixfour/internal/api"
)

// Counters counts the packets of one peer, or of a tunnel as a whole, in one direction.
// Goroutines that carry packets add once per batch, or for each drop; any goroutine may
// read. The padding keeps counters that follow one another, and what follows them, on other
// cache lines.
type Counters struct {
	Packets atomic.Uint64
	bytes   atomic.Uint64
	drops   atomic.Pointer[dropCounts] // nil: no drops yet
	_       [40]byte
}

type dropCounts [drop.Count]atomic.Uint64

// Carried adds a batch of packets, and their bytes.
func (c *Counters) Carried(packets, bytes int) {
	c.Packets.Add(uint64(packets))
	c.bytes.Add(uint64(bytes))
}

// Dropped adds packets under one reason.
func (c *Counters) Dropped(r drop.Reason, n int) {
	d := c.drops.Load()
	if d == nil {
		c.drops.CompareAndSwap(nil, new(dropCounts))
		d = c.drops.Load()
	}
	d[r].Add(uint64(n))
}

// Traffic returns the counts, and the drops by reason.
func (c *Counters) Traffic() api.Traffic {
	t := api.Traffic{Drops: make(map[string]uint64)}
	c.addTo(&t)
	return t
}

// addTo adds the counts to t.
func (c *Counters) addTo(t *api.Traffic) {
	t.Packets += c.Packets.Load()
	t.Bytes += c.bytes.Load()
	d := c.drops.Load()
	if d == nil {
		return
	}
	for r := range d {
		if n := d[r].Load(); n > 0 {
			t.Drops[drop.Reason(r).String()] += n
		}
	}
}
