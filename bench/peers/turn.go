package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// figures are the results of one turn, or the aggregate of several turns, by the key of
// a metric, or by a key that is only in the raw results. A figure that a peer does not
// have is missing.
type figures map[string]float64

// metric is one column of the tables.
type metric struct {
	key, title, unit string
	digits           int  // digits after the decimal point
	less             bool // smaller is better
	worst            bool // the worst of all turns counts, not the median; it has no ratio
}

// metrics are all columns, in order.
var metrics = []metric{
	{key: "tcp1", title: "TCP, 1 stream", unit: "Gbit/s", digits: 2},
	{key: "tcp4", title: "TCP, 4 streams", unit: "Gbit/s", digits: 2},
	{key: "both", title: "TCP, both ways", unit: "Gbit/s", digits: 2},
	{key: "cpu", title: "CPU", unit: "s/GB", digits: 2, less: true},
	{key: "pps", title: "64-byte UDP", unit: "packets/s"},
	{key: "reordered", title: "of them reordered", unit: "%", digits: 2, less: true, worst: true},
	{key: "p50", title: "round trip p50", unit: "µs", less: true},
	{key: "p99", title: "p99", unit: "µs", less: true},
	{key: "memory", title: "memory", unit: "MB", digits: 1, less: true},
}

const (
	// settle is how long queues may take to become empty between two loads.
	settle = 300 * time.Millisecond
	// roundTripTime is the longest time for which round trips are measured.
	roundTripTime = 2 * time.Second
)

// turn starts a peer, measures it, and stops it.
func turn(ctx context.Context, p peer, programs string, d time.Duration) (f figures, err error) {
	l, err := newLab(programs)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if p.up != nil {
		if err := p.up(ctx, l); err != nil {
			return nil, fmt.Errorf("bring up: %w", err)
		}
	}
	a, b := l.ends(p)
	if err := l.reach(ctx, b.addr); err != nil {
		return nil, fmt.Errorf("bring up: %w", err)
	}
	f = figures{}
	before, err := l.usage()
	if err != nil {
		return nil, err
	}
	for _, measure := range []func(context.Context, *lab, figures, end, end, time.Duration) error{
		measureTCP, measureMoreTCP, measureRoundTrips, measureFlood, measureMemory,
	} {
		if err := measure(ctx, l, f, a, b, d); err != nil {
			return f, errors.Join(err, l.broken())
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return f, ctx.Err()
		}
	}
	after, err := l.usage()
	f["others"] = after.others(before)
	return f, err
}

// measureTCP measures one stream, and the processor time that it costs the daemons.
func measureTCP(ctx context.Context, l *lab, f figures, a, b end, d time.Duration) error {
	before, err := l.cpu()
	if err != nil {
		return err
	}
	bytes, err := runTCP(ctx, []stream{{a, b}}, d)
	if err != nil {
		return err
	}
	after, err := l.cpu()
	if err != nil {
		return err
	}
	if bytes == 0 {
		return fmt.Errorf("TCP: nothing arrived in %v", d)
	}
	f["tcp1"] = gigabits(bytes, d)
	if len(l.daemons) > 0 {
		f["cpu"] = (after - before).Seconds() / (float64(bytes) / 1e9)
	}
	return nil
}

func measureMoreTCP(ctx context.Context, _ *lab, f figures, a, b end, d time.Duration) error {
	for key, streams := range map[string][]stream{
		"tcp4": {{a, b}, {a, b}, {a, b}, {a, b}},
		"both": {{a, b}, {b, a}},
	} {
		time.Sleep(settle)
		bytes, err := runTCP(ctx, streams, d)
		if err != nil {
			return err
		}
		f[key] = gigabits(bytes, d)
	}
	return nil
}

func measureRoundTrips(ctx context.Context, _ *lab, f figures, a, b end, d time.Duration) error {
	r, err := runPingPong(ctx, a, b, min(d, roundTripTime))
	if err != nil {
		return err
	}
	f["p50"] = microseconds(r.quantile(0.50))
	f["p99"] = microseconds(r.quantile(0.99))
	f["unanswered"] = float64(r.lost)
	return nil
}

func measureFlood(ctx context.Context, _ *lab, f figures, a, b end, d time.Duration) error {
	r, err := runFlood(ctx, a, b, d)
	if err != nil {
		return err
	}
	if r.delivered == 0 {
		return fmt.Errorf("UDP: nothing of %d datagrams arrived", r.sent)
	}
	f["pps"] = float64(r.delivered) / d.Seconds()
	f["offered"] = float64(r.sent) / d.Seconds()
	f["reordered"] = 100 * float64(r.reordered) / float64(r.delivered)
	return nil
}

// measureMemory is the last measurement, because daemons grow under load.
func measureMemory(_ context.Context, l *lab, f figures, _, _ end, _ time.Duration) error {
	if len(l.daemons) == 0 {
		return nil
	}
	bytes, err := l.resident()
	f["memory"] = float64(bytes) / 1e6
	return err
}

func gigabits(bytes int64, d time.Duration) float64 { return float64(bytes) * 8 / 1e9 / d.Seconds() }

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
