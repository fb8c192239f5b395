package engine

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/internal/api"
	"sixfour/internal/pcapng"
)

// counters are what the goroutines of one peer, or of a tunnel for all of them,
// have done in one direction. They add once per batch, or for a drop; anybody may
// read. They stand on cache lines of their own.
type counters struct {
	_       [64]byte
	packets atomic.Uint64
	bytes   atomic.Uint64
	drops   atomic.Pointer[dropCounts] // nil: there were none
	_       [64]byte
}

type dropCounts [drop.Count]atomic.Uint64

// carried adds a batch of packets and their bytes.
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

// addTo adds what was counted.
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

// dropLogInterval is the least time between two log lines about drops of one
// goroutine: whoever sends us rubbish must not be able to fill the disk.
const dropLogInterval = time.Second

// drops logs packets that one goroutine does not carry, now and then one of many.
type drops struct {
	log    *zap.Logger
	last   time.Time
	silent uint64 // not logged since last

	// For captures; nil: there are none.
	capturing *capturing
	tunnel    string // whose packets these are; "": no tunnel's
	direction pcapng.Direction

	strangers *strangers // that are remembered; nil: none are
}

// countN counts n packets under one reason. Pkt is one of them, or nil; err is
// what the kernel said, or nil.
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

// isLinkChatter reports whether a packet is for all on its link (RFC 4291 section
// 2.7): the kernel says by itself who it is, or asks for routers, also on tunnels
// where nobody hears that.
func isLinkChatter(pkt []byte) bool {
	return header.Version(pkt) == 6 && len(pkt) >= header.IPv6Len && pkt[24] == 0xff && pkt[25]&0x0f == 2
}
