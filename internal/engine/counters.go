package engine

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/internal/api"
	"sixfour/internal/capture"
	"sixfour/internal/pcapng"
)

// counters counts the packets of one peer, or of a tunnel as a whole, in one direction.
// Goroutines that carry packets add once per batch, or for each drop; any goroutine may
// read. The padding puts the counters on cache lines of their own.
type counters struct {
	_       [64]byte
	packets atomic.Uint64
	bytes   atomic.Uint64
	drops   atomic.Pointer[dropCounts] // nil: no drops yet
	_       [64]byte
}

type dropCounts [drop.Count]atomic.Uint64

// carried adds a batch of packets, and their bytes.
func (c *counters) carried(packets, bytes int) {
	c.packets.Add(uint64(packets))
	c.bytes.Add(uint64(bytes))
}

// dropped adds packets under one reason.
func (c *counters) dropped(r drop.Reason, n int) {
	d := c.drops.Load()
	if d == nil {
		c.drops.CompareAndSwap(nil, new(dropCounts))
		d = c.drops.Load()
	}
	d[r].Add(uint64(n))
}

func (c *counters) traffic() api.Traffic {
	t := api.Traffic{Drops: make(map[string]uint64)}
	c.addTo(&t)
	return t
}

// addTo adds the counts to t.
func (c *counters) addTo(t *api.Traffic) {
	t.Packets += c.packets.Load()
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

// dropLogInterval is the least time between two log lines about drops of one goroutine: a
// sender of invalid packets must not be able to fill the disk.
const dropLogInterval = time.Second

// drops counts the packets that one goroutine drops, and logs some of them.
type drops struct {
	log    *zap.Logger
	last   time.Time
	silent uint64 // drops not logged since last

	// For captures; nil: none.
	capturing *capture.Set
	tunnel    string // tunnel of the packets; "": none
	direction pcapng.Direction

	strangers *strangers // stores unknown sources; nil: does not
}

// countN counts n packets dropped for one reason. Pkt is one of them, or nil; err is the
// kernel's error, or nil.
func (d *drops) countN(c *counters, r drop.Reason, n int, pkt []byte, err error) {
	c.dropped(r, n)
	if isLinkChatter(pkt) {
		return
	}
	d.silent += uint64(n)
	now := time.Now()
	if now.Sub(d.last) < dropLogInterval {
		return
	}
	fields := []zap.Field{zap.Stringer("reason", r), zap.Uint64("packets", d.silent)}
	switch v := header.Version(pkt); {
	case v == 4 && len(pkt) >= header.IPv4Len:
		fields = append(fields, zap.Stringer("from", header.IPv4(pkt).Src()), zap.Stringer("to", header.IPv4(pkt).Dst()))
	case v == 6 && len(pkt) >= header.IPv6Len:
		fields = append(fields, zap.Stringer("from", header.IPv6(pkt).Src()), zap.Stringer("to", header.IPv6(pkt).Dst()))
	}
	if err != nil {
		fields = append(fields, zap.Error(err))
	}
	d.log.Warn("dropped", fields...)
	if r == drop.ForeignSource && d.strangers != nil {
		d.strangers.note(pkt, now)
	}
	d.last, d.silent = now, 0
}

// isLinkChatter reports whether a packet has a link-local multicast destination (RFC 4291
// section 2.7). The kernel sends such packets by itself, for example to find routers, even
// on tunnels where no host receives them.
func isLinkChatter(pkt []byte) bool {
	return header.Version(pkt) == 6 && len(pkt) >= header.IPv6Len && pkt[24] == 0xff && pkt[25]&0x0f == 2
}
