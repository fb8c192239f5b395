package tally

import (
	"sixfour/encap/drop"
	"sixfour/encap/header"
	"sixfour/internal/capture"
	"sixfour/internal/pcapng"
	"time"

	"go.uber.org/zap"
)

// dropLogInterval is the least time between two log lines about drops of one goroutine: a
// sender of invalid packets must not be able to fill the disk.
const dropLogInterval = time.Second

// Drops counts the packets that one goroutine drops, and logs some of them.
type Drops struct {
	Log *zap.Logger

	// For captures.
	Captures  *capture.Set
	Tunnel    string // tunnel of the packets; "": none
	Direction pcapng.Direction

	Strangers *Strangers // stores the sources of drop.ForeignSource; nil: does not

	last   time.Time
	silent uint64 // drops not logged since last
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
	d.Log.Warn("dropped", fields...)
	if r == drop.ForeignSource && d.Strangers != nil {
		d.Strangers.note(pkt, now)
	}
	d.last, d.silent = now, 0
}

// Lose counts and logs one or more packets that are not carried, and shows them to the
// captures.
func (d *Drops) Lose(c *Counters, p *capture.Packet) {
	pkt := p.Outer.Head
	if len(pkt) == 0 {
		pkt = p.Inner.Head
	}
	d.CountN(c, p.Reason, max(p.Count, 1), pkt, p.Err)
	if seen := d.Captures.Taps(); seen != nil {
		p.Direction = d.Direction
		seen.Show(d.Tunnel, p)
	}
}

// isLinkChatter reports whether a packet has a link-local multicast destination (RFC 4291
// section 2.7). The kernel sends such packets by itself, for example to find routers, even
// on tunnels where no host receives them.
func isLinkChatter(pkt []byte) bool {
	return header.Version(pkt) == 6 && len(pkt) >= header.IPv6Len && pkt[24] == 0xff && pkt[25]&0x0f == 2
}
