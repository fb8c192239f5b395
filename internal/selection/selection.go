// Package selection decides which of the paths to a peer carry its packets, by what was
// measured of each.
package selection

import (
	"slices"
	"time"

	"sixfour/internal/api"
)

// Measured is what is known of a path.
type Measured struct {
	Usable bool      // packets can be sent
	Phase  api.Phase // up, suspect, down…; a path without liveness checks is up
	Since  time.Time // when the phase began
	Doubt  bool      // the last probe was not answered, or an error reports that it does not reach the peer
	Heard  time.Time // when the last packet came by the path, as far as known; zero: none
	RTT    time.Duration
	Loss   float64 // fraction of the last probes that were not answered
	Weight int     // in the configuration
}

// up reports whether the path is up.
func (m *Measured) up() bool { return m.Usable && m.Phase == api.Up }

// failed reports whether the path is not up, though it was or may have been.
func (m *Measured) failed() bool { return !m.up() && m.Phase != api.Starting && m.Phase != api.Probing }

// Choice is which of the paths carry packets.
type Choice struct {
	Parts []Part    // in the order of the paths
	Again time.Time // when to choose again although nothing has changed; zero: not
}

// Part is the part that a path has in a choice.
type Part struct {
	// Weight is the path's share of the flows, relative to the weights of the others; 0: it
	// carries no packets.
	Weight float64
	// Why is the reason why a path that is up carries no packets.
	Why string
	// Until is when Why ends unless something changes; zero: that is not known.
	Until time.Time
}

// First returns the index of the first path that carries packets; -1: there is none.
func (c *Choice) First() int {
	return slices.IndexFunc(c.Parts, func(p Part) bool { return p.Weight > 0 })
}

// Policy chooses among the paths of one peer. Its methods must not be called concurrently.
type Policy interface {
	// Choose returns which paths carry packets from now on: only usable ones, and none if
	// none is usable. With several, each flow uses one of them. Choose is called whenever
	// something measured has changed, and at the time Again of the choice.
	Choose(now time.Time, paths []Measured) Choice
}

// Row is a policy in the table of all policies.
type Row struct {
	Name    string // in the configuration
	Meaning string // for the reference of the configuration: which paths it uses
	Weights bool   // it uses the weights of the paths
	// Rests says that paths that carry no packets are probed less often, because only the
	// path in use is compared with what it was before.
	Rests bool
	// Better is what a path has become that is used instead of another one that is up.
	Better string
	New    func() Policy
}

// Policies are the policies for peers with several paths. The first is the default.
var Policies = []Row{
	{Name: "preferred", Meaning: "the first one in the file", Rests: true, Better: "is up", New: func() Policy { return &preferred{used: -1} }},
	{Name: "fastest", Meaning: "the one with the shortest round-trip time", Better: "is faster", New: func() Policy { return &fastest{used: -1, better: -1} }},
	{Name: "balance", Meaning: "all, each flow one of them, by `weight` and measured loss", Weights: true, Better: "is up", New: func() Policy { return new(balance) }},
}

// Names returns the names of all policies, in the order of the table.
func Names() (names []string) {
	for _, p := range Policies {
		names = append(names, p.Name)
	}
	return names
}

// Named returns the row of a name, or the default one if there is no such name.
func Named(name string) *Row {
	i := slices.IndexFunc(Policies, func(r Row) bool { return r.Name == name })
	return &Policies[max(0, i)]
}

// steady is how long a path that has failed must be up before it is used again.
const steady = 10 * time.Second

// failures are the paths that have failed while they carried packets, and have not been up
// for the time steady since.
type failures []bool

// fit sets the number of paths.
func (f *failures) fit(paths int) {
	*f = slices.Grow(*f, max(0, paths-len(*f)))[:paths]
}

// steady returns for each path whether it is up, and does not have to wait because it has
// failed. In the choice, those that wait have the reason and the time.
func (f failures) steady(now time.Time, paths []Measured, c *Choice) []bool {
	list := make([]bool, len(paths))
	for i := range paths {
		if !paths[i].up() {
			continue
		}
		until := paths[i].Since.Add(steady)
		if !f[i] || !now.Before(until) {
			f[i], list[i] = false, true
			continue
		}
		c.wait(i, until, "it has failed lately")
	}
	return list
}

// newChoice returns a choice in which no path carries packets.
func newChoice(paths int) Choice { return Choice{Parts: make([]Part, paths)} }

// wait says why a path carries no packets until some time, when the policy chooses again.
func (c *Choice) wait(i int, until time.Time, why string) {
	c.Parts[i].Why, c.Parts[i].Until = why, until
	if c.Again.IsZero() || until.Before(c.Again) {
		c.Again = until
	}
}

// use makes one path carry all packets. The others that are up, and have no reason yet, get
// one.
func (c *Choice) use(used int, paths []Measured, why func(i int) string) {
	for i := range paths {
		p := &c.Parts[i]
		switch {
		case i == used:
			*p = Part{Weight: 1}
		case !paths[i].up() || p.Why != "":
		case paths[i].Doubt:
			p.Why = inDoubt
		default:
			p.Why = why(i)
		}
	}
}

// inDoubt is why a path that is up is not chosen.
const inDoubt = "its last probe was not answered"

// spare returns the path to use when that in use is not up, nor any that is steady: the
// first one that is up, if possible without doubts. Without one, it returns -1.
func spare(paths []Measured) int {
	if i := slices.IndexFunc(paths, func(m Measured) bool { return m.up() && !m.Doubt }); i >= 0 {
		return i
	}
	return slices.IndexFunc(paths, func(m Measured) bool { return m.up() })
}

// follow returns the path to use when none is up: that in use while it can send, since its
// state may only be unknown as yet. But if the peer is silent on it, and packets come by
// another path, the peer has changed to that one, and the answers to our probes may come
// only after packets to the peer do so, too.
func follow(used int, paths []Measured) int {
	if used < 0 || !paths[used].Usable {
		used = slices.IndexFunc(paths, func(m Measured) bool { return m.Usable })
	}
	for i := range paths {
		if paths[i].Usable && silent(&paths[used]) && paths[i].Heard.After(paths[used].Heard) {
			used = i
		}
	}
	return used
}

// silent reports whether a path has failed, and no packet has come by it since.
func silent(m *Measured) bool {
	return (m.Phase == api.Suspect || m.Phase == api.Down) && m.Heard.Before(m.Since)
}
