package peercheck

import (
	"fmt"
	"net/netip"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/resolve"
	"sixfour/internal/doctor/prober"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/probe"
)

// candidate is a probe that the peer may answer.
type candidate struct {
	prober.Probe
	name string // of what answers
	sure bool   // it must answer if the peer is as the configuration says
}

// candidates returns the ways to probe the peer through the tunnel, the best first.
func candidates(p *subject.Peer, layers []encap.Layer) (all []candidate) {
	add := func(w prober.Kind, local, remote netip.Addr, sure bool, name string) {
		all = append(all, candidate{prober.Probe{Kind: w, Local: local, Remote: remote}, name, sure})
	}
	if p.Tunnel.Mechanism() >= 0 {
		if own := ownIn6(p); own.IsValid() && forwardsBack(p) {
			add(prober.Loop, own, own, false, fmt.Sprintf("the way to ourselves, %v, through %v", own, p.Remote))
		}
		return all
	}
	if p.Config.Probe.IsValid() {
		for _, c := range p.Tunnel.Config.Probed(p.Config) {
			if c.Local.IsValid() {
				add(prober.Inside, c.Local, c.Remote, true, c.Remote.String())
			}
		}
	}
	if local, remote, ok := probe.Ends(layers); ok {
		add(prober.Inside, local, remote, true, remote.String())
	}
	for _, c := range p.Tunnel.Config.Inside(p.Config) {
		add(prober.Inside, c.Local, c.Remote, c.Sure, c.Remote.String())
	}
	if _, ok := layers[0].Kind.Framing().(framing.Keepaliver); ok && len(layers) == 1 {
		add(prober.Keepalive, netip.Addr{}, netip.Addr{}, false, "a keepalive")
	}
	return all
}

// forwardsBack reports whether the mode's relay returns packets addressed to us.
func forwardsBack(p *subject.Peer) bool {
	_, ok := p.Tunnel.Config.Layers[p.Tunnel.Mechanism()].Mechanism.(resolve.Returner)
	return ok
}

// ownIn6 returns our first IPv6 address on the interface; invalid: none.
func ownIn6(p *subject.Peer) netip.Addr {
	for _, a := range p.Tunnel.Config.Address {
		if a.Addr().Is6() && !a.Addr().IsLinkLocalUnicast() {
			return a.Addr()
		}
	}
	return netip.Addr{}
}
