package engine

import (
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/datapath"
	"sixfour/internal/report"
)

// reportWire reports the wire that is in use.
func (p *path) reportWire(wire *datapath.Wire) {
	s := api.State{IO: string(ioOf(wire)), IOWhy: p.noXDP, PathMTU: int(wire.MTU), PathMTUBy: string(wire.By)}
	report.Ends(&s, wire)
	if spec := p.spec(); spec.Encap != config.NoEncapsulation {
		s.Encap, s.LocalPort, s.Port = spec.Encap, spec.LocalPort, spec.Port
	}
	p.report.Uses(s, p.life.HasChecks(wire), p.t.MTU.Load())
}

func (t *tunnel) status() api.TunnelStatus {
	s := api.TunnelStatus{Name: t.cfg.Name, Mode: t.cfg.Mode.Name, Interface: t.cfg.Name, Namespace: t.cfg.Netns}
	t.CountOverflow()
	s.In, s.Out = t.In.Traffic(), t.Out.Traffic()
	for _, p := range t.peers {
		one := p.status()
		if t.only == nil {
			s.Peers = append(s.Peers, one)
		}
		report.Merge(&s, one)
		if t.only != nil {
			s.Liveness, s.LastError, s.LastDown, s.Paths = one.Liveness, one.LastError, one.LastDown, one.Paths
		}
	}
	if t.only == nil {
		s.Liveness.Loss = report.Loss(s.Peers)
	}
	s.ICMP.SentTypes = t.Reply.Sent.Types()
	s.ICMP.Sent = s.ICMP.SentTypes.Total()
	s.ICMP.Limited = t.Reply.Limited.Load()
	s.Repairs = t.report.Repairs()
	if a := t.agent.Running(); a != nil {
		s.Neighbours = report.Neighbours(a.Entries())
	}
	return s
}

// status returns the status of a peer. Its counts are those of all paths that it has or had.
func (p *peer) status() api.PeerStatus {
	s := p.statusOfPaths()
	if p.past != nil {
		report.Add(&s, p.past)
	}
	return s
}

func (p *peer) statusOfPaths() api.PeerStatus {
	shown := p.inUse()
	s := shown.status()
	if len(p.paths) == 1 {
		return s
	}
	uses := p.choice.Load().Uses()
	s.Paths = make([]api.PathStatus, len(p.paths))
	alone := s
	for i, one := range p.paths {
		o := alone
		if one != shown {
			o = one.status()
			report.Add(&s, &o)
		}
		s.Paths[i] = api.PathStatus{State: o.State, In: o.In, Out: o.Out, Liveness: o.Liveness, LastError: o.LastError, LastDown: o.LastDown}
		if uses != nil {
			u := uses[i]
			s.Paths[i].Used, s.Paths[i].Share, s.Paths[i].Why, s.Paths[i].WhySince = u.Share > 0, u.Share, u.Why, u.Since
		}
	}
	return s
}

func (p *path) status() api.PeerStatus {
	probes, answered := p.echo.Counts()
	return p.report.Status(api.Probes{Sent: probes, Answered: answered}, int(p.t.MTU.Load()))
}
