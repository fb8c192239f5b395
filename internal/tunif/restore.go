package tunif

import (
	"fmt"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/iface"
	"sixfour/internal/report"
)

// Limits for restoring an interface's addresses and routes: at once the first time, then
// with pauses, and only restoreMost times in restoreWindow. If an administrator or a program
// removes them repeatedly, that is intended, and must not keep the daemon busy.
const (
	restorePause  = time.Second
	restoreMost   = 10
	restoreWindow = 10 * time.Minute
)

// restoring tracks how often an interface's addresses and routes were restored recently.
type restoring struct {
	next  time.Time // earliest time of the next restoration
	since time.Time
	times int
}

// restored records what was restored on the interface.
func (i *Interface) restored(r iface.Restored, now time.Time) {
	if r == (iface.Restored{}) {
		return
	}
	for what, n := range map[report.Repair]int{report.Address: r.Addresses, report.Route: r.Routes} {
		if n > 0 {
			i.report.Count(what)
		}
	}
	text := fmt.Sprintf("interface %s had lost %d addresses and %d routes: they were restored", i.tunnel.Name, r.Addresses, r.Routes)
	i.report.Event(api.EventRepair, text)
	i.tunnel.Log.Warn(text)
	m := &i.restoring
	if now.Sub(m.since) > restoreWindow {
		m.since, m.times = now, 0
	}
	m.times++
	if m.next = now.Add(restorePause); m.times < restoreMost {
		return
	}
	m.next = m.since.Add(restoreWindow)
	text = fmt.Sprintf("another program removes addresses or routes of interface %s again and again: they are not restored for the next %v; change them in the configuration, and find that program (ip monitor address route)",
		i.tunnel.Name, m.next.Sub(now).Round(time.Second))
	i.tunnel.Log.Error(text)
	i.note(text)
}
