package datapath

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

// dropLogInterval is the least time between two log lines about drops of one goroutine: a
// sender of invalid packets must not be able to fill the disk.
const dropLogInterval = time.Second

// Drops counts the packets that one goroutine drops, and logs some of them.
type Drops struct {
	log    *zap.Logger
	last   time.Time
	silent uint64 // drops not logged since last

	// For captures; nil: none.
	capturing *capture.Set
	tunnel    string // tunnel of the packets; "": none
	direction pcapng.Direction

	strangers *Strangers // stores unknown sources; nil: does not
}

// CountN counts n packets dropped for one reason. Pkt is one of them, or nil; err is the
// kernel's error, or nil.
func (d *Drops) CountN(c *Counters, r drop.Reason, n int, pkt []byte, err error) {
	c.Dropped(r, n)
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
