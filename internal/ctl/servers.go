package ctl

import (
	"fmt"
	"strings"

	"sixfour/internal/api"
)

// addressUpdate shows what a broker knows of our outer address.
func (r *reporter) addressUpdate(u *api.AddressUpdate) {
	if u == nil {
		return
	}
	text := u.Server + " "
	switch u.State {
	case api.UpdateWaiting:
		text += "gets our address when there is one"
	case api.UpdateDone:
		text += fmt.Sprintf("answered %s %s ago", u.Answer, r.since(u.At))
	case api.UpdateStopped:
		text += fmt.Sprintf("does not get our address, since %s: %s: then reload", r.since(u.At), u.Error)
	default:
		text += fmt.Sprintf("did not take our address %s ago: %s; next attempt in %s", r.since(u.At), u.Error, formatDuration(max(u.Next.Sub(r.now), 0)))
	}
	r.field("broker", "%s", text)
}

// session shows the state of the session with a server, and what it has granted.
func (r *reporter) session(s *api.Session) {
	if s == nil {
		return
	}
	text := s.Server + " "
	switch s.State {
	case api.SessionUp:
		text += "up for " + r.since(s.Since)
	case api.SessionConnecting:
		text += "has not answered yet"
	default:
		text += fmt.Sprintf("no session for %s", r.since(s.Since))
	}
	if s.Error != "" {
		text += ": " + s.Error
	}
	if !s.Next.IsZero() && s.State != api.SessionUp {
		text += "; next attempt in " + formatDuration(max(s.Next.Sub(r.now), 0))
	}
	r.field("server", "%s", text)
	if s.Said != "" {
		r.field("", "it says: %s", s.Said)
	}
	if s.Address == "" {
		return
	}
	text = s.Address
	if len(s.Routed) > 0 {
		text += ", prefix " + strings.Join(s.Routed, ", ")
	}
	if s.MTU != 0 {
		text += fmt.Sprintf(", MTU %d", s.MTU)
	}
	r.field("granted", "%s, in %s, %s ago", text, s.Type, r.since(s.Granted))
}
