// Package packetfilter describes rules of this host's packet filter, and the packets
// about which it is asked.
package packetfilter

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/firewall"
)

// Describe describes where a rule is.
func Describe(at firewall.Place) string {
	chain := fmt.Sprintf("nftables %s %s %s", at.Family, at.Table, at.Chain)
	if at.Handle == 0 {
		return "the policy of " + chain
	}
	return fmt.Sprintf("the rule with handle %d in %s", at.Handle, chain)
}

// ListChain returns the command that shows the chain of a rule.
func ListChain(at firewall.Place) string {
	return fmt.Sprintf("nft -a list chain %s %s %s", at.Family, at.Table, at.Chain)
}

// AcceptFrom returns the command that accepts packets at the beginning of the chain through
// which they reach the rule: those of a protocol, or UDP to a port that is not 0.
func AcceptFrom(at firewall.Place, remote netip.Addr, hook firewall.Hook, protocol byte, port uint16) string {
	family, end := "ip", "daddr"
	if remote.Is6() {
		family = "ip6"
	}
	if hook == firewall.Input {
		end = "saddr"
	}
	match := fmt.Sprintf("meta l4proto %d", protocol)
	if port != 0 {
		match = fmt.Sprintf("udp dport %d", port)
	}
	return fmt.Sprintf("nft insert rule %s %s %s %s %s %v %s accept", at.Family, at.Table, at.Base, family, end, remote, match)
}

// Unreadable returns the finding for rules that could not be read.
func Unreadable(err error) finding.Finding {
	if errors.Is(err, unix.EPERM) {
		return finding.Skipped("nftables may not be read by this user").WithRemedy(finding.AsRoot)
	}
	return finding.Skipped("%v", err).WithRemedy("nft list ruleset")
}

// Echo describes a ping request, or its answer, for the packet filter.
func Echo(hook firewall.Hook, from, to netip.Addr, answer bool) firewall.Packet {
	p := firewall.Packet{Hook: hook, Source: from, Destination: to, Protocol: header.ICMP, Answer: answer}
	typ := byte(icmp.EchoRequest4)
	if answer {
		typ = icmp.EchoReply4
	}
	if from.Is6() {
		p.Protocol, typ = header.ICMPv6, icmp.EchoRequest6
		if answer {
			typ = icmp.EchoReply6
		}
	}
	p.Payload = []byte{typ, 0}
	return p
}

// AcceptDevice returns the command that accepts packets of an interface.
func AcceptDevice(at firewall.Place, hook firewall.Hook, name string) string {
	key := "iifname"
	if hook == firewall.Output {
		key = "oifname"
	}
	return fmt.Sprintf("nft insert rule %s %s %s %s %s accept", at.Family, at.Table, at.Base, key, name)
}

// Worst returns the judgement that decides about a connection, given those for its two
// directions.
func Worst(a, b firewall.Judgement) firewall.Judgement {
	rank := [...]int{firewall.Pass: 0, firewall.Depends: 1, firewall.Drop: 2}
	if rank[b.Verdict] > rank[a.Verdict] {
		return b
	}
	return a
}

// DistantHosts has addresses of distant hosts, by IP version. They are documentation
// addresses (RFC 5737, RFC 3849), to which nothing is sent.
var DistantHosts = map[int]netip.Addr{4: netip.MustParseAddr("192.0.2.1"), 6: netip.MustParseAddr("2001:db8::1")}
