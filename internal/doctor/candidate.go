package doctor

import (
	"fmt"
	"net/netip"

	"sixfour/encap"
	"sixfour/encap/resolve"
	"sixfour/internal/probe"
)

// candidate is an address that may answer.
type candidate struct {
	question
	name string // of what answers
	sure bool   // it is there if the peer is as the configuration says
}

// candidates are the ways to ask the peer through the tunnel, the best first.
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
	if local, remote, ok := probe.Ends(layers); ok {
		add(inside, local, remote, true, remote.String())
	}
	for _, c := range p.innerAddresses() {
		add(inside, c.local, c.remote, c.sure, c.remote.String())
	}
	if layers[len(layers)-1].Kind.IsGRE() && len(layers) == 1 {
		add(keepalive, netip.Addr{}, netip.Addr{}, false, "a keepalive")
	}
	return all
}

// forwardsBack reports whether the mode's relay sends back what is for ourselves.
func (p *peer) forwardsBack() bool {
	switch p.t.cfg.Layers[p.t.mechanism()].Mechanism.(type) {
	case resolve.SixRD, *resolve.SixRD, resolve.SixToFour, *resolve.SixToFour:
		return true
	}
	return false
}

// ownIn6 is our first IPv6 address on the interface; invalid: there is none.
func (p *peer) ownIn6() netip.Addr {
	for _, a := range p.t.cfg.Address {
		if a.Addr().Is6() && !a.Addr().IsLinkLocalUnicast() {
			return a.Addr()
		}
	}
	return netip.Addr{}
}

// innerPair is an address of ours on the interface, and one that the peer may have.
type innerPair struct {
	local, remote netip.Addr
	sure          bool
}

// innerAddresses are what the peer's inner addresses may be: those that it alone may
// have as a source, the other one of a subnet for two, and the first two of larger
// ones.
func (p *peer) innerAddresses() (all []innerPair) {
	for _, own := range p.t.cfg.Address {
		version := 4
		if own.Addr().Is6() {
			version = 6
		}
		if !p.t.cfg.Mode.Carries(version) {
			continue
		}
		for _, allowed := range p.cfg.Allowed {
			if allowed.IsSingleIP() && allowed.Addr().Is4() == own.Addr().Is4() {
				all = append(all, innerPair{own.Addr(), allowed.Addr(), true})
			}
		}
		if p.t.cfg.Hub {
			continue
		}
		remotes, sure := neighbours(own)
		for _, r := range remotes {
			all = append(all, innerPair{own.Addr(), r, sure})
		}
	}
	return all
}

// neighbours are addresses that the other end of a subnet may have; sure: it must be
// that one.
func neighbours(own netip.Prefix) (others []netip.Addr, sure bool) {
	first := own.Masked().Addr()
	host := own.Addr().BitLen() - own.Bits()
	switch host {
	case 0:
		return nil, false
	case 1: // RFC 3021, RFC 6164: both addresses are hosts
		if own.Addr() == first {
			return []netip.Addr{first.Next()}, true
		}
		return []netip.Addr{first}, true
	}
	for a := first.Next(); len(others) < 2 && a.IsValid(); a = a.Next() {
		if a == first.Next().Next().Next() {
			break
		}
		if a != own.Addr() {
			others = append(others, a)
		}
	}
	return others, host == 2 && len(others) == 1
}
