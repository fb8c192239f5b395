package systemd

import (
	"math"
	"testing"
	"time"
)

func TestWatchdog(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"30000000", "", 30 * time.Second},
		{"7200000000", "", 2 * time.Hour}, // does not fit 32 bits
		{"18446744073709551615", "", math.MaxInt64 / time.Microsecond * time.Microsecond},
		{"30000000", "1", 0}, // for another process
		{"", "", 0},
		{"-1", "", 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := Watchdog(); got != c.want {
			t.Errorf("%q of process %q: %v, want %v", c.usec, c.pid, got, c.want)
		}
	}
}
