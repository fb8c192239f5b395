package engine

import "time"

// allowance bounds what unproven reports about path MTUs make us send, and the far
// ends answer, over all peers: as many bytes as the reports have themselves, and a
// little more with time, so that a single true one is checked at once. Anybody can
// forge such a report, in the name of any host.
type allowance struct {
	bytes int
	at    time.Time // of the last look
}

const (
	// allowanceMost is room for one check over Ethernet.
	allowanceMost   = 1700
	allowancePerSec = 64 // bytes
)

func newAllowance(now time.Time) allowance { return allowance{allowanceMost, now} }

// earn adds the bytes of a report.
func (a *allowance) earn(n int) { a.bytes = min(a.bytes+n, allowanceMost) }

// spend takes the bytes of a probe, also those that there are not.
func (a *allowance) spend(n int) { a.bytes -= n }

// any reports whether there is something to spend.
func (a *allowance) any(now time.Time) bool {
	if secs := int(now.Sub(a.at) / time.Second); secs > 0 {
		a.at = now
		a.earn(secs * allowancePerSec)
	}
	return a.bytes > 0
}
