package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"sixfour/internal/firewall"
)

// packet describes one of the tunnel's packets for the packet filter.
func (p *peer) packet(hook firewall.Hook, protocol byte) firewall.Packet {
	k := firewall.Packet{Hook: hook, Source: p.local, Destination: p.remote, Protocol: protocol, Device: p.route.Interface, Index: p.route.Index, Mark: p.t.cfg.FwMark}
	if hook == firewall.Input {
		k.Source, k.Destination = p.remote, p.local
	}
	return k
}

func (p *peer) checkFirewallOut(context.Context) finding {
	return p.judge(firewall.Output, "out", "to")
}

func (p *peer) checkFirewallIn(context.Context) finding {
	return p.judge(firewall.Input, "in", "from")
}

// judge evaluates this host's rules for a packet of the tunnel.
func (p *peer) judge(hook firewall.Hook, way, preposition string) finding {
	protocol := p.t.outer().Protocol()
	if !p.local.IsValid() || !p.remote.IsValid() || p.route.Interface == "" {
		return skip("the ends, or the route between them, are not known")
	}
	rules, err := p.t.h.rules()
	switch {
	case errors.Is(err, unix.EPERM):
		return skip("nftables may not be read by this user").but(asRoot)
	case err != nil:
		return skip("%v", err).but("nft list ruleset")
	}
	packet := p.packet(hook, protocol)
	first := rules.Judge(packet)
	packet.Answer = true
	later := rules.Judge(packet)
	accept := insertAccept(first.Place, p.remote, hook, protocol)
	switch {
	case first.Verdict == firewall.Pass && later.Verdict == firewall.Pass:
		return pass("protocol %d %s %v goes %s", protocol, preposition, p.remote, way)
	case first.Verdict == firewall.Drop && later.Verdict == firewall.Pass:
		return pass("protocol %d %s %v goes %s while connection tracking remembers packets the other way, 10 minutes at most: the first is dropped by %s", protocol, preposition, p.remote, way, place(first.Place)).but(accept)
	case first.Verdict == firewall.Drop:
		return fail(accept, "%s drops protocol %d %s %v", place(first.Place), protocol, preposition, p.remote)
	}
	doubt := first
	if doubt.Verdict == firewall.Pass {
		doubt = later
	}
	return skip("whether %s drops protocol %d %s %v depends on what is not known here", place(doubt.Place), protocol, preposition, p.remote).but(listChain(doubt.Place))
}

// place describes where a rule is.
func place(at firewall.Place) string {
	chain := fmt.Sprintf("nftables %s %s %s", at.Family, at.Table, at.Chain)
	if at.Handle == 0 {
		return "the policy of " + chain
	}
	return fmt.Sprintf("the rule with handle %d in %s", at.Handle, chain)
}

func listChain(at firewall.Place) string {
	return fmt.Sprintf("nft -a list chain %s %s %s", at.Family, at.Table, at.Chain)
}

// insertAccept returns the command that accepts a protocol at the beginning of the chain
// through which packets reach the rule.
func insertAccept(at firewall.Place, remote netip.Addr, hook firewall.Hook, protocol byte) string {
	family, end := "ip", "daddr"
	if remote.Is6() {
		family = "ip6"
	}
	if hook == firewall.Input {
		end = "saddr"
	}
	return fmt.Sprintf("nft insert rule %s %s %s %s %s %v meta l4proto %d accept", at.Family, at.Table, at.Base, family, end, remote, protocol)
}

// reconsider corrects findings by the results of other checks: if the peer answers, packets
// pass in both directions.
func (p *peer) reconsider(findings []finding) {
	passed := func(ids ...string) bool {
		return slices.ContainsFunc(ids, func(id string) bool {
			return findings[slices.IndexFunc(peerChecks, func(c peerCheck) bool { return c.ID == id })].verdict == Pass
		})
	}
	inner := passed("inner_ipv4", "inner_ipv6")
	if !inner && !passed("answer") {
		return
	}
	for i, c := range peerChecks {
		f := &findings[i]
		switch {
		case f.verdict != Fail:
		case c.ID == "firewall_out" || c.ID == "firewall_in":
			*f = skip("so it seems: %s; and yet the peer answers", f.text)
		case c.ID == "answer" && inner:
			*f = skip("it answers no question of the tunnel's own, but a ping of its inner address")
		}
	}
}
