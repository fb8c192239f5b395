package pathchoice

import (
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/datapath"
	"sixfour/internal/events"
	"sixfour/internal/report"
)

// newChooser returns a Chooser for a peer with a number of paths, which have no wires, and
// the events of its tunnel.
func newChooser(paths int) (*Chooser, *events.Log) {
	tun := report.NewTunnel("six0", false, zap.NewNop())
	tun.Events = new(events.Log)
	var list []Path
	for i := range paths {
		p := new(datapath.Path)
		list = append(list, Path{p, report.NewPath(tun, "a", i, paths, p)})
	}
	return New(new(datapath.Peer), list, ""), tun.Events
}

// up gives a path a wire by which its peer is reached.
func (p *Path) up() {
	p.Wire.Store(new(datapath.Wire))
	p.Report.Uses(api.State{Local: "192.0.2.1"}, false, 1480)
}

// The first path that can send is used; if it cannot send any more, the next one is, which is
// reported with the reason.
func TestChoose(t *testing.T) {
	c, log := newChooser(2)
	check := func(what string, first int, used ...int) {
		t.Helper()
		if c.Choose(); !slices.Equal(c.Used(), used) || c.First() != first {
			t.Errorf("%s: %v are used, %d first; want %v, %d first", what, c.Used(), c.First(), used, first)
		}
	}
	check("no path", 0)
	c.paths[1].up()
	check("the second can send", 1, 1)
	c.paths[0].up()
	c.paths[1].Wire.Store(nil)
	check("only the first can send", 0, 0)
	found := false
	log.Add(api.Event{Kind: "end"})
	for e := range log.Follow(t.Context()) {
		if e.Kind == "end" {
			break
		}
		found = found || strings.HasPrefix(e.Text, "path 1: packets use this path now, because path 2 cannot send") && e.Peer == "a"
	}
	if !found {
		t.Error("the change is not reported")
	}
	c.End()
	c.paths[0].Wire.Store(nil)
	c.paths[1].up()
	check("ended", 0, 0)
}

// A single path is used without a policy.
func TestSinglePath(t *testing.T) {
	c, _ := newChooser(1)
	c.paths[0].up()
	c.Choose()
	c.SetPolicy("preferred")
	if c.policy != nil || c.First() != 0 || len(c.Used()) != 0 {
		t.Errorf("policy %v, used %v", c.policy, c.Used())
	}
}
