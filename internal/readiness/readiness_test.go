package readiness

import (
	"testing"
	"time"
)

// A complete start is reported at once, an incomplete one when its time is over, and later
// only changes.
func TestReport(t *testing.T) {
	now, told := Summary{Tunnels: 1}, 0
	report := func(r *Reporter, complete bool) time.Duration {
		return r.Report(func() Summary { return now }, complete, func(Summary) { told++ })
	}
	var r Reporter
	r.Begin()
	defer r.End()
	if again := report(&r, false); again <= 0 || again > startTime || told != 0 {
		t.Errorf("at the start: again after %v, told %d times", again, told)
	}
	r.until = time.Now()
	for range 2 {
		if again := report(&r, false); again != 0 || told != 1 {
			t.Errorf("after some time: again after %v, told %d times", again, told)
		}
	}
	now.Waiting = []Wait{{"six0", "an uplink"}}
	if report(&r, false); told != 2 {
		t.Errorf("after a change: told %d times", told)
	}
	var complete Reporter
	complete.Begin()
	defer complete.End()
	if again := report(&complete, true); again != 0 || told != 3 {
		t.Errorf("a complete start: again after %v, told %d times", again, told)
	}
}

// The ticker runs until the first report, and afterwards only if something needs it.
func TestPace(t *testing.T) {
	for _, c := range []struct {
		name               string
		watched, needed    bool
		before, afterwards bool
	}{
		{"idle", false, false, true, false},
		{"watchdog", true, false, true, true},
		{"namespaces", false, true, true, true},
	} {
		var r Reporter
		beats := 0
		r.OnBeat(func() { beats++ }, c.watched)
		r.Begin()
		r.Pace(c.needed)
		if r.ticks != c.before {
			t.Errorf("%s: before the first report the ticker runs: %v", c.name, r.ticks)
		}
		r.Report(func() Summary { return Summary{} }, true, func(Summary) {})
		if r.Pace(c.needed); r.ticks != c.afterwards {
			t.Errorf("%s: after the first report the ticker runs: %v", c.name, r.ticks)
		}
		if r.Beat(); beats != 1 {
			t.Errorf("%s: %d heartbeats", c.name, beats)
		}
		r.End()
	}
	new(Reporter).Beat()
}
