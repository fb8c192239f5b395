package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Other programs that run on the machine distort a measurement: a turn waits until they
// do little, and is repeated if they ran during it.
const (
	quietShare  = 0.08 // of all processors' time, at most
	quietSample = 400 * time.Millisecond
	attempts    = 3
)

// quiet waits until other programs do little, for at most a time, and returns the busy share
// of the machine's time. If they never do, it returns the share of the last sample.
func quiet(ctx context.Context, most time.Duration) (float64, error) {
	end := time.Now().Add(most)
	for {
		before, err := readTimes()
		if err != nil {
			return 0, err
		}
		select {
		case <-time.After(quietSample):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		after, err := readTimes()
		if err != nil {
			return 0, err
		}
		busy := 1 - (after.idle-before.idle).Seconds()/max(after.all-before.all, clockTick).Seconds()
		if busy <= quietShare || time.Now().After(end) {
			return busy, nil
		}
	}
}

// usage is processor time since a fixed point in the past.
type usage struct{ all, processes, lab time.Duration }

// usage returns the processor time of the whole machine, the time that all processes
// used (and that the machine's host took away), and the time that this process and the
// daemons used.
func (l *lab) usage() (u usage, err error) {
	t, err := readTimes()
	if err != nil {
		return u, err
	}
	u.all, u.processes = t.all, t.processes
	if u.lab, err = l.cpu(); err != nil {
		return u, err
	}
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		return u, os.NewSyscallError("getrusage", err)
	}
	u.lab += time.Duration(own.Utime.Nano() + own.Stime.Nano())
	return u, nil
}

// others returns the share of the machine's time since before that other programs used.
// It does not count time in interrupts, which belongs to no process and is mostly caused
// by the load.
func (u usage) others(before usage) float64 {
	elsewhere := (u.processes - before.processes) - (u.lab - before.lab)
	return max(0, elsewhere.Seconds()/max(u.all-before.all, clockTick).Seconds())
}

// times are sums over all processors.
type times struct{ all, idle, processes time.Duration }

// readTimes reads the first line of proc_stat(5): user, nice, system, idle, iowait, irq,
// softirq, steal.
func readTimes() (t times, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return t, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return t, fmt.Errorf("/proc/stat: %q has not the fields that Linux writes", line)
	}
	for i, field := range fields[1:9] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			return t, fmt.Errorf("/proc/stat: %w", err)
		}
		v := time.Duration(ticks) * clockTick
		t.all += v
		switch i {
		case 3, 4:
			t.idle += v
		case 0, 1, 2, 7:
			t.processes += v
		}
	}
	return t, nil
}
