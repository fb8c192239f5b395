package engine

import (
	"time"

	"go.uber.org/zap"
)

// Status is what the daemon is doing.
type Status struct {
	Tunnels []TunnelStatus `json:"tunnels"`
	// Stray are packets that arrived at an outer address and belong to no
	// tunnel there.
	Stray Traffic `json:"stray"`
}

// TunnelStatus is what one tunnel is doing.
type TunnelStatus struct {
	Name      string  `json:"name"`
	Mode      string  `json:"mode"`
	State     State   `json:"state"`
	In        Traffic `json:"in"`
	Out       Traffic `json:"out"`
	Answered  uint64  `json:"echo_answered"` // ICMPv6 echo requests to our end of the layer, by the daemon itself
	ICMP      ICMP    `json:"icmp"`
	Probes    Probes  `json:"probes"`
	OddECN    uint64  `json:"ecn_odd"`    // packets with ECN fields that no sound path makes (RFC 6040 4.2)
	IDWraps   uint64  `json:"ipid_wraps"` // IPv4 identifications came round too soon (RFC 6864 4.3)
	Interface string  `json:"interface"`
	Namespace string  `json:"netns,omitempty"`
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
	t.mu.Lock()
	defer t.mu.Unlock()
	return TunnelStatus{
		Name:      t.cfg.Name,
		Mode:      t.cfg.Mode.Name,
		State:     t.state,
		In:        t.in.traffic(),
		Out:       t.out.traffic(),
		Answered:  t.answered.Load(),
		ICMP:      ICMP{t.heard.errors.Load(), t.heard.ignored.Load(), t.reply.sent.Load(), t.reply.limited.Load()},
		Probes:    Probes{t.echo.probes.Load(), t.echo.answered.Load()},
		OddECN:    t.record.OddECN(),
		IDWraps:   t.record.Wraps(),
		Interface: t.cfg.Name,
		Namespace: t.cfg.Netns,
	}
}

// setState notes a phase without a path, and logs it if it is news.
func (t *tunnel) setState(phase Phase, detail string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state.Phase == phase && t.state.Detail == detail {
		return
	}
	t.state = State{Phase: phase, Since: time.Now(), Detail: detail}
	if phase == Waiting {
		t.log.Warn("waiting", zap.String("for", detail))
	}
}

// setUp notes the path that is in use, and logs it.
func (t *tunnel) setUp(p *path) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := func(valid bool, s string) string {
		if valid {
			return s
		}
		return ""
	}
	since, before := time.Now(), t.state
	if before.Phase == Up {
		since = before.Since
	}
	e := p.endpoints
	t.state = State{
		Phase: Up, Since: since,
		Local: e.Local.String(), Remote: e.Remote.String(),
		Local6: text(e.Local6.IsValid(), e.Local6.String()), Remote6: text(e.Remote6.IsValid(), e.Remote6.String()),
		IO: string(p.io()), PathMTU: int(p.mtu), PathMTUBy: string(p.by), TunnelMTU: int(t.mtu),
	}
	if was := before; was.Phase == Up {
		was.PathMTU, was.PathMTUBy = t.state.PathMTU, t.state.PathMTUBy
		if was == t.state { // nothing else is new
			t.log.Info("path MTU", zap.Int("path_mtu", int(p.mtu)), zap.String("by", string(p.by)), zap.Int("before", before.PathMTU))
			return
		}
	}
	t.log.Info("up", zap.Stringer("local", e.Local), zap.Stringer("remote", e.Remote), zap.String("io", string(p.io())),
		zap.Int("path_mtu", int(p.mtu)), zap.String("path_mtu_by", string(p.by)), zap.Int("mtu", int(t.mtu)))
}
