package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/encap/resolve"
	"sixfour/internal/config"
	"sixfour/internal/engine"
	"sixfour/internal/firewall"
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

// mayAsk reports whether packets to the peer can be sent and heard; if not, why.
func (p *peer) mayAsk() (f finding, ok bool) {
	switch why := p.lacks("address", "route"); {
	case why != "":
		return skip("%s", why), false
	case !p.local.IsValid() || !p.remote.IsValid() || p.route.Interface == "":
		return skip("the ends, or the route between them, are not known"), false
	case !p.t.h.privileged():
		return skip("raw sockets are not for this user").but(asRoot), false
	case p.status != nil && p.status.State.IO == string(config.IOXDP):
		return skip("the daemon's packets arrive through AF_XDP, where this program does not hear them").but("sixfourctl ping " + p.t.cfg.Name), false
	case !p.t.file && p.t.outer().IsGRE():
		return skip("the tunnel's GRE key is in the configuration file, which was not found").but("sixfourctl doctor --config PATH"), false
	}
	return f, true
}

// open opens the asker.
func (p *peer) open() error {
	layers := p.t.cfg.Stack(p.cfg, p.local, p.remote)
	o := p.t.cfg.Options
	o.ECNCompat = false // marks are set here
	var err error
	p.asker, err = newAsker(layers, o, p.t.cfg.FwMark)
	return err
}

// checkState says what the daemon waits for, if it is none of what was found before.
func (p *peer) checkState(context.Context) finding {
	if p.status == nil {
		return skip("no daemon runs the tunnel")
	}
	s := p.status.State
	if s.Phase != engine.Waiting {
		return pass("the daemon says: %s", s.Phase)
	}
	if len(p.failed) > 0 {
		return skip("the daemon waits, and the check %s fails", p.failed[0])
	}
	return fail("sixfourctl watch (it goes on by itself when that is there)", "the daemon waits for %s", s.Detail)
}

func (p *peer) checkAnswer(ctx context.Context) finding {
	if f, ok := p.mayAsk(); !ok {
		return f
	}
	if err := p.open(); err != nil {
		return skip("%v", err)
	}
	all := p.candidates(p.asker.layers)
	questions := make([]question, 0, len(all)+1)
	for _, c := range all {
		questions = append(questions, c.question)
	}
	host := question{way: outside}
	outcomes := p.asker.askAll(ctx, append(questions, host))
	ping := outcomes[len(all)]
	for i, c := range all {
		if o := outcomes[i]; o.answered() {
			p.asked = &c.question
			return pass("%s answers through the tunnel in %v", c.name, o.rtt.Round(10*time.Microsecond))
		}
	}
	return p.noAnswer(all, outcomes[:len(all)], ping)
}

// noAnswer says what it means that nothing came back through the tunnel.
func (p *peer) noAnswer(all []candidate, outcomes []outcome, ping outcome) finding {
	if why := p.lacks("rp_filter", "firewall_out", "firewall_in"); why != "" {
		return skip("nothing comes back, and %s", why)
	}
	sure, why := false, ""
	for i, c := range all {
		sure = sure || c.sure
		switch o := outcomes[i]; {
		case why != "":
		case errors.Is(o.err, unix.EPERM):
			why = "this host refuses to send: a packet filter, or a security module"
		case o.err != nil:
			why = o.err.Error()
		case o.ok:
			why = fmt.Sprintf("%v says %s", o.from, meaning(o.reply.err))
		}
	}
	if p.status != nil && !p.status.Liveness.Heard.IsZero() && time.Since(p.status.Liveness.Heard) < heardLately {
		return pass("it answers no question, but the daemon heard from it %v ago", time.Since(p.status.Liveness.Heard).Round(time.Second))
	}
	mend := fmt.Sprintf("on the peer, %v: sixfourctl doctor (its local must be %v, its remote %v, its mode %s; and firewalls on the way must let protocol %d pass)",
		p.remote, p.remote, p.local, p.t.cfg.Mode.Name, p.t.outer().Protocol())
	if p.t.mechanism() >= 0 && !sure {
		return skip("nothing that must answer here: %s", pinged(p.remote, ping))
	}
	if len(all) == 0 || !sure {
		if ping.answered() {
			p.asked = &question{way: outside}
		}
		if why != "" {
			return fail(mend, "nothing comes back through the tunnel: %s", why)
		}
		return skip("no address inside is known to be the peer's: %s", pinged(p.remote, ping)).
			but(fmt.Sprintf("ping the peer's inner address, or give %s an address in a /30 or /126", p.t.cfg.Name))
	}
	if why == "" {
		why = pinged(p.remote, ping)
	}
	return fail(mend, "nothing comes back through the tunnel: %s", why)
}

// heardLately is how long ago a packet from the peer shows that it lives.
const heardLately = 30 * time.Second

// pinged says whether the peer's host answers outside the tunnel.
func pinged(remote netip.Addr, ping outcome) string {
	switch {
	case ping.answered():
		return fmt.Sprintf("the host %v itself answers pings, in %v", remote, ping.rtt.Round(10*time.Microsecond))
	case ping.err != nil:
		return fmt.Sprintf("a ping of %v does not leave: %v", remote, ping.err)
	case ping.ok:
		return fmt.Sprintf("%v says about a ping of %v: %s", ping.from, remote, meaning(ping.reply.err))
	}
	return fmt.Sprintf("the host %v does not answer pings either", remote)
}

// meaning is an ICMP error in words.
func meaning(e icmp.Error) string {
	names, unreachable, exceeded := unreachable4, byte(icmp.Unreachable4), byte(icmp.TimeExceeded4)
	if e.Version == 6 {
		names, unreachable, exceeded = unreachable6, icmp.Unreachable6, icmp.TimeExceeded6
	}
	switch {
	case e.Meaning() == icmp.TooBig:
		return fmt.Sprintf("that it is too big for an MTU of %d", e.Arg)
	case e.Type == exceeded && e.Code == 0:
		return "that its hops are used up"
	case e.Type == unreachable && names[e.Code] != "":
		return names[e.Code]
	}
	return fmt.Sprintf("what ICMPv%d type %d code %d means", e.Version, e.Type, e.Code)
}

// Codes of "destination unreachable" (RFC 792, RFC 1812 section 5.2.7.1; RFC 4443
// section 3.1). Linux says port where RFC 2003 says protocol.
var (
	unreachable4 = map[byte]string{
		0: "that there is no route", 1: "that the host does not answer there", 2: noTunnel, 3: noTunnel,
		9: prohibited, 10: prohibited, 13: prohibited,
	}
	unreachable6 = map[byte]string{
		0: "that there is no route", 1: prohibited, 3: "that the host does not answer there", 4: noTunnel, 5: prohibited, 6: prohibited,
	}
)

const (
	noTunnel   = "that no tunnel there has these ends"
	prohibited = "that a firewall forbids it"
)

// unasked is why a check that needs answers is skipped; ok: there are answers.
func (p *peer) unasked() (f finding, ok bool) {
	if p.asker == nil || p.asked == nil {
		return skip("the peer does not answer"), false
	}
	return f, true
}

// outside reports whether the peer was only asked beside the tunnel.
func (p *peer) beside() bool { return p.asked != nil && p.asked.way == outside }

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

// fragmentedSize is that of the packet that is cut, in bytes: so large that each half
// looks like a fragment of a large one.
const fragmentedSize = 1200

// checkICMP asks for the ICMP errors of routers: beside the tunnel, so that the
// daemon need not make anything of them.
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
	return p.silentRouters(mostHops)
}

// mostHops is how far away routers are asked.
const mostHops = 6

// silentRouters is what it means that none of the first routers, to which a ping came,
// has said so.
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

// checkECN sends what a path that keeps marks carries: a packet that can be marked,
// and one that was (RFC 6040 section 4.2 says what comes out at the peer, whose
// answer has it too).
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

// besideECN judges the answers to pings beside the tunnel, which Linux marks as it
// was asked, and others need not.
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
