package api

import (
	"time"
)

// Status is the status of the daemon.
type Status struct {
	Version string         `json:"version"`
	Started time.Time      `json:"started"`
	Reloads Reloads        `json:"reloads"`
	Tunnels []TunnelStatus `json:"tunnels"`
	// Stray counts packets that arrived at an outer address of ours and belong to no
	// tunnel.
	Stray Traffic `json:"stray"`
	// UnknownSources are source addresses of such packets that are no tunnel's remote
	// address, the latest first.
	UnknownSources []UnknownSource `json:"strangers,omitempty"`
	Sandbox        *Sandbox        `json:"sandbox,omitempty"`
	// Gateway is the status of [gateway]; nil: there is none.
	Gateway *GatewayStatus `json:"gateway,omitempty"`
	// Broker is the status of [broker]; nil: there is none.
	Broker *BrokerStatus `json:"broker,omitempty"`
	// LISP is the status of [lisp]; nil: there is none.
	LISP *MapServerStatus `json:"lisp,omitempty"`
}

// Reloads counts reloads of the configuration.
type Reloads struct {
	Succeeded uint64    `json:"succeeded"`
	Failed    uint64    `json:"failed"`
	Last      time.Time `json:"last,omitzero"`
	Error     string    `json:"error,omitempty"` // why the last one failed
}

// UnknownSource is an outer source address that is the remote address of no tunnel: most often
// that of a peer whose address has changed.
type UnknownSource struct {
	From     string    `json:"from"`
	To       string    `json:"to"`
	Protocol int       `json:"protocol"`
	Last     time.Time `json:"last"`
}

// Sandbox describes the rights that the process has kept.
type Sandbox struct {
	User         string   `json:"user,omitempty"`
	Capabilities []string `json:"capabilities"`
	Landlock     string   `json:"landlock"`          // the version of Landlock that restricts files, or "off"
	Seccomp      string   `json:"seccomp"`           // whether system calls are restricted, "on" or "off"
	Missing      []string `json:"missing,omitempty"` // why something is off that should be on
}

// TunnelStatus is the status of one tunnel. If it has only one peer, the embedded
// PeerStatus is that peer's. For a hub it is the sum of all peers, which are in Peers.
type TunnelStatus struct {
	Name string `json:"name"`
	Mode string `json:"mode"`
	PeerStatus
	Interface string       `json:"interface"`
	Namespace string       `json:"netns,omitempty"`
	Peers     []PeerStatus `json:"peers,omitempty"`
	// Repairs counts automatic repairs by kind: interface, address, route, socket,
	// name, namespace or panic. Kinds without repairs are absent.
	Repairs map[string]uint64 `json:"repairs,omitempty"`
	// Neighbours are the other nodes that the tunnel's mechanism knows, such as routers and
	// the neighbour cache; only mechanisms that exchange control packets have any.
	Neighbours []Neighbour `json:"neighbours,omitempty"`
	// AddressUpdate is the state of reporting our outer address; nil: update_url is not set.
	AddressUpdate *AddressUpdate `json:"address_update,omitempty"`
	// Session is the session with the server of the mode; nil: the mode has none.
	Session *Session `json:"session,omitempty"`
}

// Session is the state of a session with a server, and what it has granted. What was granted is
// in use until the server grants something else, also while the session is interrupted.
type Session struct {
	Server  string    `json:"server"`             // as configured
	State   string    `json:"state"`              // connecting, up or retrying
	Since   time.Time `json:"since"`              // when the state began
	Said    string    `json:"said,omitempty"`     // what the server said last, in its own words
	Error   string    `json:"error,omitempty"`    // why there is no session, and what to do
	Next    time.Time `json:"next,omitzero"`      // of the next attempt, if its time is known
	Address string    `json:"address,omitempty"`  // granted: of this end of the tunnel
	Routed  []string  `json:"prefixes,omitempty"` // granted: what the server routes to this end
	MTU     int       `json:"mtu,omitempty"`      // granted
	Type    string    `json:"type,omitempty"`     // granted: what packets travel in
	Granted time.Time `json:"granted,omitzero"`   // when
	// Attempts counts attempts to get or to keep the session, by result: success or failure.
	Attempts map[string]uint64 `json:"attempts"`
}

// States of a Session.
const (
	SessionConnecting = "connecting" // no attempt has ended yet
	SessionUp         = "up"         // the server serves this end; for heartbeats: messages are sent
	SessionRetrying   = "retrying"   // the last attempt failed, or the session has ended
)

// AddressUpdate is the state of reporting a tunnel's outer address to a broker.
type AddressUpdate struct {
	State  string    `json:"state"`            // waiting, done, retrying or stopped
	Server string    `json:"server"`           // host of update_url
	Host   string    `json:"host"`             // update_host
	Local  string    `json:"local,omitempty"`  // the outer address that the last request was sent from
	At     time.Time `json:"at,omitzero"`      // of the last request
	Answer string    `json:"answer,omitempty"` // of the server to the last request
	Error  string    `json:"error,omitempty"`  // why the last request was not accepted
	Next   time.Time `json:"next,omitzero"`    // of the next attempt, if the state is retrying
}

// States of an AddressUpdate.
const (
	UpdateWaiting  = "waiting"  // no request was sent yet: there is no outer address
	UpdateDone     = "done"     // the server has accepted the last request
	UpdateRetrying = "retrying" // the last request failed
	UpdateStopped  = "stopped"  // the server has refused, and is not asked again before a reload
)

// Neighbour is another node of the link that an automatic mechanism makes.
type Neighbour struct {
	Address string  `json:"address"`         // inner address
	Outer   string  `json:"outer,omitempty"` // outer address, with a port if there are ports; not there: it is not known
	State   string  `json:"state"`           // incomplete, reachable, stale, delay or probe (RFC 4861 section 7.3.2); router or silent
	Age     float64 `json:"age_seconds"`     // since it was last heard of, or a packet sent to it
}

// PeerStatus is the status of one peer, with the traffic to and from it.
type PeerStatus struct {
	Peer       string  `json:"peer,omitempty"` // its name
	State      State   `json:"state"`
	In         Traffic `json:"in"`
	Out        Traffic `json:"out"`
	Answered   uint64  `json:"echo_answered"` // echo requests and keepalives that the daemon answered
	ICMP       ICMP    `json:"icmp"`
	Probes     Probes  `json:"probes"`
	InvalidECN uint64  `json:"ecn_odd"`    // packets with an invalid combination of ECN fields (RFC 6040 4.2)
	IDRepeats  uint64  `json:"ipid_wraps"` // times that IPv4 identifications repeated too soon (RFC 6864 4.3)

	Liveness  Liveness `json:"liveness"`
	LastError *Fault   `json:"last_error,omitempty"` // the latest error
	LastDown  *Outage  `json:"last_down,omitempty"`  // the latest time during which the peer was down

	// Paths are the ways to the peer, in the order of preference, if there are several.
	// The state, liveness and errors above are then those of the path in use.
	Paths []PathStatus `json:"paths,omitempty"`
}

// PathStatus is the state of one of several ways to a peer.
type PathStatus struct {
	Used      bool      `json:"used"`               // packets to the peer use it
	Share     float64   `json:"share"`              // fraction of the flows to the peer that use it
	Why       string    `json:"why,omitempty"`      // why packets use it, or do not
	WhySince  time.Time `json:"why_since,omitzero"` // when packets began or ceased to use it, or another reason began
	State     State     `json:"state"`
	In        Traffic   `json:"in"`
	Out       Traffic   `json:"out"`
	Liveness  Liveness  `json:"liveness"`
	LastError *Fault    `json:"last_error,omitempty"`
	LastDown  *Outage   `json:"last_down,omitempty"`
}

// Liveness is the result of a peer's probes. In the status of a hub, Sent and Lost are
// sums over all peers, Loss is over the last probes of each peer, and LastPacket is the latest.
type Liveness struct {
	Sent       uint64    `json:"sent"`           // number of probes
	Lost       uint64    `json:"lost"`           // probes not answered in time
	Missed     int       `json:"missed"`         // probes lost in a row until now
	RTT        float64   `json:"rtt_seconds"`    // smoothed (RFC 6298); 0: not known
	Loss       float64   `json:"loss"`           // 0 to 1, of the last 20 probes
	LastPacket time.Time `json:"heard,omitzero"` // when a packet from the peer was last noticed
	Marks      Marks     `json:"ecn_marks,omitempty"`
}

// Marks is what probes have shown of ECN congestion marks in outer packets on the way to the
// peer (RFC 6040).
type Marks string

// The values of Marks.
const (
	MarksUnknown Marks = ""
	MarksKept    Marks = "kept"
	MarksRemoved Marks = "removed" // by the path, or ignored by the far end
)

// Fault is an error and its time.
type Fault struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
}

// Outage is a period during which a peer could not be reached.
type Outage struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"` // zero: the period has not ended
	Why   string    `json:"why"`
}

// ICMP counts ICMP errors.
type ICMP struct {
	Received uint64 `json:"heard"`   // received about our outer packets
	Ignored  uint64 `json:"ignored"` // received about packets that were not sent, or not plausible
	Sent     uint64 `json:"sent"`    // sent to inner senders
	Limited  uint64 `json:"limited"` // not sent because of the rate limit

	ReceivedTypes ICMPTypes `json:"heard_types,omitzero"`
	SentTypes     ICMPTypes `json:"sent_types,omitzero"`
}

// ICMPTypes counts errors by type. Types of ICMP and ICMPv6 with the same meaning are
// counted together.
type ICMPTypes struct {
	Unreachable  uint64 `json:"unreachable,omitempty"`
	TooBig       uint64 `json:"too_big,omitempty"`
	TimeExceeded uint64 `json:"time_exceeded,omitempty"`
	Parameter    uint64 `json:"parameter_problem,omitempty"`
	Other        uint64 `json:"other,omitempty"`
}

// Add adds the counts of o.
func (t *ICMPTypes) Add(o ICMPTypes) {
	t.Unreachable += o.Unreachable
	t.TooBig += o.TooBig
	t.TimeExceeded += o.TimeExceeded
	t.Parameter += o.Parameter
	t.Other += o.Other
}

// Total returns the number of errors of all types.
func (t *ICMPTypes) Total() uint64 {
	return t.Unreachable + t.TooBig + t.TimeExceeded + t.Parameter + t.Other
}

// Probes counts probes of the path MTU.
type Probes struct {
	Sent     uint64 `json:"sent"`
	Answered uint64 `json:"answered"`
}

// Traffic counts the packets of one direction, those carried and those dropped.
type Traffic struct {
	Packets uint64            `json:"packets"`
	Bytes   uint64            `json:"bytes"` // of inner packets
	Drops   map[string]uint64 `json:"drops"` // by reason; reasons that did not occur are absent
}

// Add adds the counts of o.
func (t *Traffic) Add(o Traffic) {
	t.Packets += o.Packets
	t.Bytes += o.Bytes
	for r, n := range o.Drops {
		t.Drops[r] += n
	}
}
