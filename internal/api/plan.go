package api

import (
	"fmt"
	"strings"
)

// Plan lists the changes of a reload. A tunnel is identified by its name. All lists are in
// the order of the new file, except for Removed, which is in the order of the old one.
type Plan struct {
	Added     []string `json:"added"`
	Removed   []string `json:"removed"`
	Changed   []Change `json:"changed"`
	Unchanged []string `json:"unchanged"`
	// Settings are changed tables, other than those of tunnels, that are in effect now.
	// Restart are those that take effect after a restart. Engine.Reload, which handles
	// only tunnels, leaves both empty.
	Settings []string `json:"settings,omitempty"`
	Restart  []string `json:"restart,omitempty"`
}

// String returns the number of changes of each kind.
func (p *Plan) String() string {
	replaced := 0
	for _, c := range p.Changed {
		if !c.InPlace {
			replaced++
		}
	}
	s := fmt.Sprintf("%d added, %d removed, %d changed in place, %d replaced, %d unchanged",
		len(p.Added), len(p.Removed), len(p.Changed)-replaced, replaced, len(p.Unchanged))
	if len(p.Restart) > 0 {
		s += "; changes in [" + strings.Join(p.Restart, "], [") + "] take effect after a restart"
	}
	return s
}

// Change is the change of one tunnel.
type Change struct {
	Tunnel string `json:"tunnel"`
	// InPlace means that the interface stays, with its counters and the connections
	// through it. Otherwise a new interface of the same name replaces it.
	InPlace      bool     `json:"in_place"`
	Keys         []string `json:"keys"` // changed keys of the [[tunnel]]
	PeersAdded   int      `json:"peers_added,omitempty"`
	PeersRemoved int      `json:"peers_removed,omitempty"`
	PeersChanged int      `json:"peers_changed,omitempty"`
}

// NewPlan returns a plan without changes.
func NewPlan() Plan {
	return Plan{Added: []string{}, Removed: []string{}, Changed: []Change{}, Unchanged: []string{}}
}
