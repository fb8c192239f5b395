package pathchoice

import (
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/api"
)

// Use is whether packets use a path, and why.
type Use struct {
	Share float64 // of the flows; 0: the path is not used
	Why   string
	Since time.Time // when packets began or ceased to use it, or another reason began
}

// Uses returns for each path whether packets use it; nil before the first choice.
func (c *Chooser) Uses() []Use {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parts == nil {
		return nil
	}
	all := 0.0
	for i := range c.parts {
		all += c.parts[i].Weight
	}
	uses := make([]Use, len(c.paths))
	for i := range uses {
		p := &c.parts[i]
		uses[i] = Use{Why: c.why(i, time.Now()), Since: p.since}
		if p.Weight > 0 {
			uses[i].Share = p.Weight / all
		}
	}
	return uses
}

// why returns why packets use a path or do not. c.mu must be held.
func (c *Chooser) why(i int, now time.Time) string {
	p := &c.parts[i]
	failure := c.failure(i)
	switch {
	case p.Weight > 0 && failure == "":
		return "used"
	case p.Weight > 0:
		return "used although it " + failure + ", because no path is up"
	case failure != "":
		return "it " + failure
	case p.Until.After(now):
		return fmt.Sprintf("waits %v more: %s", p.Until.Sub(now).Truncate(time.Second)+time.Second, p.Why)
	}
	return p.Why
}

// failure returns why a path is not up, or "". c.mu must be held.
func (c *Chooser) failure(i int) string {
	phase, detail := c.paths[i].Report.Phase()
	switch {
	case c.paths[i].Wire.Load() == nil && detail != "":
		return "cannot send: it waits for " + detail
	case c.paths[i].Wire.Load() == nil:
		return "cannot send"
	case phase == api.Up:
		return ""
	case detail != "":
		return "is " + string(phase) + ": " + detail
	case phase == api.Probing:
		return "has not answered yet"
	}
	return "is " + string(phase)
}

// report reports that other paths are in use than before. c.mu must be held.
func (c *Chooser) report(before []part) {
	inUse := func(p part) bool { return p.Weight > 0 }
	now := c.parts
	if !slices.ContainsFunc(before, inUse) || !slices.ContainsFunc(now, inUse) {
		return
	}
	var added, removed []int
	for i := range now {
		switch was, is := inUse(before[i]), inUse(now[i]); {
		case is && !was:
			added = append(added, i)
		case was && !is:
			removed = append(removed, i)
		}
	}
	if len(added) == 1 && len(removed) == 1 {
		from := removed[0]
		why := c.paths[from].Report.Label() + " " + c.failure(from)
		if c.failure(from) == "" {
			why = c.paths[added[0]].Report.Label() + " " + c.row.Better
		}
		c.note(added[0], "packets use this path now", why)
		return
	}
	for _, i := range removed {
		c.note(i, "packets do not use this path any more", c.paths[i].Report.Label()+" "+c.failure(i))
	}
	for _, i := range added {
		c.note(i, "packets use this path, too", c.paths[i].Report.Label()+" is up")
	}
}

// note reports what has happened to a path, and why.
func (c *Chooser) note(i int, what, why string) {
	r := c.paths[i].Report
	r.Event(api.EventState, what+", because "+why)
	r.Log().Info(what, zap.String("because", why))
}
