package config

import (
	"slices"

	"sixfour/encap/resolve"
)

// mechanism is an automatic mode: which keys it has of its own, and what they
// make.
type mechanism struct {
	mode      string
	keys      []string
	routes    bool // it may have an outer host, towards which local can be found
	outermost bool // of a stack it can only be the outermost layer
	begin     func() reading
}

// reading is the keys of one tunnel's mechanism, while they are read.
type reading interface {
	read(name string, r *report, e entry, d *draft)
	// finish holds the values against each other and the rest of the tunnel.
	finish(r *report, d *draft) resolve.Mechanism
}

// mechanisms are the automatic modes. A new one is a row here and in encap.Modes.
var mechanisms = []mechanism{}

func mechanismOf(mode string) *mechanism {
	i := slices.IndexFunc(mechanisms, func(m mechanism) bool { return m.mode == mode })
	if i < 0 {
		return &mechanism{mode: mode}
	}
	return &mechanisms[i]
}

func mechanismKeys() []key[*draft] { return nil }

func (d *draft) checkMechanism(r *report) {}
func (d *draft) checkPeers(r *report)     {}
