package engine

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/netcfg"
)

// repair is something that is put right when it breaks.
type repair int

// What the daemon puts right by itself.
const (
	repairInterface repair = iota // deleted by somebody
	repairAddress                 // an address of the interface that was taken away, or an outer one that is another now
	repairRoute                   // a route through the interface that was taken away, or an outer one that leads elsewhere now
	repairSocket                  // one that was of no use any more
	repairName                    // that has another address now
	repairPanic                   // in a goroutine of the tunnel, which goes on with new state
	repairNamespace               // deleted and made again
	repairs
)

var repairNames = [repairs]string{"interface", "address", "route", "socket", "name", "panic", "namespace"}

// repairCounts are how often each was done.
type repairCounts [repairs]atomic.Uint64

// counts are those that were, by name; nil: none.
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

// repaired counts and tells of what was put right for a tunnel.
func (t *tunnel) repaired(r repair, text string) {
	t.repairs[r].Add(1)
	t.event(api.EventRepair, text)
}

// repaired does so for one peer.
func (p *peer) repaired(r repair, text string) {
	p.t.repairs[r].Add(1)
	p.event(api.EventRepair, text)
}

// What is taken from an interface is put back at once, but then not for a while, and
// only so often: somebody who goes on taking it away wants something else, and shall
// not keep us busy.
const (
	mendPause  = time.Second
	mendMost   = 10
	mendWindow = 10 * time.Minute
)

// mending is how often an interface's addresses and routes were put back lately.
type mending struct {
	next  time.Time // not before
	since time.Time
	times int
}

// mended notes what was put back on the interface.
func (t *tunnel) mended(r netcfg.Restored, now time.Time) {
	if r == (netcfg.Restored{}) {
		return
	}
	for what, n := range map[repair]int{repairAddress: r.Addresses, repairRoute: r.Routes} {
		if n > 0 {
			t.repairs[what].Add(1)
		}
	}
	text := fmt.Sprintf("interface %s had lost %d addresses and %d routes: they were put back", t.cfg.Name, r.Addresses, r.Routes)
	t.event(api.EventRepair, text)
	t.log.Warn(text)
	m := &t.mending
	if now.Sub(m.since) > mendWindow {
		m.since, m.times = now, 0
	}
	m.times++
	if m.next = now.Add(mendPause); m.times < mendMost {
		return
	}
	m.next = m.since.Add(mendWindow)
	text = fmt.Sprintf("somebody takes addresses or routes from interface %s again and again: they are not put back for the next %v; change them in the configuration, and find out who does it (ip monitor address route)",
		t.cfg.Name, m.next.Sub(now).Round(time.Second))
	t.log.Error(text)
	for _, p := range t.peers {
		p.note(text)
	}
}

// lastWay is by which address of ours, and through which interface, a peer was reached
// last. The control loop owns it.
type lastWay struct {
	known  bool
	local  netip.Addr
	device int
}

// follows counts and tells that a path leads another way than the last one that there
// was. What is of all peers of a tunnel counts once.
func (p *peer) follows(path *path) {
	was, now := p.lastWay, lastWay{true, path.outer().Local, path.device}
	p.lastWay = now
	if !was.known || was == now {
		return
	}
	first := now != p.t.lastWay
	p.t.lastWay = now
	text, what := fmt.Sprintf("packets are sent from %v now, before from %v", now.local, was.local), repairAddress
	if now.local == was.local {
		text, what = "packets leave through another interface", repairRoute
	}
	if first {
		p.repaired(what, text)
	}
	p.remember(text)
}
