package pathchoice

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"sixfour/internal/api"
	"sixfour/internal/datapath"
	"sixfour/internal/events"
	"sixfour/internal/liveness"
	"sixfour/internal/report"
)

// newChooser returns a Chooser for a peer with a number of paths, which have no wires, and
// the events of its tunnel.
func newChooser(paths int, policy string) (*Chooser, *events.Log) {
	tun := report.NewTunnel("six0", false, zap.NewNop())
	tun.Events = new(events.Log)
	var list []Path
	for i := range paths {
		p := new(datapath.Path)
		r := report.NewPath(tun, "a", p)
		r.Place(i, paths)
		list = append(list, Path{Path: p, Report: r, Weight: 1, Prober: new(prober)})
	}
	c := New(new(datapath.Peer), func() {})
	c.SetPaths(list, policy)
	return c, tun.Events
}

// prober records the role of a path.
type prober struct{ role liveness.Role }

func (p *prober) SetRole(r liveness.Role) { p.role = r }

// up gives a path a wire by which its peer is reached.
func (p *Path) up() {
	p.Wire.Store(new(datapath.Wire))
	p.Report.Uses(api.State{Local: "192.0.2.1"}, false, 1480)
}

// The first path that can send is used; if it cannot send any more, the next one is, which is
// reported with the reason.
func TestChoose(t *testing.T) {
	c, log := newChooser(2, "")
	check := func(what string, first int, used ...int) {
		t.Helper()
		if c.Choose(); !slices.Equal(c.used(), used) || c.First() != c.paths[first].Path {
			t.Errorf("%s: %v are used, want %v, %d first", what, c.used(), used, first)
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

// roles checks for what the paths are used.
func roles(t *testing.T, c *Chooser, want ...liveness.Role) {
	t.Helper()
	for i, p := range c.paths {
		if got := p.Prober.(*prober).role; got != want[i] {
			t.Errorf("path %d has role %d, want %d", i+1, got, want[i])
		}
	}
}

// The other paths are needed when that in use may have failed. Without an answer yet, it may.
func TestNeeded(t *testing.T) {
	for policy, rest := range map[string]liveness.Role{"preferred": liveness.Standby, "fastest": liveness.Compared} {
		c, _ := newChooser(2, policy)
		c.paths[0].Wire.Store(new(datapath.Wire))
		c.paths[0].Report.Uses(api.State{Local: "192.0.2.1"}, true, 1480)
		c.Choose()
		roles(t, c, liveness.InUse, liveness.Needed)
		c.paths[0].Report.Uses(api.State{Local: "192.0.2.1"}, false, 1480)
		c.Choose()
		roles(t, c, liveness.InUse, rest)
	}
}

// The paths change: the one in use stays in use, wherever it is in the list, and the choice is
// among the new ones. Without the one in use, another one is used at once.
func TestSetPaths(t *testing.T) {
	c, _ := newChooser(2, "")
	a, b := c.paths[0], c.paths[1]
	b.up()
	c.Choose()
	if c.First() != b.Path {
		t.Fatal("the only path that can send is not used")
	}
	since := c.parts[1].since
	other, _ := newChooser(1, "")
	d := other.paths[0]
	c.SetPaths([]Path{d, b, a}, "")
	if c.First() != b.Path || !c.parts[1].since.Equal(since) {
		t.Error("the path in use is not used any more")
	}
	d.up()
	if c.SetPaths([]Path{d, a}, ""); c.First() != d.Path {
		t.Error("a path that was removed is used")
	}
	c.SetPaths([]Path{d}, "")
	roles(t, c, liveness.Only)
	if u := c.Uses(); len(u) != 1 || u[0].Share != 1 {
		t.Errorf("one path: %+v", u)
	}
}

// The reasons for using paths or not are those of the policy, or what is wrong with a path.
func TestUses(t *testing.T) {
	c, _ := newChooser(3, "preferred")
	check := func(want ...string) {
		t.Helper()
		c.Choose()
		for i, u := range c.Uses() {
			if got := fmt.Sprintf("%.2f %s", u.Share, u.Why); got != want[i] || u.Since.IsZero() {
				t.Errorf("path %d: %q since %v, want %q", i+1, got, u.Since, want[i])
			}
		}
	}
	check("0.00 it cannot send", "0.00 it cannot send", "0.00 it cannot send")
	c.paths[1].up()
	c.paths[2].up()
	c.paths[0].Report.Waits("a route", false)
	check("0.00 it cannot send: it waits for a route", "1.00 used", "0.00 standby for path 2")
	since := c.Uses()[1].Since
	c.paths[0].up()
	check("1.00 used", "0.00 standby for path 1", "0.00 standby for path 1")
	if c.Uses()[1].Since.Equal(since) {
		t.Error("another reason began at the same time")
	}
	c.paths[0].Wire.Store(nil)
	c.paths[0].Report.Waits("a route", false)
	check("0.00 it cannot send: it waits for a route", "1.00 used", "0.00 standby for path 2")
	c.paths[0].up()
	check("0.00 waits 10s more: it has failed lately", "1.00 used", "0.00 standby for path 2")
	roles(t, c, liveness.Trial, liveness.InUse, liveness.Standby)
	weighted := slices.Clone(c.paths)
	weighted[1].Weight = 2
	c.SetPaths(weighted, "balance")
	check("0.25 used", "0.50 used", "0.25 used")
	roles(t, c, liveness.InUse, liveness.InUse, liveness.InUse)
	c.paths[2].Wire.Store(nil)
	check("0.33 used", "0.67 used", "0.00 it cannot send")
	c.End()
}
