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
	if f, ok := mayAskAgain(p); !ok {
		return f
	}
	q := *p.Answered
	q.Fragmented = true
	q.Size = fragmentedSize
	switch o := p.Prober.Ask(ctx, q); {
	case o.Answered():
		return finding.Passed("a packet in two fragments arrives")
	case o.Err != nil:
		return finding.Skipped("fragments do not leave: %v", o.Err)
	}
	return finding.Failed("let fragments pass on the way (on the peer: nft list ruleset; ip frag-off, exthdr frag), or keep mtu at the path's MTU less the overhead, so that none are made",
		"a packet in two fragments does not arrive, while whole ones do")
}

// fragmentedSize is the size, in bytes, of the packet that is fragmented: each half must
// look like a fragment of a large packet.
const fragmentedSize = 1200

// ICMPErrors causes ICMP errors from routers. It does so outside the tunnel, so that the
// daemon does not have to handle them.
func ICMPErrors(ctx context.Context, p *subject.Peer) finding.Finding {
	if f, ok := mayProbe(p); !ok {
		return f
	}
	if p.Prober == nil {
		return finding.Skipped("the sockets were not opened")
	}
	if p.Route.NextHop == p.Remote {
		return finding.Skipped("there is no router on the way: the peer is on the link of %s", p.Route.Interface)
	}
	questions := make([]prober.Question, mostHops)
	for i := range questions {
		questions[i] = prober.Question{Way: prober.Outside, TTL: byte(i + 1)}
	}
	outcomes := p.Prober.AskAll(ctx, questions)
	for i, o := range outcomes {
		switch {
		case o.Answered() && i == 0:
			return finding.Skipped("there is no router on the way")
		case o.Answered():
			return silentRouters(p, i)
		case o.Replied:
			return finding.Passed("router %v, hop %d, says %s", o.From, i+1, prober.Meaning(o.Reply.ICMP))
		case o.Err != nil:
			return finding.Skipped("packets do not leave: %v", o.Err)
		}
	}
	if why := p.FailedCheck("answer"); why != "" {
		return finding.Skipped("nothing at all comes back, and %s", why)
	}
	return silentRouters(p, mostHops)
}

// mostHops is the largest distance of routers that are tested, in hops.
const mostHops = 6

// silentRouters explains that none of the first routers, which a ping reached, has sent
// an ICMP error.
func silentRouters(p *subject.Peer, hops int) finding.Finding {
	const wanted = "destination-unreachable, time-exceeded, parameter-problem"
	match, protocol := "icmp type { "+wanted+" }", byte(header.ICMP)
	if p.Remote.Is6() {
		match, protocol = "icmpv6 type { packet-too-big, "+wanted+" }", header.ICMPv6
	}
	text := fmt.Sprintf("none of the first %s says that a packet's hops are used up", finding.Count(hops, "router"))
	if hops == 1 {
		text = "the router on the way does not say that a packet's hops are used up"
	}
	if rules, err := p.Tunnel.Host.Rules(); err == nil {
		packet := filteredPacket(p, firewall.Input, protocol)
		packet.Source, packet.Answer = p.Route.NextHop, true
		if j := rules.Judge(packet); j.Verdict == firewall.Drop {
			return finding.Failed(fmt.Sprintf("nft insert rule %s %s %s %s accept", j.Family, j.Table, j.Base, match), "%s: %s drops ICMP", text, packetfilter.Place(j.Place))
		}
	}
	return finding.Failed("let ICMP errors pass on the way: "+match+" accept; meanwhile the daemon finds the path's MTU by probes", "%s", text)
}

// ECN tests whether the path preserves ECN marks, with a packet that can be marked and
// one that is marked. RFC 6040 section 4.2 defines the result at the peer, whose answer
// has the same mark.
func ECN(ctx context.Context, p *subject.Peer) finding.Finding {
	if f, ok := mayAskAgain(p); !ok {
		return f
	}
	if p.Tunnel.Config.Options.ECNCompat {
		return finding.Skipped(`ecn is "compat": no marks are sent`)
	}
	plain, marked := *p.Answered, *p.Answered
	plain.InnerECN, plain.OuterECN = header.ECT0, header.ECT0
	marked.InnerECN, marked.OuterECN = header.ECT0, header.CE
	o := p.Prober.AskAll(ctx, []prober.Question{plain, marked})
	const wiped = `find what writes the TOS or traffic class on the way; meanwhile ecn = "compat" in [[tunnel]]`
	switch {
	case o[0].Err != nil || o[1].Err != nil:
		return finding.Skipped("packets with marks do not leave: %v", errors.Join(o[0].Err, o[1].Err))
	case !o[0].Answered():
		return finding.Failed(wiped, "packets that say ECT(0) are lost")
	case !o[1].Answered():
		return finding.Failed(wiped, "packets that say CE are lost")
	case answersOutside(p):
		return besideECN(o[0].OuterECN, o[1].OuterECN, wiped)
	case o[0].InnerECN == header.NotECT:
		return finding.Skipped("the peer's answers do not have the marks of what they answer")
	case o[1].InnerECN != header.CE:
		return finding.Failed(wiped, "marks do not reach the peer, or it does not take them over: of a packet that said CE came out what says %s", ecnNames[o[1].InnerECN])
	case o[0].InnerECN == header.CE:
		return finding.Failed(wiped, "each packet that says ECT(0) is marked CE on the way")
	case o[0].OuterECN == header.NotECT:
		return finding.Skipped("marks reach the peer; answers come without: they are wiped on the way back, or the peer's ecn is %q", "compat")
	}
	return finding.Passed("marks reach the peer and come back")
}

// besideECN judges the answers to pings outside the tunnel. Linux answers with the marks
// of the request; other systems need not.
func besideECN(plain, marked byte, mend string) finding.Finding {
	switch {
	case plain == header.ECT0 && marked == header.CE:
		return finding.Passed("marks reach the peer's host and come back")
	case plain == header.NotECT && marked == header.NotECT:
		return finding.Skipped("pings come back without marks: they are wiped on the way, or the host leaves them out")
	}
	return finding.Failed(mend, "marks change on the way: ECT(0) becomes %s, CE becomes %s", ecnNames[plain], ecnNames[marked])
}

var ecnNames = [4]string{header.NotECT: "Not-ECT", header.ECT1: "ECT(1)", header.ECT0: "ECT(0)", header.CE: "CE"}
