package engine

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/datapath"
	"sixfour/internal/iface"
)

// repair is a kind of fault that the daemon repairs.
type repair int

// What the daemon repairs by itself.
const (
	repairInterface repair = iota // it was deleted
	repairAddress                 // an address of the interface was removed, or the outer address has changed
	repairRoute                   // a route through the interface was removed, or the outer route has changed
	repairSocket                  // a socket had failed
	repairName                    // a name has another address now
	repairPanic                   // panic in a goroutine of the tunnel, which continues with new state
	repairNamespace               // the namespace was deleted and made again
	repairs
)

var repairNames = [repairs]string{"interface", "address", "route", "socket", "name", "panic", "namespace"}

// repairCounts counts the repairs of each kind.
type repairCounts [repairs]atomic.Uint64

// counts returns the non-zero counts by name; nil: none.
func (c *repairCounts) counts() map[string]uint64 {
	var m map[string]uint64
	for r, name := range repairNames {
		if n := c[r].Load(); n > 0 {
			if m == nil {
				m = make(map[string]uint64)
			}
			m[name] = n
		}
	}
	return m
}

// repaired counts and reports a repair for a tunnel.
func (t *tunnel) repaired(r repair, text string) {
	t.repairs[r].Add(1)
	t.event(api.EventRepair, text)
}

// repaired counts and reports a repair for one peer.
func (p *path) repaired(r repair, text string) {
	p.t.repairs[r].Add(1)
	p.event(api.EventRepair, text)
}

// Limits for restoring an interface's addresses and routes: at once the first time, then
// with pauses, and only mendMost times in mendWindow. If an administrator or a program
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
func (t *tunnel) restored(r iface.Restored, now time.Time) {
	if r == (iface.Restored{}) {
		return
	}
	for what, n := range map[repair]int{repairAddress: r.Addresses, repairRoute: r.Routes} {
		if n > 0 {
			t.repairs[what].Add(1)
		}
	}
	text := fmt.Sprintf("interface %s had lost %d addresses and %d routes: they were restored", t.cfg.Name, r.Addresses, r.Routes)
	t.event(api.EventRepair, text)
	t.Log.Warn(text)
	m := &t.restoring
	if now.Sub(m.since) > restoreWindow {
		m.since, m.times = now, 0
	}
	m.times++
	if m.next = now.Add(restorePause); m.times < restoreMost {
		return
	}
	m.next = m.since.Add(restoreWindow)
	text = fmt.Sprintf("another program removes addresses or routes of interface %s again and again: they are not restored for the next %v; change them in the configuration, and find that program (ip monitor address route)",
		t.cfg.Name, m.next.Sub(now).Round(time.Second))
	t.Log.Error(text)
	for p := range t.paths() {
		p.note(text)
	}
}

// lastRoute is the local address and the interface by which a peer was last reached. The
// control loop owns it.
type lastRoute struct {
	known  bool
	local  netip.Addr
	device int
}

// follows counts and reports that a path uses another local address or interface than the
// last path. A change for all peers of a tunnel counts once.
func (p *path) follows(wire *datapath.Wire) {
	was, now := p.lastRoute, lastRoute{true, wire.Outer().Local, wire.Hop.Device}
	p.lastRoute = now
	if !was.known || was == now {
		return
	}
	first := now != p.t.lastRoute
	p.t.lastRoute = now
	text, what := fmt.Sprintf("packets are now sent from %v, before from %v", now.local, was.local), repairAddress
	if now.local == was.local {
		text, what = "packets now leave through another interface", repairRoute
	}
	if first {
		p.repaired(what, text)
	}
	p.remember(text)
}
