package api

import (
	"fmt"
	"strings"
)

// Plan is what a reload changes. Tunnels are told apart by their names, so that one
// with another name is another tunnel. All lists are in the order of the file, but
// for Removed, which is in that of the old one.
type Plan struct {
	Added     []string `json:"added"`
	Removed   []string `json:"removed"`
	Changed   []Change `json:"changed"`
	Unchanged []string `json:"unchanged"`
	// Tables of the file other than those of tunnels that differ, and are used from
	// now on, or only after a restart. Engine.Reload, which knows only tunnels, leaves
	// them to the daemon.
	Settings []string `json:"settings,omitempty"`
	Restart  []string `json:"restart,omitempty"`
}

// String is the plan in numbers.
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
		s += "; what [" + strings.Join(p.Restart, "], [") + "] says takes effect after a restart"
	}
	return s
}

// Change is that of one tunnel.
type Change struct {
	Tunnel string `json:"tunnel"`
	// InPlace means that the interface stays, with its counters and with the
	// connections through it. Otherwise another one of the same name replaces it.
	InPlace      bool     `json:"in_place"`
	Keys         []string `json:"keys"` // of the [[tunnel]] that differ
	PeersAdded   int      `json:"peers_added,omitempty"`
	PeersRemoved int      `json:"peers_removed,omitempty"`
	PeersChanged int      `json:"peers_changed,omitempty"`
}

// NewPlan is one that changes nothing.
func NewPlan() Plan {
	return Plan{Added: []string{}, Removed: []string{}, Changed: []Change{}, Unchanged: []string{}}
}
