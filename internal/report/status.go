package report

import (
	"net/netip"

	"sixfour/encap/resolve"
	"sixfour/internal/api"
	"sixfour/internal/liveness"
)

// Neighbours returns the entries of a resolver for the status.
func Neighbours(entries []resolve.Entry) (list []api.Neighbour) {
	for _, e := range entries {
		address := e.Node.String()
		if e.Bits > 0 {
			address = netip.PrefixFrom(e.Node, e.Bits).String()
		}
		n := api.Neighbour{Address: address, State: e.State, Age: max(0, e.Age.Seconds())}
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

// Loss returns the fraction of the last probes to all peers that were not answered.
func Loss(peers []api.PeerStatus) float64 {
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

// Merge adds a peer's status to that of its tunnel. The tunnel's state is that of the first
// peer with the best phase. A tunnel with many peers shows no remote addresses.
func Merge(s *api.TunnelStatus, p api.PeerStatus) {
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
		s.State.Encap, s.State.LocalPort, s.State.Port = "", 0, 0
	}
}

// Sum returns the status of a peer from those of its paths: that of the path with the index
// shown, with the counts of all.
func Sum(paths []api.PeerStatus, shown int) api.PeerStatus {
	s := paths[shown]
	for i := range paths {
		if i != shown {
			Add(&s, &paths[i])
		}
	}
	return s
}

// Add adds the counts of another path of the same peer.
func Add(s, o *api.PeerStatus) {
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

// Past is the counts of paths that a peer had. It is immutable; nil: there were none.
type Past struct {
	counts api.PeerStatus
	last   []func() api.PeerStatus // of the paths that were removed last
}

// And returns the counts of p and of more paths, which are removed now. Packets that are in
// flight when a path is removed are counted later, so the counts of these paths are read
// each time until the next paths are removed.
func (p *Past) And(paths []func() api.PeerStatus) *Past {
	if len(paths) == 0 {
		return p
	}
	next := &Past{last: paths}
	p.AddTo(&next.counts)
	return next
}

// AddTo adds the counts to s.
func (p *Past) AddTo(s *api.PeerStatus) {
	if p == nil {
		return
	}
	Add(s, &p.counts)
	for _, status := range p.last {
		o := status()
		Add(s, &o)
	}
}

// sum returns the sum of two counts, and leaves them as they are.
func sum(a, b api.Traffic) (both api.Traffic) {
	both.Drops = make(map[string]uint64)
	both.Add(a)
	both.Add(b)
	return both
}
