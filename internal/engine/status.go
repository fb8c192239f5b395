package engine

import (
	"slices"

	"sixfour/encap/resolve"
	"sixfour/internal/api"
	"sixfour/internal/liveness"
)

func (t *tunnel) status() api.TunnelStatus {
	s := api.TunnelStatus{Name: t.cfg.Name, Mode: t.cfg.Mode.Name, Interface: t.cfg.Name, Namespace: t.cfg.Netns}
	t.overflow.look(t)
	s.In, s.Out = t.In.Traffic(), t.Out.Traffic()
	for _, p := range t.peers {
		one := p.status()
		if t.only == nil {
			s.Peers = append(s.Peers, one)
		}
		merge(&s, one)
		if t.only != nil {
			s.Liveness, s.LastError, s.LastDown, s.Paths = one.Liveness, one.LastError, one.LastDown, one.Paths
		}
	}
	if t.only == nil {
		s.Liveness.Loss = lossOf(s.Peers)
	}
	s.ICMP.SentTypes = t.Reply.Sent.Types()
	s.ICMP.Sent = s.ICMP.SentTypes.Total()
	s.ICMP.Limited = t.Reply.Limited.Load()
	s.Repairs = t.repairs.counts()
	if a := t.agent.Load(); a != nil {
		s.Neighbours = neighbours(a.Entries())
	}
	return s
}

// neighbours returns the entries of a resolver for the status.
func neighbours(entries []resolve.Entry) (list []api.Neighbour) {
	for _, e := range entries {
		n := api.Neighbour{Address: e.Node.String(), State: e.State, Age: max(0, e.Age.Seconds())}
		switch {
		case !e.Link.IsValid():
		case e.Link.Port() == 0:
			n.Outer = e.Link.Addr().String()
		default:
			n.Outer = e.Link.String()
		}
		list = append(list, n)
	}
	return list
}

// lossOf returns the fraction of the last probes to all peers that were not answered.
func lossOf(peers []api.PeerStatus) float64 {
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

// merge adds a peer's status to that of its tunnel. The tunnel's state is that of the first
// peer with the best phase. A tunnel with many peers shows no remote addresses.
func merge(s *api.TunnelStatus, p api.PeerStatus) {
	s.In.Add(p.In)
	s.Out.Add(p.Out)
	s.Answered += p.Answered
	s.ICMP.Received += p.ICMP.Received
	s.ICMP.Ignored += p.ICMP.Ignored
	s.ICMP.ReceivedTypes.Add(p.ICMP.ReceivedTypes)
	s.Probes.Sent += p.Probes.Sent
	s.Probes.Answered += p.Probes.Answered
	s.InvalidECN += p.InvalidECN
	s.IDRepeats += p.IDRepeats
	s.Liveness.Sent += p.Liveness.Sent
	s.Liveness.Lost += p.Liveness.Lost
	if p.Liveness.LastPacket.After(s.Liveness.LastPacket) {
		s.Liveness.LastPacket = p.Liveness.LastPacket
	}
	if s.State.Phase != "" && p.State.Phase.Rank() <= s.State.Phase.Rank() {
		return
	}
	s.State = p.State
	if len(s.Peers) > 0 {
		s.State.Remote, s.State.Remote6, s.State.PathMTU, s.State.PathMTUBy = "", "", 0, ""
	}
}

// status returns the status of a peer. With several paths, the counts are those of all.
func (p *peer) status() api.PeerStatus {
	shown, used := p.inUse(), p.used()
	s := shown.status()
	if len(p.paths) == 1 {
		return s
	}
	s.Paths = make([]api.PathStatus, len(p.paths))
	for i, one := range p.paths {
		o := s
		if one != shown {
			o = one.status()
			add(&s, &o)
		}
		s.Paths[i] = api.PathStatus{Used: slices.Contains(used, i), State: o.State, In: o.In, Out: o.Out, Liveness: o.Liveness, LastError: o.LastError, LastDown: o.LastDown}
	}
	return s
}

// add adds the counts of another path of the same peer.
func add(s, o *api.PeerStatus) {
	s.In, s.Out = sum(s.In, o.In), sum(s.Out, o.Out)
	s.Answered += o.Answered
	s.ICMP.Received += o.ICMP.Received
	s.ICMP.Ignored += o.ICMP.Ignored
	s.ICMP.ReceivedTypes.Add(o.ICMP.ReceivedTypes)
	s.Probes.Sent += o.Probes.Sent
	s.Probes.Answered += o.Probes.Answered
	s.InvalidECN += o.InvalidECN
	s.IDRepeats += o.IDRepeats
}

// sum returns the sum of two counts, and leaves them as they are.
func sum(a, b api.Traffic) (both api.Traffic) {
	both.Drops = make(map[string]uint64)
	both.Add(a)
	both.Add(b)
	return both
}

func (p *path) status() api.PeerStatus {
	probes, answered := p.echo.Counts()
	s := api.PeerStatus{
		Peer:       p.peer.cfg.Name,
		In:         p.In.Traffic(),
		Out:        p.Out.Traffic(),
		Answered:   p.Requests.Answered.Load(),
		ICMP:       api.ICMP{ReceivedTypes: p.ICMP.Errors.Types(), Ignored: p.ICMP.Ignored.Load()},
		Probes:     api.Probes{Sent: probes, Answered: answered},
		InvalidECN: p.Record.OddECN(),
		IDRepeats:  p.Record.Wraps(),
	}
	s.ICMP.Received = s.ICMP.ReceivedTypes.Total()
	p.mu.Lock()
	defer p.mu.Unlock()
	s.State, s.Liveness = p.state, p.liveness
	if s.State.Phase.Carries() {
		s.State.TunnelMTU = int(p.t.MTU.Load())
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
