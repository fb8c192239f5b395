package discovery

import "time"

// allowance limits the probes sent to check unproven reports about path MTUs, over all
// peers. It allows as many bytes as the reports themselves have, and a little more with
// time, so that a single true report is checked at once. Anyone can forge such a report,
// in the name of any host.
type allowance struct {
	bytes int
	at    time.Time // when the time-based part was last added
}

const (
	// allowanceMost, in bytes, is enough for one check over Ethernet.
	allowanceMost   = 1700
	allowancePerSec = 64 // bytes per second
)

func newAllowance(now time.Time) allowance { return allowance{allowanceMost, now} }

// earn adds the bytes of a report.
func (a *allowance) earn(n int) { a.bytes = min(a.bytes+n, allowanceMost) }

// spend subtracts the bytes of a probe. The result may be negative.
func (a *allowance) spend(n int) { a.bytes -= n }

// any reports whether any bytes are left.
func (a *allowance) any(now time.Time) bool {
	if secs := int(now.Sub(a.at) / time.Second); secs > 0 {
		a.at = now
		a.earn(secs * allowancePerSec)
	}
	return a.bytes > 0
}
