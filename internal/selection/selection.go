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

// Row is a policy in the table of all policies.
type Row struct {
	Name    string // in the configuration
	Meaning string // for the reference of the configuration: which paths it uses
	New     func() Policy
}

// Policies are the policies for peers with several paths. The first is the default.
var Policies = []Row{
	{"preferred", "the first one in the file", func() Policy { return &preferred{used: -1} }},
}

// Names returns the names of all policies, in the order of the table.
func Names() (names []string) {
	for _, p := range Policies {
		names = append(names, p.Name)
	}
	return names
}

// New returns the policy of a name, or the default one if there is no such name.
func New(name string) Policy {
	for _, p := range Policies {
		if p.Name == name {
			return p.New()
		}
	}
	return Policies[0].New()
}
