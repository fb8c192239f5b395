package config

import "time"

// Bounds of keepalive: a peer that is probed more often than each second is known to
// be down no sooner, because an answer may take that long.
const (
	leastKeepalive = time.Second
	mostKeepalive  = 24 * time.Hour
)

func readKeepalive(r *report, e entry, d *draft) {
	if k, ok := durationOf(r, e, leastKeepalive, mostKeepalive, "no probes"); ok {
		d.Keepalive = k
	}
}

// mostDeadAfter is far more than makes sense.
const mostDeadAfter = 1000

func readDeadAfter(r *report, e entry, d *draft) {
	if n, _, ok := numberOf(r, e, 1, mostDeadAfter); ok {
		d.DeadAfter = int(n)
	}
}
