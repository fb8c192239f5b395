package peercheck

import (
	"context"
	"errors"
	"fmt"

	"sixfour/encap/header"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/packetfilter"
	"sixfour/internal/doctor/prober"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/firewall"
)

// Fragments sends a packet in two fragments.
func Fragments(ctx context.Context, p *subject.Peer) finding.Finding {
	if f, ok := mayProbeAgain(p); !ok {
		return f
	}
	q := *p.Answered
	q.Fragmented = true
	q.Size = fragmentedSize
	switch o := p.Prober.Send(ctx, q); {
	case o.Answered():
		return finding.Passed("a packet in two fragments arrives")
	case o.Err != nil:
		return finding.Skipped("fragments cannot be sent: %v", o.Err)
	}
	return finding.Failed("accept fragments on the path (on the peer: nft list ruleset; ip frag-off, exthdr frag), or set mtu to the path MTU minus the overhead, so that there are none",
		"a packet in two fragments does not arrive, but whole packets do")
}

// fragmentedSize is the size, in bytes, of the packet that is fragmented: each half must
// look like a fragment of a large packet.
const fragmentedSize = 1200

// ICMPErrors causes ICMP errors from routers. It sends pings outside the tunnel, so that the
// daemon does not have to handle them.
func ICMPErrors(ctx context.Context, p *subject.Peer) finding.Finding {
	if f, ok := mayProbe(p); !ok {
		return f
	}
	if p.Prober == nil {
		return finding.Skipped("the sockets were not opened")
	}
	if p.Route.NextHop == p.Remote {
		return finding.Skipped("there is no router on the path: the peer is on the link of %s", p.Route.Interface)
	}
	probes := make([]prober.Probe, maxHops)
	for i := range probes {
		probes[i] = prober.Probe{Kind: prober.Outside, TTL: byte(i + 1)}
	}
	outcomes := p.Prober.SendAll(ctx, probes)
	for i, o := range outcomes {
		switch {
		case o.Answered() && i == 0:
			return finding.Skipped("there is no router on the path")
		case o.Answered():
			return silentRouters(p, i)
		case o.Replied:
			return finding.Passed("router %v, hop %d, reports %s", o.From, i+1, prober.Meaning(o.Reply.ICMP))
		case o.Err != nil:
			return finding.Skipped("packets cannot be sent: %v", o.Err)
		}
	}
	if why := p.FailedCheck("answer"); why != "" {
		return finding.Skipped("no answer comes back, and %s", why)
	}
	return silentRouters(p, maxHops)
}

// maxHops is the largest distance of routers that are tested, in hops.
const maxHops = 6

// silentRouters explains that none of the first routers, which a ping reached, has sent
// an ICMP error.
func silentRouters(p *subject.Peer, hops int) finding.Finding {
	const wanted = "destination-unreachable, time-exceeded, parameter-problem"
	match, protocol := "icmp type { "+wanted+" }", byte(header.ICMP)
	if p.Remote.Is6() {
		match, protocol = "icmpv6 type { packet-too-big, "+wanted+" }", header.ICMPv6
	}
	text := fmt.Sprintf("none of the first %s reports that the hop limit is exceeded", finding.Plural(hops, "router"))
	if hops == 1 {
		text = "the router on the path does not report that the hop limit is exceeded"
	}
	if rules, err := p.Tunnel.Host.Rules(); err == nil {
		packet := filteredPacket(p, firewall.Input, protocol)
		packet.Source, packet.Answer = p.Route.NextHop, true
		if j := rules.Judge(packet); j.Verdict == firewall.Drop {
			return finding.Failed(fmt.Sprintf("nft insert rule %s %s %s %s accept", j.Family, j.Table, j.Base, match), "%s: %s drops ICMP", text, packetfilter.Describe(j.Place))
		}
	}
	return finding.Failed("accept ICMP errors on the path: "+match+" accept; meanwhile the daemon finds the path MTU by probes", "%s", text)
}

// ECN tests whether the path preserves ECN marks, with a packet that can be marked and
// one that is marked. RFC 6040 section 4.2 defines the result at the peer, whose answer
// has the same mark.
func ECN(ctx context.Context, p *subject.Peer) finding.Finding {
	if f, ok := mayProbeAgain(p); !ok {
		return f
	}
	if p.Tunnel.Config.Options.ECNCompat {
		return finding.Skipped(`ecn is "compat": no marks are sent`)
	}
	plain, marked := *p.Answered, *p.Answered
	plain.InnerECN, plain.OuterECN = header.ECT0, header.ECT0
	marked.InnerECN, marked.OuterECN = header.ECT0, header.CE
	o := p.Prober.SendAll(ctx, []prober.Probe{plain, marked})
	const remedy = `find what changes the TOS or traffic class on the path; meanwhile set ecn = "compat" in [[tunnel]]`
	switch {
	case o[0].Err != nil || o[1].Err != nil:
		return finding.Skipped("packets with marks cannot be sent: %v", errors.Join(o[0].Err, o[1].Err))
	case !o[0].Answered():
		return finding.Failed(remedy, "packets marked ECT(0) are lost")
	case !o[1].Answered():
		return finding.Failed(remedy, "packets marked CE are lost")
	case answersOutside(p):
		return besideECN(o[0].OuterECN, o[1].OuterECN, remedy)
	case o[0].InnerECN == header.NotECT:
		return finding.Skipped("the peer's answers do not have the marks of the requests")
	case o[1].InnerECN != header.CE:
		return finding.Failed(remedy, "marks do not reach the peer, or it does not copy them: a packet marked CE left the tunnel marked %s", ecnNames[o[1].InnerECN])
	case o[0].InnerECN == header.CE:
		return finding.Failed(remedy, "each packet marked ECT(0) is marked CE on the path")
	case o[0].OuterECN == header.NotECT:
		return finding.Skipped("marks reach the peer, but its answers have none: they are removed on the way back, or the peer's ecn is %q", "compat")
	}
	return finding.Passed("marks reach the peer and come back")
}

// besideECN judges the answers to pings outside the tunnel. Linux answers with the marks
// of the request; other systems need not.
func besideECN(plain, marked byte, remedy string) finding.Finding {
	switch {
	case plain == header.ECT0 && marked == header.CE:
		return finding.Passed("marks reach the peer's host and come back")
	case plain == header.NotECT && marked == header.NotECT:
		return finding.Skipped("pings come back without marks: they are removed on the path, or the host does not copy them")
	}
	return finding.Failed(remedy, "marks change on the path: ECT(0) becomes %s, CE becomes %s", ecnNames[plain], ecnNames[marked])
}

var ecnNames = [4]string{header.NotECT: "Not-ECT", header.ECT1: "ECT(1)", header.ECT0: "ECT(0)", header.CE: "CE"}
