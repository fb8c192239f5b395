package api

import (
	"time"
)

// Status is what the daemon is doing.
type Status struct {
	Version string         `json:"version"`
	Started time.Time      `json:"started"`
	Reloads Reloads        `json:"reloads"`
	Tunnels []TunnelStatus `json:"tunnels"`
	// Stray are packets that arrived at an outer address and belong to no
	// tunnel there.
	Stray Traffic `json:"stray"`
	// Strangers are from where some of them came, if from no tunnel's remote address,
	// the latest first.
	Strangers []Stranger `json:"strangers,omitempty"`
	Sandbox   *Sandbox   `json:"sandbox,omitempty"`
	// Gateway is what [gateway] came to; nil: there is none.
	Gateway *GatewayStatus `json:"gateway,omitempty"`
}

// Reloads counts the configurations that were to be run instead of another.
type Reloads struct {
	Succeeded uint64    `json:"succeeded"`
	Failed    uint64    `json:"failed"`
	Last      time.Time `json:"last,omitzero"`
	Error     string    `json:"error,omitempty"` // why the last one failed
}

// Stranger is an outer address that packets come from though no tunnel has it as its
// remote end: most often a peer whose address has changed.
type Stranger struct {
	From     string    `json:"from"`
	To       string    `json:"to"`
	Protocol int       `json:"protocol"`
	Last     time.Time `json:"last"`
}

// Sandbox is what the process may still do.
type Sandbox struct {
	User         string   `json:"user,omitempty"`
	Capabilities []string `json:"capabilities"`
	Landlock     string   `json:"landlock"`          // which version of it restricts files, or "off"
	Seccomp      string   `json:"seccomp"`           // whether system calls are restricted, "on" or "off"
	Missing      []string `json:"missing,omitempty"` // why something is off that should not be
}

// TunnelStatus is what one tunnel is doing. What is of one peer only is that of a
// tunnel's only peer, or, of a hub, in Peers.
type TunnelStatus struct {
	Name string `json:"name"`
	Mode string `json:"mode"`
	PeerStatus
	Interface string       `json:"interface"`
	Namespace string       `json:"netns,omitempty"`
	Peers     []PeerStatus `json:"peers,omitempty"`
	// Repairs counts what was put right without anybody's help, by what it was:
	// interface, address, route, socket, name or panic; only those that happened.
	Repairs map[string]uint64 `json:"repairs,omitempty"`
	// Neighbours are the other nodes that the tunnel's mechanism knows, such as routers and
	// the neighbour cache; only mechanisms that exchange control packets have any.
	Neighbours []Neighbour `json:"neighbours,omitempty"`
}

// Neighbour is another node of the link that an automatic mechanism makes.
type Neighbour struct {
	Address string  `json:"address"`         // inner address
	Outer   string  `json:"outer,omitempty"` // outer address, with a port if there are ports; not there: it is not known
	State   string  `json:"state"`           // incomplete, reachable, stale, delay or probe (RFC 4861 section 7.3.2); router or silent
	Age     float64 `json:"age_seconds"`     // since it was last heard of, or a packet sent to it
}

// PeerStatus is what goes between us and one peer.
type PeerStatus struct {
	Peer     string  `json:"peer,omitempty"` // its name
	State    State   `json:"state"`
	In       Traffic `json:"in"`
	Out      Traffic `json:"out"`
	Answered uint64  `json:"echo_answered"` // echo requests to our end of the layer, and keepalives, by the daemon itself
	ICMP     ICMP    `json:"icmp"`
	Probes   Probes  `json:"probes"`
	OddECN   uint64  `json:"ecn_odd"`    // packets with ECN fields that no sound path makes (RFC 6040 4.2)
	IDWraps  uint64  `json:"ipid_wraps"` // IPv4 identifications came round too soon (RFC 6864 4.3)

	Liveness  Liveness `json:"liveness"`
	LastError *Trouble `json:"last_error,omitempty"` // the last thing that went wrong
	LastDown  *Outage  `json:"last_down,omitempty"`  // the last time that the peer could not be reached
}

// Liveness is what is known of whether a peer lives, and how well it is reached. Of
// a hub's tunnel Sent and Lost are those of all peers, Loss is of the last probes of each
// peer, and Heard the latest.
type Liveness struct {
	Sent   uint64    `json:"sent"`           // probes
	Lost   uint64    `json:"lost"`           // those not answered in time
	Missed int       `json:"missed"`         // of them, in a row, until now
	RTT    float64   `json:"rtt_seconds"`    // smoothed (RFC 6298); 0: not known
	Loss   float64   `json:"loss"`           // 0 to 1, of the last 20 probes
	Heard  time.Time `json:"heard,omitzero"` // when it was last known that a packet had come from the peer
}

// Trouble is something that went wrong.
type Trouble struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
}

// Outage is a time during which a peer could not be reached.
type Outage struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"` // zero: it still cannot
	Why   string    `json:"why"`
}

// ICMP counts errors.
type ICMP struct {
	Heard   uint64 `json:"heard"`   // about our outer packets
	Ignored uint64 `json:"ignored"` // about packets that we have not sent, or not to be believed
	Sent    uint64 `json:"sent"`    // to inner senders
	Limited uint64 `json:"limited"` // not sent: too many

	HeardTypes ICMPTypes `json:"heard_types,omitzero"`
	SentTypes  ICMPTypes `json:"sent_types,omitzero"`
}

// ICMPTypes are errors by their type; those of ICMP and ICMPv6 that mean the same
// are one.
type ICMPTypes struct {
	Unreachable  uint64 `json:"unreachable,omitempty"`
	TooBig       uint64 `json:"too_big,omitempty"`
	TimeExceeded uint64 `json:"time_exceeded,omitempty"`
	Parameter    uint64 `json:"parameter_problem,omitempty"`
	Other        uint64 `json:"other,omitempty"`
}

// Add adds others.
func (t *ICMPTypes) Add(o ICMPTypes) {
	t.Unreachable += o.Unreachable
	t.TooBig += o.TooBig
	t.TimeExceeded += o.TimeExceeded
	t.Parameter += o.Parameter
	t.Other += o.Other
}

// Total is how many there are of all types.
func (t *ICMPTypes) Total() uint64 {
	return t.Unreachable + t.TooBig + t.TimeExceeded + t.Parameter + t.Other
}

// Probes counts those by which the path MTU is found.
type Probes struct {
	Sent     uint64 `json:"sent"`
	Answered uint64 `json:"answered"`
}

// Traffic is what went one way, and what did not.
type Traffic struct {
	Packets uint64            `json:"packets"`
	Bytes   uint64            `json:"bytes"` // of inner packets
	Drops   map[string]uint64 `json:"drops"` // by reason, only those that happened
}

// Add adds other traffic.
func (t *Traffic) Add(o Traffic) {
	t.Packets += o.Packets
	t.Bytes += o.Bytes
	for r, n := range o.Drops {
		t.Drops[r] += n
	}
}
