package doctor

import (
	"fmt"
	"net/netip"

	"sixfour/encap"
	"sixfour/encap/resolve"
	"sixfour/internal/probe"
)

// candidate is a question that the peer may answer.
type candidate struct {
	question
	name string // of what answers
	sure bool   // it must answer if the peer is as the configuration says
}

// candidates returns the ways to probe the peer through the tunnel, the best first.
func (p *peer) candidates(layers []encap.Layer) (all []candidate) {
	add := func(w way, local, remote netip.Addr, sure bool, name string) {
		all = append(all, candidate{question{way: w, local: local, remote: remote}, name, sure})
	}
	if p.t.mechanism() >= 0 {
		if own := p.ownIn6(); own.IsValid() && p.forwardsBack() {
			add(loop, own, own, false, fmt.Sprintf("the way to ourselves, %v, through %v", own, p.remote))
		}
		return all
	}
	if p.cfg.Probe.IsValid() {
		for _, c := range p.t.cfg.Probed(p.cfg) {
			if c.Local.IsValid() {
				add(inside, c.Local, c.Remote, true, c.Remote.String())
			}
		}
	}
	if local, remote, ok := probe.Ends(layers); ok {
		add(inside, local, remote, true, remote.String())
	}
	for _, c := range p.t.cfg.Inside(p.cfg) {
		add(inside, c.Local, c.Remote, c.Sure, c.Remote.String())
	}
	if _, ok := layers[0].Kind.Framing().(encap.Keepaliver); ok && len(layers) == 1 {
		add(keepalive, netip.Addr{}, netip.Addr{}, false, "a keepalive")
	}
	return all
}

// forwardsBack reports whether the mode's relay returns packets addressed to us.
func (p *peer) forwardsBack() bool {
	_, ok := p.t.cfg.Layers[p.t.mechanism()].Mechanism.(resolve.Returner)
	return ok
}

// ownIn6 returns our first IPv6 address on the interface; invalid: none.
func (p *peer) ownIn6() netip.Addr {
	for _, a := range p.t.cfg.Address {
		if a.Addr().Is6() && !a.Addr().IsLinkLocalUnicast() {
			return a.Addr()
		}
	}
	return netip.Addr{}
}
