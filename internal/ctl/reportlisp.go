package ctl

import (
	"fmt"

	"sixfour/internal/api"
)

// maxShownSites is how many sites of a map server the report has.
const maxShownSites = 20

// mapServer shows the state of the [lisp] section.
func (r *reporter) mapServer(m *api.MapServerStatus) {
	if m == nil {
		return
	}
	if len(r.lines) > 0 {
		r.line()
	}
	r.line(cell{"lisp", bold})
	if m.Error != "" {
		r.line(cell{fmt.Sprintf("  %-10s ", "store"), faint}, cell{plain(m.Error), red})
	}
	r.field("sites", "%d of %d registered, with %d prefixes, kept in %s", m.Registered, m.Sites, m.Prefixes, m.Store)
	if list := counts(m.Served); list != "" {
		r.field("messages", "%s", list)
	}
	if len(m.Refused) > 0 {
		r.field("refused", "%s", counts(m.Refused))
	}
	for _, l := range m.Listeners {
		if l.Error != "" {
			r.field("listener", "%v: %s", l.Address, l.Error)
		}
	}
	for i, s := range m.SiteList {
		if i == maxShownSites {
			r.field("", "and %d more: sixfourctl status --json shows up to 1000", m.Sites-i)
			break
		}
		state := "nothing is registered"
		switch {
		case s.Prefixes > 0 && s.LastRegistered != nil:
			state = fmt.Sprintf("%d prefixes, by %v %s ago", s.Prefixes, s.From.Addr(), formatDuration(r.now.Sub(*s.LastRegistered)))
		case s.Prefixes > 0:
			state = fmt.Sprintf("%d prefixes, since before the start", s.Prefixes)
		}
		if len(s.Refused) > 0 {
			state += "; refused: " + counts(s.Refused)
		}
		r.field("site", "%s: %s", plain(s.Name), state)
	}
}
