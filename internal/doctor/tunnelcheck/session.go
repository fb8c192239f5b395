package tunnelcheck

import (
	"context"

	"sixfour/internal/api"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/subject"
)

// Session reports whether there is a session with the server of the tunnel's mode.
func Session(_ context.Context, t *subject.Tunnel) finding.Finding {
	if t.Status == nil || t.Status.Session == nil {
		return finding.Skipped("the mode has no server, or no daemon runs the tunnel")
	}
	s := t.Status.Session
	const remedy = "sixfourctl watch (the daemon tries again by itself)"
	switch {
	case s.State == api.SessionUp && s.Address == "":
		return finding.Passed("the session with %s is up", s.Server)
	case s.State == api.SessionUp:
		return finding.Passed("the session with %s is up, and it grants %s", s.Server, s.Address)
	case s.Error != "":
		return finding.Failed(remedy, "there is no session with %s: %s", s.Server, s.Error)
	}
	return finding.Failed(remedy, "there is no session with %s: it has not answered yet", s.Server)
}
