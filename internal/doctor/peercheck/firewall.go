package peercheck

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/packetfilter"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/firewall"
)

// filteredPacket describes one of the tunnel's packets for the packet filter.
func filteredPacket(p *subject.Peer, hook firewall.Hook, protocol byte) firewall.Packet {
	k := firewall.Packet{Hook: hook, Source: p.Local, Destination: p.Remote, Protocol: protocol, Device: p.Route.Interface, Index: p.Route.Index, Mark: p.Tunnel.Config.FwMark}
	if hook == firewall.Input {
		k.Source, k.Destination = p.Remote, p.Local
	}
	return k
}

func FirewallOut(_ context.Context, p *subject.Peer) finding.Finding {
	return checkFirewall(p, firewall.Output, "out", "to")
}

func FirewallIn(_ context.Context, p *subject.Peer) finding.Finding {
	return checkFirewall(p, firewall.Input, "in", "from")
}

// checkFirewall evaluates this host's rules for a packet of the tunnel.
func checkFirewall(p *subject.Peer, hook firewall.Hook, way, preposition string) finding.Finding {
	protocol := p.Tunnel.Outer().Protocol()
	if !p.Local.IsValid() || !p.Remote.IsValid() || p.Route.Interface == "" {
		return finding.Skipped("the ends, or the route between them, are not known")
	}
	rules, err := p.Tunnel.Host.Rules()
	switch {
	case errors.Is(err, unix.EPERM):
		return finding.Skipped("nftables may not be read by this user").WithRemedy(finding.AsRoot)
	case err != nil:
		return finding.Skipped("%v", err).WithRemedy("nft list ruleset")
	}
	packet := filteredPacket(p, hook, protocol)
	first := rules.Judge(packet)
	packet.Answer = true
	later := rules.Judge(packet)
	accept := packetfilter.AcceptFrom(first.Place, p.Remote, hook, protocol)
	switch {
	case first.Verdict == firewall.Pass && later.Verdict == firewall.Pass:
		return finding.Passed("protocol %d %s %v goes %s", protocol, preposition, p.Remote, way)
	case first.Verdict == firewall.Drop && later.Verdict == firewall.Pass:
		return finding.Passed("protocol %d %s %v goes %s while connection tracking remembers packets the other way, 10 minutes at most: the first is dropped by %s", protocol, preposition, p.Remote, way, packetfilter.Place(first.Place)).WithRemedy(accept)
	case first.Verdict == firewall.Drop:
		return finding.Failed(accept, "%s drops protocol %d %s %v", packetfilter.Place(first.Place), protocol, preposition, p.Remote)
	}
	doubt := first
	if doubt.Verdict == firewall.Pass {
		doubt = later
	}
	return finding.Skipped("whether %s drops protocol %d %s %v depends on what is not known here", packetfilter.Place(doubt.Place), protocol, preposition, p.Remote).WithRemedy(packetfilter.ListChain(doubt.Place))
}
