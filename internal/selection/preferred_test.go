package selection

import (
	"fmt"
	"testing"
	"time"

	"sixfour/internal/api"
)

// The first path that is up is used. A path that failed while it was in use is used again
// only after it was up for a while.
func TestPreferred(t *testing.T) {
	begun := time.Now()
	p := New("preferred")
	path := func(phase api.Phase, since time.Duration) Measured {
		return Measured{Usable: phase != api.Waiting, Phase: phase, Since: begun.Add(since)}
	}
	for _, c := range []struct {
		name  string
		at    time.Duration
		paths []Measured
		want  string // indexes, and the time until the next choice
	}{
		{"nothing can be sent", 0, []Measured{path(api.Waiting, 0), path(api.Waiting, 0)}, "[] 0s"},
		{"the second can send", 0, []Measured{path(api.Waiting, 0), path(api.Probing, 0)}, "[1] 0s"},
		{"the first can send, too", 0, []Measured{path(api.Probing, 0), path(api.Probing, 0)}, "[1] 0s"},
		{"the first is up", time.Second, []Measured{path(api.Up, time.Second), path(api.Probing, 0)}, "[0] 0s"},
		{"both are up", time.Second, []Measured{path(api.Up, time.Second), path(api.Up, time.Second)}, "[0] 0s"},
		{"the first is suspect", 20 * time.Second, []Measured{path(api.Suspect, 20*time.Second), path(api.Up, time.Second)}, "[1] 0s"},
		{"the first is down", 21 * time.Second, []Measured{path(api.Down, 21*time.Second), path(api.Up, time.Second)}, "[1] 0s"},
		{"the first is up again", 30 * time.Second, []Measured{path(api.Up, 30*time.Second), path(api.Up, time.Second)}, "[1] 10s"},
		{"not long enough", 39 * time.Second, []Measured{path(api.Up, 30*time.Second), path(api.Up, time.Second)}, "[1] 1s"},
		{"long enough", 40 * time.Second, []Measured{path(api.Up, 30*time.Second), path(api.Up, time.Second)}, "[0] 0s"},
		{"both are suspect", 50 * time.Second, []Measured{path(api.Suspect, 50*time.Second), path(api.Suspect, 50*time.Second)}, "[0] 0s"},
		{"the second is up", 51 * time.Second, []Measured{path(api.Suspect, 50*time.Second), path(api.Up, 51*time.Second)}, "[1] 0s"},
		{"only the first is up", 60 * time.Second, []Measured{path(api.Up, 60*time.Second), path(api.Down, 60*time.Second)}, "[0] 10s"},
		{"nothing can be sent any more", 61 * time.Second, []Measured{path(api.Waiting, 0), path(api.Waiting, 0)}, "[] 0s"},
	} {
		use, again := p.Choose(begun.Add(c.at), c.paths)
		wait := time.Duration(0)
		if !again.IsZero() {
			wait = again.Sub(begun.Add(c.at))
		}
		if got := fmt.Sprintf("%v %v", use, wait); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
