package peercheck

import (
	"context"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/packetfilter"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/firewall"
)

// outerPacket describes one of the tunnel's packets for the packet filter.
func outerPacket(p *subject.Peer, hook firewall.Hook) firewall.Packet {
	k := filteredPacket(p, hook, p.Outer().Protocol())
	if p.HasPorts() {
		ports := p.Outer().Properties().Ports
		from, to := ports.Local, ports.Remote
		if hook == firewall.Input {
			from, to = to, from
		}
		k.Payload = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), to)
	}
	return k
}

// filteredPacket describes a packet of a protocol between the outer addresses for the packet
// filter.
func filteredPacket(p *subject.Peer, hook firewall.Hook, protocol byte) firewall.Packet {
	k := firewall.Packet{Hook: hook, Source: p.Local, Destination: p.Remote, Protocol: protocol, Device: p.Route.Interface, Index: p.Route.Index, Mark: p.Tunnel.Config.FwMark}
	if hook == firewall.Input {
		k.Source, k.Destination = p.Remote, p.Local
	}
	return k
}

// FirewallOut checks whether this host's rules accept the tunnel's packets to the peer.
func FirewallOut(_ context.Context, p *subject.Peer) finding.Finding {
	return checkFirewall(p, firewall.Output, "to")
}

// FirewallIn checks whether this host's rules accept the tunnel's packets from the peer.
func FirewallIn(_ context.Context, p *subject.Peer) finding.Finding {
	return checkFirewall(p, firewall.Input, "from")
}

// checkFirewall evaluates this host's rules for a packet of the tunnel.
func checkFirewall(p *subject.Peer, hook firewall.Hook, preposition string) finding.Finding {
	traffic := p.Traffic(hook)
	if !p.Local.IsValid() || !p.Remote.IsValid() || p.Route.Interface == "" {
		return finding.Skipped("the outer addresses, or the route to the peer, are not known")
	}
	rules, err := p.Tunnel.Host.Rules()
	switch {
	case errors.Is(err, unix.EPERM):
		return finding.Skipped("nftables may not be read by this user").WithRemedy(finding.AsRoot)
	case err != nil:
		return finding.Skipped("%v", err).WithRemedy("nft list ruleset")
	}
	packet := outerPacket(p, hook)
	first := rules.Judge(packet)
	packet.Answer = true
	later := rules.Judge(packet)
	accept := packetfilter.AcceptFrom(first.Place, p.Remote, hook, p.Outer().Protocol(), p.PortTo(hook))
	switch {
	case first.Verdict == firewall.Pass && later.Verdict == firewall.Pass:
		return finding.Passed("this host's rules accept %s %s %v", traffic, preposition, p.Remote)
	case first.Verdict == firewall.Drop && later.Verdict == firewall.Pass:
		return finding.Passed("this host's rules accept %s %s %v only for up to 10 minutes after a packet in the other direction (connection tracking); otherwise %s drops it", traffic, preposition, p.Remote, packetfilter.Describe(first.Place)).WithRemedy(accept)
	case first.Verdict == firewall.Drop:
		return finding.Failed(accept, "%s drops %s %s %v", packetfilter.Describe(first.Place), traffic, preposition, p.Remote)
	}
	doubt := first
	if doubt.Verdict == firewall.Pass {
		doubt = later
	}
	return finding.Skipped("whether %s drops %s %s %v depends on something that is unknown here", packetfilter.Describe(doubt.Place), traffic, preposition, p.Remote).WithRemedy(packetfilter.ListChain(doubt.Place))
}
