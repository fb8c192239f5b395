package engine

import "sync/atomic"

// repair is something that is put right when it breaks.
type repair int

// What the daemon puts right by itself.
const (
	repairInterface repair = iota // deleted by somebody
	repairAddress                 // an address of the interface that was taken away, or an outer one that is another now
	repairRoute                   // a route through the interface that was taken away, or an outer one that leads elsewhere now
	repairSocket                  // one that was of no use any more
	repairName                    // that has another address now
	repairs
)

var repairNames = [repairs]string{"interface", "address", "route", "socket", "name"}

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
	t.event(EventRepair, text)
}

// repaired does so for one peer.
func (p *peer) repaired(r repair, text string) {
	p.t.repairs[r].Add(1)
	p.event(EventRepair, text)
}
