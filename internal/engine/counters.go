package engine

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sixfour/encap/drop"
	"sixfour/encap/header"
)

// counters are what the goroutines of one tunnel and direction have done. They
// add once per batch, or for a drop; anybody may read. They stand on cache lines
// of their own.
type counters struct {
	_       [64]byte
	packets atomic.Uint64
	bytes   atomic.Uint64
	drops   [drop.Count]atomic.Uint64
	_       [64]byte
}

// carried adds a batch of packets and their bytes.
func (c *counters) carried(packets, bytes int) {
	c.packets.Add(uint64(packets))
	c.bytes.Add(uint64(bytes))
}

// Traffic is what went one way, and what did not.
type Traffic struct {
	Packets uint64            `json:"packets"`
	Bytes   uint64            `json:"bytes"` // of inner packets
	Drops   map[string]uint64 `json:"drops"` // by reason, only those that happened
}

func (c *counters) traffic() Traffic {
	t := Traffic{c.packets.Load(), c.bytes.Load(), make(map[string]uint64)}
	for r := range c.drops {
		if n := c.drops[r].Load(); n > 0 {
			t.Drops[drop.Reason(r).String()] = n
		}
	}
	return t
}

// dropLogInterval is the least time between two log lines about drops of one
// goroutine: whoever sends us rubbish must not be able to fill the disk.
const dropLogInterval = time.Second

// drops counts the packets that one goroutine does not carry, and logs some.
type drops struct {
	*counters
	log    *zap.Logger
	last   time.Time
	silent uint64 // not logged since last
}

// count counts one packet under its reason.
func (d *drops) count(r drop.Reason, pkt []byte) {
	d.countN(r, 1, pkt, nil)
}

// countN counts n packets under one reason. Pkt is one of them, or nil; err is
// what the kernel said, or nil.
func (d *drops) countN(r drop.Reason, n int, pkt []byte, err error) {
	d.drops[r].Add(uint64(n))
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
	d.last, d.silent = now, 0
}
