package api

import (
	"time"
)

// State is where a tunnel stands.
type State struct {
	Phase  Phase     `json:"phase"`
	Since  time.Time `json:"since"`
	Detail string    `json:"detail,omitempty"` // why it waits, and the way out

	Local     string `json:"local,omitempty"` // outer addresses in use
	Remote    string `json:"remote,omitempty"`
	Local6    string `json:"local6,omitempty"`
	Remote6   string `json:"remote6,omitempty"`
	IO        string `json:"io,omitempty"`     // how packets leave: socket or xdp
	IOWhy     string `json:"io_why,omitempty"` // why by the socket, although the configuration has xdp or auto
	PathMTU   int    `json:"path_mtu,omitempty"`
	PathMTUBy string `json:"path_mtu_by,omitempty"` // from where it is known: route, icmp or probe
	TunnelMTU int    `json:"mtu,omitempty"`
}

// SameEnds reports whether two states have the same addresses.
func (s *State) SameEnds(o State) bool {
	return s.Local == o.Local && s.Remote == o.Remote && s.Local6 == o.Local6 && s.Remote6 == o.Remote6
}

// Phase is a tunnel's state in one word.
type Phase string

// Carries reports whether packets can be sent.
func (p Phase) Carries() bool { return p.Rank() > Waiting.Rank() }

// Rank is how well a peer is off, in comparison.
func (p Phase) Rank() int {
	switch p {
	case Waiting:
		return 1
	case Down:
		return 2
	case Probing:
		return 3
	case Suspect:
		return 4
	case Up:
		return 5
	}
	return 0
}

// A tunnel starts, and waits for what it lacks. When it can carry, the peer is
// probed until it is heard, and is up then; when it does not answer any more it becomes
// suspect, and when it is silent, too, it is down. All of the last four carry packets.
// Without keepalive there is only up.
const (
	Starting Phase = "starting"
	Waiting  Phase = "waiting"
	Probing  Phase = "probing"
	Up       Phase = "up"
	Suspect  Phase = "suspect"
	Down     Phase = "down"
)
