package api

import (
	"time"
)

// State is the state of a tunnel or of a peer.
type State struct {
	Phase  Phase     `json:"phase"`
	Since  time.Time `json:"since"`
	Detail string    `json:"detail,omitempty"` // why it is in this phase, and what to do

	Local     string `json:"local,omitempty"` // outer addresses in use
	Remote    string `json:"remote,omitempty"`
	Local6    string `json:"local6,omitempty"`
	Remote6   string `json:"remote6,omitempty"`
	Encap     string `json:"encap,omitempty"` // what packets travel in; not there: the layers of the mode only
	LocalPort uint16 `json:"local_port,omitempty"`
	Port      uint16 `json:"port,omitempty"` // the peer's
	IOState
	PathMTU   int    `json:"path_mtu,omitempty"`
	PathMTUBy string `json:"path_mtu_by,omitempty"` // the source of the value: route, icmp or probe
	TunnelMTU int    `json:"mtu,omitempty"`
}

// IOState is how packets are sent.
type IOState struct {
	IO       string `json:"io,omitempty"`        // socket, xdp or kernel
	IOWanted string `json:"io_wanted,omitempty"` // how they should be, because of io, if they, or some of them, are not
	IOWhy    string `json:"io_why,omitempty"`    // why they are not
}

// SameEnds reports whether two states have the same addresses.
func (s *State) SameEnds(o State) bool {
	return s.Local == o.Local && s.Remote == o.Remote && s.Local6 == o.Local6 && s.Remote6 == o.Remote6
}

// Phase is the state of a tunnel or of a peer in one word.
type Phase string

// Carries reports whether packets can be sent.
func (p Phase) Carries() bool { return p.Rank() > Waiting.Rank() }

// Rank orders phases: the higher it is, the better the peer can be reached.
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

// Phases. A tunnel starts, and waits until nothing is missing. Then its peer is probed; it
// is up when it has answered or sent a packet, suspect when it no longer answers probes, and
// down when it is silent as well. In the last four phases packets are sent. Without
// keepalive the only one of these is up.
const (
	Starting Phase = "starting"
	Waiting  Phase = "waiting"
	Probing  Phase = "probing"
	Up       Phase = "up"
	Suspect  Phase = "suspect"
	Down     Phase = "down"
)
