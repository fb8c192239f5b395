package doctor

import (
	"context"
	"errors"
	"fmt"

	"sixfour/encap/header"
	"sixfour/internal/firewall"
)

// checkFragments sends a packet in two fragments.
func (p *peer) checkFragments(ctx context.Context) finding {
	if f, ok := p.unasked(); !ok {
		return f
	}
	q := *p.asked
	q.pieces = true
	q.size = fragmentedSize
	switch o := p.asker.ask(ctx, q); {
	case o.answered():
		return pass("a packet in two fragments arrives")
	case o.err != nil:
		return skip("fragments do not leave: %v", o.err)
	}
	return fail("let fragments pass on the way (on the peer: nft list ruleset; ip frag-off, exthdr frag), or keep mtu at the path's MTU less the overhead, so that none are made",
		"a packet in two fragments does not arrive, while whole ones do")
}

// fragmentedSize is the size, in bytes, of the packet that is fragmented: each half must
// look like a fragment of a large packet.
const fragmentedSize = 1200

// checkICMP causes ICMP errors from routers. It does so outside the tunnel, so that the
// daemon does not have to handle them.
func (p *peer) checkICMP(ctx context.Context) finding {
	if f, ok := p.mayAsk(); !ok {
		return f
	}
	if p.asker == nil {
		return skip("the sockets were not opened")
	}
	if p.route.Hop == p.remote {
		return skip("there is no router on the way: the peer is on the link of %s", p.route.Interface)
	}
	questions := make([]question, mostHops)
	for i := range questions {
		questions[i] = question{way: outside, ttl: byte(i + 1)}
	}
	outcomes := p.asker.askAll(ctx, questions)
	for i, o := range outcomes {
		switch {
		case o.answered() && i == 0:
			return skip("there is no router on the way")
		case o.answered():
			return p.silentRouters(i)
		case o.ok:
			return pass("router %v, hop %d, says %s", o.from, i+1, meaning(o.reply.err))
		case o.err != nil:
			return skip("packets do not leave: %v", o.err)
		}
	}
	if why := p.lacks("answer"); why != "" {
		return skip("nothing at all comes back, and %s", why)
	}
	return p.silentRouters(mostHops)
}

// mostHops is the largest distance of routers that are tested, in hops.
const mostHops = 6

// silentRouters explains that none of the first routers, which a ping reached, has sent an
// ICMP error.
func (p *peer) silentRouters(hops int) finding {
	const wanted = "destination-unreachable, time-exceeded, parameter-problem"
	match, protocol := "icmp type { "+wanted+" }", byte(header.ICMP)
	if p.remote.Is6() {
		match, protocol = "icmpv6 type { packet-too-big, "+wanted+" }", header.ICMPv6
	}
	text := fmt.Sprintf("none of the first %s says that a packet's hops are used up", count(hops, "router"))
	if hops == 1 {
		text = "the router on the way does not say that a packet's hops are used up"
	}
	if rules, err := p.t.h.rules(); err == nil {
		packet := p.packet(firewall.Input, protocol)
		packet.Source, packet.Answer = p.route.Hop, true
		if j := rules.Judge(packet); j.Verdict == firewall.Drop {
			return fail(fmt.Sprintf("nft insert rule %s %s %s %s accept", j.Family, j.Table, j.Base, match), "%s: %s drops ICMP", text, place(j.Place))
		}
	}
	return fail("let ICMP errors pass on the way: "+match+" accept; meanwhile the daemon finds the path's MTU by probes", "%s", text)
}

// checkECN tests whether the path preserves ECN marks, with a packet that can be marked and
// one that is marked. RFC 6040 section 4.2 defines the result at the peer, whose answer has
// the same mark.
func (p *peer) checkECN(ctx context.Context) finding {
	if f, ok := p.unasked(); !ok {
		return f
	}
	if p.t.cfg.Options.ECNCompat {
		return skip(`ecn is "compat": no marks are sent`)
	}
	plain, marked := *p.asked, *p.asked
	plain.inner, plain.outer = header.ECT0, header.ECT0
	marked.inner, marked.outer = header.ECT0, header.CE
	o := p.asker.askAll(ctx, []question{plain, marked})
	const wiped = `find what writes the TOS or traffic class on the way; meanwhile ecn = "compat" in [[tunnel]]`
	switch {
	case o[0].err != nil || o[1].err != nil:
		return skip("packets with marks do not leave: %v", errors.Join(o[0].err, o[1].err))
	case !o[0].answered():
		return fail(wiped, "packets that say ECT(0) are lost")
	case !o[1].answered():
		return fail(wiped, "packets that say CE are lost")
	case p.beside():
		return besideECN(o[0].outer, o[1].outer, wiped)
	case o[0].inner == header.NotECT:
		return skip("the peer's answers do not have the marks of what they answer")
	case o[1].inner != header.CE:
		return fail(wiped, "marks do not reach the peer, or it does not take them over: of a packet that said CE came out what says %s", ecnNames[o[1].inner])
	case o[0].inner == header.CE:
		return fail(wiped, "each packet that says ECT(0) is marked CE on the way")
	case o[0].outer == header.NotECT:
		return skip("marks reach the peer; answers come without: they are wiped on the way back, or the peer's ecn is %q", "compat")
	}
	return pass("marks reach the peer and come back")
}

// besideECN judges the answers to pings outside the tunnel. Linux answers with the marks of
// the request; other systems need not.
func besideECN(plain, marked byte, mend string) finding {
	switch {
	case plain == header.ECT0 && marked == header.CE:
		return pass("marks reach the peer's host and come back")
	case plain == header.NotECT && marked == header.NotECT:
		return skip("pings come back without marks: they are wiped on the way, or the host leaves them out")
	}
	return fail(mend, "marks change on the way: ECT(0) becomes %s, CE becomes %s", ecnNames[plain], ecnNames[marked])
}

var ecnNames = [4]string{header.NotECT: "Not-ECT", header.ECT1: "ECT(1)", header.ECT0: "ECT(0)", header.CE: "CE"}
