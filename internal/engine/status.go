package engine

import (
	"time"

	"sixfour/internal/liveness"
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

// Probes counts those by which the path MTU is found.
type Probes struct {
	Sent     uint64 `json:"sent"`
	Answered uint64 `json:"answered"`
}

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

func (t *tunnel) status() TunnelStatus {
	s := TunnelStatus{Name: t.cfg.Name, Mode: t.cfg.Mode.Name, Interface: t.cfg.Name, Namespace: t.cfg.Netns}
	t.overflow.look(t)
	s.In, s.Out = t.in.traffic(), t.out.traffic()
	for _, p := range t.peers {
		one := p.status()
		if t.only == nil {
			s.Peers = append(s.Peers, one)
		}
		s.merge(one)
		if t.only != nil {
			s.Liveness, s.LastError, s.LastDown = one.Liveness, one.LastError, one.LastDown
		}
	}
	if t.only == nil {
		s.Liveness.Loss = lossOf(s.Peers)
	}
	s.ICMP.SentTypes = t.reply.sent.counts()
	s.ICMP.Sent = s.ICMP.SentTypes.total()
	s.ICMP.Limited = t.reply.limited.Load()
	s.Repairs = t.repairs.counts()
	return s
}

// lossOf is the share of the last probes to all peers that was not answered.
func lossOf(peers []PeerStatus) float64 {
	var probes, lost float64
	for _, p := range peers {
		n := float64(min(p.Liveness.Sent, liveness.Window))
		probes, lost = probes+n, lost+n*p.Liveness.Loss
	}
	if probes == 0 {
		return 0
	}
	return lost / probes
}

// merge adds a peer's status to that of its tunnel, whose state is that of the
// first of the peers that are best off. Of many, no addresses are the tunnel's.
func (s *TunnelStatus) merge(p PeerStatus) {
	s.In.merge(p.In)
	s.Out.merge(p.Out)
	s.Answered += p.Answered
	s.ICMP.Heard += p.ICMP.Heard
	s.ICMP.Ignored += p.ICMP.Ignored
	s.ICMP.HeardTypes.merge(p.ICMP.HeardTypes)
	s.Probes.Sent += p.Probes.Sent
	s.Probes.Answered += p.Probes.Answered
	s.OddECN += p.OddECN
	s.IDWraps += p.IDWraps
	s.Liveness.Sent += p.Liveness.Sent
	s.Liveness.Lost += p.Liveness.Lost
	if p.Liveness.Heard.After(s.Liveness.Heard) {
		s.Liveness.Heard = p.Liveness.Heard
	}
	if s.State.Phase != "" && p.State.Phase.rank() <= s.State.Phase.rank() {
		return
	}
	s.State = p.State
	if len(s.Peers) > 0 {
		s.State.Remote, s.State.Remote6, s.State.PathMTU, s.State.PathMTUBy = "", "", 0, ""
	}
}

func (p *peer) status() PeerStatus {
	s := PeerStatus{
		Peer:     p.cfg.Name,
		In:       p.in.traffic(),
		Out:      p.out.traffic(),
		Answered: p.answered.Load(),
		ICMP:     ICMP{HeardTypes: p.heard.errors.counts(), Ignored: p.heard.ignored.Load()},
		Probes:   Probes{p.echo.probes.Load(), p.echo.answered.Load()},
		OddECN:   p.record.OddECN(),
		IDWraps:  p.record.Wraps(),
	}
	s.ICMP.Heard = s.ICMP.HeardTypes.total()
	p.mu.Lock()
	defer p.mu.Unlock()
	s.State, s.Liveness = p.state, p.liveness
	if s.State.Phase.Carries() {
		s.State.TunnelMTU = int(p.t.mtu.Load())
	}
	if p.trouble.What != "" {
		t := p.trouble
		s.LastError = &t
	}
	if p.outage.Why != "" {
		o := p.outage
		s.LastDown = &o
	}
	return s
}
