package doctor

import (
	"context"
	"net"

	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/subject"
)

// hasMapServer reports whether the configuration has a LISP map server.
func hasMapServer(h *subject.Host) bool { return h.Config != nil && len(h.Config.LISP.Listen) > 0 }

func checkMapServer(_ context.Context, h *subject.Host) finding.Finding {
	switch {
	case h.Status == nil:
		return finding.Skipped("no daemon is running")
	case h.Status.LISP == nil:
		return finding.Failed("systemctl restart sixfourd", "[lisp] is in the file, but the daemon has no map server: it begins at a start, not at a reload")
	case h.Status.LISP.Error != "":
		return finding.Failed("systemctl restart sixfourd, when that is corrected", "all registrations are refused: %s", h.Status.LISP.Error)
	}
	for _, l := range h.Status.LISP.Listeners {
		if l.Error != "" {
			return finding.Failed("journalctl -u sixfourd (the daemon tries again by itself)", "routers cannot reach %v: %s", l.Address, l.Error)
		}
		// The daemon listens at addresses that the host does not have yet.
		if c, err := net.ListenPacket("udp", net.JoinHostPort(l.Address.Addr().String(), "0")); err != nil {
			return finding.Failed("ip address show; then correct listen in [lisp], or add the address", "routers cannot reach %v: this host does not have the address", l.Address)
		} else {
			c.Close()
		}
	}
	for _, s := range h.Status.LISP.SiteList {
		if s.Prefixes == 0 && len(s.Refused) > 0 {
			return finding.Failed("sixfourctl status; then compare key_file with the router's key", "site %s has registered nothing, and its registrations are refused: %s", s.Name, mostRefused(s.Refused))
		}
	}
	return finding.Passed("%d of %d sites are registered, with %d prefixes", h.Status.LISP.Registered, h.Status.LISP.Sites, h.Status.LISP.Prefixes)
}

// mostRefused returns the reason for which most registrations of a site were refused.
func mostRefused(by map[string]uint64) (reason string) {
	for r, n := range by {
		if reason == "" || n > by[reason] || n == by[reason] && r < reason {
			reason = r
		}
	}
	return reason
}
