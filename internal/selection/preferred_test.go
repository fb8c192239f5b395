package selection

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sixfour/internal/api"
)

var begun = time.Now()

// path returns a path that has had a phase since a time after begun.
func path(phase api.Phase, since time.Duration) Measured {
	return Measured{Usable: phase != api.Waiting, Phase: phase, Since: begun.Add(since)}
}

// doubted returns the path with a lost probe.
func (m Measured) doubted() Measured {
	m.Doubt = true
	return m
}

// heard returns the path with the time of its last packet.
func (m Measured) heard(at time.Duration) Measured {
	m.Heard = begun.Add(at)
	return m
}

// rtt returns the path with a round-trip time.
func (m Measured) rtt(t time.Duration) Measured {
	m.RTT = t
	return m
}

// text returns the indexes of the paths in use, and the time until the next choice.
func text(c Choice, now time.Time) string {
	used := []int{}
	for i, p := range c.Parts {
		if p.Weight > 0 {
			used = append(used, i)
		}
	}
	wait := time.Duration(0)
	if !c.Again.IsZero() {
		wait = c.Again.Sub(now)
	}
	return fmt.Sprintf("%v %v", used, wait)
}

// step is a choice in a test of a policy.
type step struct {
	name  string
	at    time.Duration
	paths []Measured
	want  string // see text
}

func check(t *testing.T, p Policy, steps []step) {
	t.Helper()
	for _, s := range steps {
		if got := text(p.Choose(begun.Add(s.at), s.paths), begun.Add(s.at)); got != s.want {
			t.Errorf("%s: %s, want %s", s.name, got, s.want)
		}
	}
}

// The first path that is up is used. A path that failed while it was in use is used again
// only after it was up for a while.
func TestPreferred(t *testing.T) {
	check(t, Named("preferred").New(), []step{
		{"nothing can be sent", 0, []Measured{path(api.Waiting, 0), path(api.Waiting, 0)}, "[] 0s"},
		{"the second can send", 0, []Measured{path(api.Waiting, 0), path(api.Probing, 0)}, "[1] 0s"},
		{"the first can send, too", 0, []Measured{path(api.Probing, 0), path(api.Probing, 0)}, "[1] 0s"},
		{"the first is up", time.Second, []Measured{path(api.Up, time.Second), path(api.Probing, 0)}, "[0] 0s"},
		{"both are up", time.Second, []Measured{path(api.Up, time.Second), path(api.Up, time.Second)}, "[0] 0s"},
		{"the first has lost a probe", 19 * time.Second, []Measured{path(api.Up, time.Second).doubted(), path(api.Up, time.Second)}, "[0] 0s"},
		{"the first is suspect", 20 * time.Second, []Measured{path(api.Suspect, 20*time.Second), path(api.Up, time.Second)}, "[1] 0s"},
		{"the first is down", 21 * time.Second, []Measured{path(api.Down, 21*time.Second), path(api.Up, time.Second)}, "[1] 0s"},
		{"the first is up again", 30 * time.Second, []Measured{path(api.Up, 30*time.Second), path(api.Up, time.Second)}, "[1] 10s"},
		{"not long enough", 39 * time.Second, []Measured{path(api.Up, 30*time.Second), path(api.Up, time.Second)}, "[1] 1s"},
		{"long enough, but a probe is lost", 40 * time.Second, []Measured{path(api.Up, 30*time.Second).doubted(), path(api.Up, time.Second)}, "[1] 0s"},
		{"long enough", 40 * time.Second, []Measured{path(api.Up, 30*time.Second), path(api.Up, time.Second)}, "[0] 0s"},
		{"both are suspect", 50 * time.Second, []Measured{path(api.Suspect, 50*time.Second), path(api.Suspect, 50*time.Second)}, "[0] 0s"},
		{"the second is up", 51 * time.Second, []Measured{path(api.Suspect, 50*time.Second), path(api.Up, 51*time.Second)}, "[1] 0s"},
		{"only the first is up", 60 * time.Second, []Measured{path(api.Up, 60*time.Second), path(api.Down, 60*time.Second)}, "[0] 10s"},
		{"both are up, the second after it failed", 61 * time.Second, []Measured{path(api.Up, 60*time.Second), path(api.Up, 61*time.Second)}, "[0] 9s"},
		{"nothing can be sent any more", 62 * time.Second, []Measured{path(api.Waiting, 0), path(api.Waiting, 0)}, "[] 0s"},
	})
	check(t, Named("preferred").New(), []step{
		{"all are up", 0, []Measured{path(api.Up, 0), path(api.Up, 0), path(api.Up, 0)}, "[0] 0s"},
		{"the second has lost a probe, too", 2 * time.Second, []Measured{path(api.Suspect, 2*time.Second), path(api.Up, 0).doubted(), path(api.Up, 0)}, "[2] 0s"},
		{"the second answers", 3 * time.Second, []Measured{path(api.Suspect, 2*time.Second), path(api.Up, 0), path(api.Up, 0)}, "[1] 0s"},
	})
}

// If no path is up, packets follow those of the peer: to a path by which they come, if the one
// in use is silent.
func TestFollow(t *testing.T) {
	check(t, Named("preferred").New(), []step{
		{"both are up", 0, []Measured{path(api.Up, 0), path(api.Up, 0)}, "[0] 0s"},
		{"the peer is silent", 5 * time.Second, []Measured{path(api.Suspect, 5*time.Second).heard(2 * time.Second), path(api.Suspect, 4*time.Second).heard(time.Second)}, "[0] 0s"},
		{"it sends on the second path", 6 * time.Second, []Measured{path(api.Suspect, 5*time.Second).heard(2 * time.Second), path(api.Suspect, 4*time.Second).heard(6 * time.Second)}, "[1] 0s"},
		{"it sends on both", 7 * time.Second, []Measured{path(api.Suspect, 5*time.Second).heard(7 * time.Second), path(api.Suspect, 4*time.Second).heard(6 * time.Second)}, "[1] 0s"},
		{"the first is up", 8 * time.Second, []Measured{path(api.Up, 8*time.Second), path(api.Suspect, 4*time.Second)}, "[0] 10s"},
	})
	check(t, Named("preferred").New(), []step{
		{"both are up", 0, []Measured{path(api.Up, 0), path(api.Up, 0)}, "[0] 0s"},
		{"only answers are missing", 5 * time.Second, []Measured{path(api.Suspect, 4*time.Second).heard(5 * time.Second), path(api.Suspect, 4*time.Second).heard(6 * time.Second)}, "[0] 0s"},
	})
}

// A path is used when it has been clearly faster for a while.
func TestFastest(t *testing.T) {
	const ms = time.Millisecond
	up := func(rtt time.Duration) Measured { return path(api.Up, 0).rtt(rtt) }
	at := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	check(t, Named("fastest").New(), []step{
		{"nothing can be sent", 0, []Measured{path(api.Waiting, 0), path(api.Waiting, 0)}, "[] 0s"},
		{"only the first is up", 0, []Measured{up(30 * ms), path(api.Probing, 0)}, "[0] 0s"},
		{"the second is a little faster", 0, []Measured{up(30 * ms), up(25 * ms)}, "[0] 0s"},
		{"the second is clearly faster", at(1), []Measured{up(30 * ms), up(20 * ms)}, "[0] 10s"},
		{"not for long enough", at(9), []Measured{up(30 * ms), up(22 * ms)}, "[0] 2s"},
		{"it was slower for a moment", at(10), []Measured{up(30 * ms), up(28 * ms)}, "[0] 0s"},
		{"it is faster again", at(11), []Measured{up(30 * ms), up(20 * ms)}, "[0] 10s"},
		{"it has lost a probe", at(12), []Measured{up(30 * ms), up(20 * ms).doubted()}, "[0] 0s"},
		{"it answers", at(13), []Measured{up(30 * ms), up(20 * ms)}, "[0] 10s"},
		{"it has been faster for long enough", at(23), []Measured{up(30 * ms), up(20 * ms)}, "[1] 0s"},
		{"now the first is faster", at(24), []Measured{up(10 * ms), up(20 * ms)}, "[1] 10s"},
		{"the second is suspect", at(25), []Measured{up(10 * ms), path(api.Suspect, at(25)).rtt(20 * ms)}, "[0] 0s"},
		{"it is back, and faster", at(30), []Measured{up(10 * ms), path(api.Up, at(30)).rtt(5 * ms)}, "[0] 10s"},
		{"it is back for long enough", at(40), []Measured{up(10 * ms), path(api.Up, at(30)).rtt(5 * ms)}, "[0] 10s"},
		{"and faster for long enough", at(50), []Measured{up(10 * ms), path(api.Up, at(30)).rtt(5 * ms)}, "[1] 0s"},
	})
	check(t, Named("fastest").New(), []step{
		{"the fastest of three", 0, []Measured{up(30 * ms), up(10 * ms), up(20 * ms)}, "[1] 0s"},
		{"by less than two milliseconds", 0, []Measured{up(1 * ms), up(10 * ms).doubted(), up(0)}, "[1] 10s"},
		{"it fails", at(1), []Measured{up(2 * ms), path(api.Down, at(1)), up(1 * ms)}, "[2] 0s"},
		{"no clear difference", at(20), []Measured{up(ms / 10), path(api.Down, at(1)), up(2 * ms)}, "[2] 0s"},
		{"unknown round-trip times", at(20), []Measured{up(0), path(api.Down, at(1)), up(2 * ms)}, "[2] 0s"},
	})
}

// All paths that are up are used, by weight and loss.
func TestBalance(t *testing.T) {
	up := func(weight int, loss float64) Measured {
		m := path(api.Up, 0).rtt(time.Millisecond)
		m.Weight, m.Loss = weight, loss
		return m
	}
	at := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	p := Named("balance").New()
	weights := func(s step) {
		t.Helper()
		c := p.Choose(begun.Add(s.at), s.paths)
		got := []string{}
		for _, part := range c.Parts {
			got = append(got, fmt.Sprintf("%.2f", part.Weight))
		}
		if strings.Join(got, " ") != s.want {
			t.Errorf("%s: %s, want %s", s.name, got, s.want)
		}
	}
	weights(step{"both", 0, []Measured{up(1, 0), up(3, 0)}, "1.00 3.00"})
	weights(step{"the first has not answered", 0, []Measured{up(1, 1).rtt(0), up(3, 0)}, "1.00 3.00"})
	weights(step{"little loss", 0, []Measured{up(1, 0.1), up(3, 0)}, "1.00 3.00"})
	weights(step{"much loss", 0, []Measured{up(1, 0.25), up(3, 0)}, "0.75 3.00"})
	weights(step{"less loss", 0, []Measured{up(1, 0.1), up(3, 0)}, "0.75 3.00"})
	weights(step{"all is lost, but it is up", 0, []Measured{up(1, 1), up(3, 0)}, "0.05 3.00"})
	weights(step{"no loss any more", 0, []Measured{up(1, 0), up(3, 0)}, "1.00 3.00"})
	weights(step{"the first is suspect", at(1), []Measured{path(api.Suspect, at(1)), up(3, 0)}, "0.00 3.00"})
	weights(step{"it is up again", at(2), []Measured{path(api.Up, at(2)), up(3, 0)}, "0.00 3.00"})
	weights(step{"for long enough", at(12), []Measured{path(api.Up, at(2)), up(3, 0.1)}, "1.00 3.00"})
	weights(step{"both are suspect", at(13), []Measured{path(api.Suspect, at(13)), path(api.Suspect, at(13))}, "1.00 0.00"})
	weights(step{"none can send", at(13), []Measured{path(api.Waiting, at(13)), path(api.Waiting, at(13))}, "0.00 0.00"})
}

// Of the paths that are up and not used, the choice says why.
func TestWhy(t *testing.T) {
	for _, c := range []struct {
		policy string
		first  []Measured
		then   []Measured
		want   string
	}{
		{"preferred", nil, []Measured{path(api.Up, 0), path(api.Up, 0)}, ", standby for path 1"},
		{"preferred", nil, []Measured{path(api.Down, 0), path(api.Up, 0), path(api.Up, 0).doubted()}, ", , its last probe was not answered"},
		{"preferred", []Measured{path(api.Up, 0), path(api.Up, 0)}, []Measured{path(api.Down, 0), path(api.Up, 0)}, ", "},
		{"fastest", nil, []Measured{path(api.Up, 0).rtt(20), path(api.Up, 0).rtt(10)}, "not clearly faster than path 2, "},
		{"fastest", []Measured{path(api.Up, 0).rtt(1e8), path(api.Up, 0).rtt(2e8)}, []Measured{path(api.Up, 0).rtt(1e9), path(api.Up, 0).rtt(2e8)}, ", it is faster, but not for long enough yet"},
		{"balance", nil, []Measured{path(api.Up, 0), path(api.Up, 0).doubted()}, ", its last probe was not answered"},
		{"balance", []Measured{path(api.Up, 0), path(api.Up, 0)}, []Measured{path(api.Up, 0), path(api.Up, 0).doubted()}, ", "},
	} {
		p := Named(c.policy).New()
		if c.first != nil {
			p.Choose(begun, c.first)
		}
		var got []string
		for _, part := range p.Choose(begun, c.then).Parts {
			got = append(got, part.Why)
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, want %q", c.policy, strings.Join(got, ", "), c.want)
		}
	}
	p := Named("preferred").New()
	p.Choose(begun, []Measured{path(api.Up, 0), path(api.Up, 0)})
	p.Choose(begun, []Measured{path(api.Suspect, 0), path(api.Up, 0)})
	c := p.Choose(begun, []Measured{path(api.Up, 0), path(api.Up, 0)})
	if part := c.Parts[0]; part.Why != "it has failed lately" || !part.Until.Equal(begun.Add(steady)) || !c.Again.Equal(part.Until) {
		t.Errorf("a path that has failed: %+v", part)
	}
}
