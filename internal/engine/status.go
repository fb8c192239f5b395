package engine

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"sixfour/encap"
)

// Status is what the daemon is doing.
type Status struct {
	Tunnels []TunnelStatus `json:"tunnels"`
	// Stray are packets that arrived at an outer address and belong to no
	// tunnel there.
	Stray Traffic `json:"stray"`
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
}

// ICMP counts errors.
type ICMP struct {
	Heard   uint64 `json:"heard"`   // about our outer packets
	Ignored uint64 `json:"ignored"` // about packets that we have not sent, or not to be believed
	Sent    uint64 `json:"sent"`    // to inner senders
	Limited uint64 `json:"limited"` // not sent: too many
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
	IO        string `json:"io,omitempty"` // how packets leave: socket or xdp
	PathMTU   int    `json:"path_mtu,omitempty"`
	PathMTUBy string `json:"path_mtu_by,omitempty"` // from where it is known: route, icmp or probe
	TunnelMTU int    `json:"mtu,omitempty"`
}

// Phase is a tunnel's state in one word.
type Phase string

// A tunnel starts, waits for what it lacks, and is up when it can carry.
const (
	Starting Phase = "starting"
	Waiting  Phase = "waiting"
	Up       Phase = "up"
)

func (t *tunnel) status() TunnelStatus {
	s := TunnelStatus{Name: t.cfg.Name, Mode: t.cfg.Mode.Name, Interface: t.cfg.Name, Namespace: t.cfg.Netns}
	s.In, s.Out = t.in.traffic(), t.out.traffic()
	for _, p := range t.peers {
		one := p.status()
		if t.only == nil {
			s.Peers = append(s.Peers, one)
		}
		s.merge(one)
	}
	s.ICMP.Sent, s.ICMP.Limited = t.reply.sent.Load(), t.reply.limited.Load()
	return s
}

// merge adds a peer's status to that of its tunnel, whose state is that of the
// first peer that is up. Of many, no addresses are the tunnel's.
func (s *TunnelStatus) merge(p PeerStatus) {
	s.In.merge(p.In)
	s.Out.merge(p.Out)
	s.Answered += p.Answered
	s.ICMP.Heard += p.ICMP.Heard
	s.ICMP.Ignored += p.ICMP.Ignored
	s.Probes.Sent += p.Probes.Sent
	s.Probes.Answered += p.Probes.Answered
	s.OddECN += p.OddECN
	s.IDWraps += p.IDWraps
	if s.State.Phase == Up || s.State.Phase != "" && p.State.Phase != Up {
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
		ICMP:     ICMP{Heard: p.heard.errors.Load(), Ignored: p.heard.ignored.Load()},
		Probes:   Probes{p.echo.probes.Load(), p.echo.answered.Load()},
		OddECN:   p.record.OddECN(),
		IDWraps:  p.record.Wraps(),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.State = p.state
	if s.State.Phase == Up {
		s.State.TunnelMTU = int(p.t.mtu.Load())
	}
	return s
}

// setState notes a phase without a path, and logs it if it is news.
func (p *peer) setState(phase Phase, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Phase == phase && p.state.Detail == detail {
		return
	}
	p.state = State{Phase: phase, Since: time.Now(), Detail: detail}
	if phase == Waiting {
		p.log().Log(p.t.waitingLevel(), "waiting", zap.String("for", detail))
	}
}

// waitingLogs is how many of a hub's peers are told of that begin to wait at the same
// time: when the uplink goes, there may be thousands.
const waitingLogs = 10

// waitingLevel is how important it is that another peer waits.
func (t *tunnel) waitingLevel() zapcore.Level {
	t.waiting++
	if t.waiting > waitingLogs {
		return zap.DebugLevel
	}
	return zap.WarnLevel
}

// setUp notes the path that is in use, and logs it.
func (p *peer) setUp(path *path) {
	p.mu.Lock()
	defer p.mu.Unlock()
	since, before := time.Now(), p.state
	if before.Phase == Up {
		since = before.Since
	}
	p.state = State{
		Phase: Up, Since: since,
		IO: string(path.io()), PathMTU: int(path.mtu), PathMTUBy: string(path.by),
	}
	p.state.setEnds(path.layers)
	if was := before; was.Phase == Up {
		was.PathMTU, was.PathMTUBy = p.state.PathMTU, p.state.PathMTUBy
		if was == p.state { // nothing else is new
			if before == p.state {
				return
			}
			p.log().Log(p.t.level(), "path MTU", zap.Int("path_mtu", int(path.mtu)), zap.String("by", string(path.by)), zap.Int("before", before.PathMTU))
			return
		}
	}
	p.log().Log(p.t.level(), "up", zap.String("local", p.state.Local), zap.String("remote", p.state.Remote), zap.String("io", p.state.IO),
		zap.Int("path_mtu", int(path.mtu)), zap.String("path_mtu_by", string(path.by)), zap.Int64("mtu", p.t.mtu.Load()))
}

// level is that of what each peer's life has anyhow: of a hub there may be
// thousands.
func (t *tunnel) level() zapcore.Level {
	if t.only == nil {
		return zap.DebugLevel
	}
	return zap.InfoLevel
}

// setEnds notes the addresses of the outermost layer, and of the innermost one over
// IPv6 inside it.
func (s *State) setEnds(layers []encap.Layer) {
	outer := layers[len(layers)-1]
	s.Local, s.Remote = outer.Local.String(), "any"
	if outer.Resolver == nil {
		s.Remote = outer.Remote.String()
	}
	for _, l := range layers[:len(layers)-1] {
		if l.Kind.Over() == 6 {
			s.Local6, s.Remote6 = l.Local.String(), l.Remote.String()
			return
		}
	}
}
