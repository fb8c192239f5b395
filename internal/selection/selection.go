// Package selection decides which of the paths to a peer carry its packets, by what was
// measured of each.
package selection

import (
	"time"

	"sixfour/internal/api"
)

// Measured is what is known of a path.
type Measured struct {
	Usable bool      // packets can be sent
	Phase  api.Phase // up, suspect, down…; a path without liveness checks is up
	Since  time.Time // when the phase began
	RTT    time.Duration
	Loss   float64 // fraction of the last probes that were not answered
}

// Policy chooses among the paths of one peer. Its methods must not be called concurrently.
type Policy interface {
	// Choose returns the indexes of the paths that carry packets from now on: only usable
	// ones, and none if none is usable. With several, each flow uses one of them. Choose
	// is called whenever something measured has changed, and at the time again; zero:
	// time alone changes nothing.
	Choose(now time.Time, paths []Measured) (use []int, again time.Time)
}

// Policies is the table of the policies by their names in the configuration.
var Policies = []struct {
	Name string
	New  func() Policy
}{
	{"", func() Policy { return first{} }},
}

// New returns a policy by its name, which must be in the table.
func New(name string) Policy {
	for _, p := range Policies {
		if p.Name == name {
			return p.New()
		}
	}
	panic("selection: no policy " + name)
}

// first is the policy of a peer with one path: it uses the first usable one.
type first struct{}

func (first) Choose(_ time.Time, paths []Measured) ([]int, time.Time) {
	for i := range paths {
		if paths[i].Usable {
			return []int{i}, time.Time{}
		}
	}
	return nil, time.Time{}
}
