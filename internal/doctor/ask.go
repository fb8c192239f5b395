package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/encap/icmp"
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/control/client"
)

// mayAsk reports whether probes to the peer can be sent and answers received, or why not.
func (p *peer) mayAsk() (f finding, ok bool) {
	switch why := p.lacks("address", "route"); {
	case why != "":
		return skip("%s", why), false
	case !p.local.IsValid() || !p.remote.IsValid() || p.route.Interface == "":
		return skip("the ends, or the route between them, are not known"), false
	case !p.t.h.privileged():
		return skip("raw sockets are not for this user").but(asRoot), false
	case !p.t.file && p.t.outer().Properties().Optional:
		return skip("the tunnel's GRE key is in the configuration file, which was not found").but("sixfourctl doctor --config PATH"), false
	}
	return f, true
}

// layers returns the layers of the peer's packets.
func (p *peer) layers() []encap.Layer {
	return p.t.cfg.Stack(p.cfg, &p.cfg.Paths[0], p.local, p.remote)
}

// open opens the asker.
func (p *peer) open() error {
	layers := p.layers()
	o := p.t.cfg.Options
	o.ECNCompat = false // this program sets the ECN fields itself
	var err error
	p.asker, err = newAsker(layers, o, p.t.cfg.FwMark, p.route.Index)
	return err
}

// checkState reports what the daemon waits for, unless a failed check already explains it.
func (p *peer) checkState(context.Context) finding {
	if p.status == nil {
		return skip("no daemon runs the tunnel")
	}
	s := p.status.State
	switch s.Phase {
	case api.Waiting:
	case api.Suspect, api.Down: // the next check says why
		return skip("the daemon says: %s, %s", s.Phase, s.Detail)
	default:
		return pass("the daemon says: %s", s.Phase)
	}
	if len(p.failed) > 0 {
		return skip("the daemon waits, and the check %s fails", p.failed[0])
	}
	if slices.Contains(p.t.failed, "interface") {
		return skip("the daemon waits, and the check interface fails")
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
	if p.pastSockets() {
		return p.askDaemon(ctx)
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
	return p.noAnswer(ctx, all, outcomes[:len(all)], ping)
}

// pastSockets reports whether the peer's packets bypass the sockets of this program.
func (p *peer) pastSockets() bool {
	return p.status != nil && p.status.State.IO == string(config.IOXDP)
}

// atDaemon returns the daemon's name for the peer.
func (p *peer) atDaemon() string {
	if p.t.cfg.Hub {
		return p.t.cfg.Name + "/" + p.cfg.Name
	}
	return p.t.cfg.Name
}

// askDaemon makes the daemon probe the peer.
func (p *peer) askDaemon(ctx context.Context) finding {
	c := client.New(p.t.h.socket)
	var answer *api.PingReply
	err := c.Ping(ctx, api.PingRequest{Peer: p.atDaemon(), Count: tries, Interval: answerLimit, Timeout: answerLimit}, func(r api.PingReply) error {
		if !r.Lost && answer == nil {
			answer = &r
		}
		return nil
	})
	switch {
	case answer != nil && answer.Detail == "":
		return pass("it answers the daemon through the tunnel, in %v", time.Duration(answer.RTT*float64(time.Second)).Round(10*time.Microsecond))
	case answer != nil:
		return skip("its host answers the daemon: %s", answer.Detail)
	case err != nil:
		return skip("the daemon was asked: %v", err)
	}
	return p.noAnswer(ctx, nil, nil, outcome{})
}

// noAnswer explains that no answer came back through the tunnel.
func (p *peer) noAnswer(ctx context.Context, all []candidate, outcomes []outcome, ping outcome) finding {
	if why := p.lacks("rp_filter", "firewall_out", "firewall_in"); why != "" {
		return skip("nothing comes back, and %s", why)
	}
	sure := slices.ContainsFunc(all, func(c candidate) bool { return c.sure })
	mend := fmt.Sprintf("on the peer, %v: sixfourctl doctor (its local must be %v, its remote %v, its mode %s; firewalls on the way must let protocol %d pass, and the peer's own must let pings in that come out of the tunnel)",
		p.remote, p.remote, p.local, p.t.cfg.Mode.Name, p.t.outer().Protocol())
	why := p.said(outcomes)
	if why == "" {
		why = p.lastError(ctx)
	}
	if f, ok := p.moved(); ok && p.t.mechanism() < 0 && (p.asker == nil || p.asker.fromPeer() == 0) {
		return f
	}
	if f, ok := p.comes(ctx); ok && why == "" && (sure || f.verdict == Fail && p.t.mechanism() < 0) {
		return f
	}
	if p.pastSockets() {
		return fail(mend, "nothing comes back to the daemon")
	}
	if !sure && p.status != nil && p.status.State.Phase == api.Suspect {
		return fail(mend, "it answers no question, and the daemon says: %s", p.status.State.Detail)
	}
	if !sure && p.status != nil && !p.status.Liveness.Heard.IsZero() && time.Since(p.status.Liveness.Heard) < heardLately {
		return pass("it answers no question, but the daemon heard from it %v ago", time.Since(p.status.Liveness.Heard).Round(time.Second))
	}
	if p.t.mechanism() >= 0 && !sure {
		return skip("nothing that must answer here: %s", p.pinged(ping))
	}
	if !sure {
		if ping.answered() {
			p.asked = &question{way: outside}
		}
		if why != "" {
			return fail(mend, "nothing comes back through the tunnel: %s", why)
		}
		return skip("no address inside is known to be the peer's: %s", p.pinged(ping)).
			but(fmt.Sprintf("ping the peer's inner address, or give %s an address in a /30 or /126", p.t.cfg.Name))
	}
	if why == "" {
		why = p.pinged(ping)
	}
	return fail(mend, "nothing comes back through the tunnel: %s", why)
}

// said returns what ICMP errors say about the questions; "": nothing is known.
func (p *peer) said(outcomes []outcome) string {
	for _, o := range outcomes {
		switch {
		case errors.Is(o.err, unix.EPERM):
			return "this host refuses to send: a packet filter, or a security module"
		case o.err != nil:
			return o.err.Error()
		case o.ok:
			return p.says(o, "a packet of the tunnel")
		}
	}
	return ""
}

// lastError returns the last error that the daemon recorded while doctor was probing; "":
// none.
func (p *peer) lastError(ctx context.Context) string {
	now := p.traffic(ctx)
	if now == nil || now.LastError == nil || p.status == nil || p.status.LastError != nil && !now.LastError.At.After(p.status.LastError.At) {
		return ""
	}
	return "the daemon noted: " + now.LastError.What
}

// says describes an ICMP error about a packet. This host's own kernel sends one if no host
// on the link has the next hop's address.
func (p *peer) says(o outcome, about string) string {
	m := meaning(o.reply.err)
	if o.from != p.local {
		return fmt.Sprintf("%v says about %s: %s", o.from, about, m)
	}
	hop := p.route.Hop
	if m != noHost || !hop.IsValid() {
		return fmt.Sprintf("this host itself says about %s: %s", about, m)
	}
	return fmt.Sprintf("no host on the link of %s answers for %v (ARP, or neighbour discovery), so %s does not leave this host", p.route.Interface, hop, about)
}

// comes describes what arrives from the peer, or from its possible new address, while the
// peer does not answer. If ok is false, nothing arrives.
func (p *peer) comes(ctx context.Context) (f finding, ok bool) {
	now := p.traffic(ctx)
	if p.status != nil && now != nil {
		if f, ok := p.droppedIn(p.status.In.Drops, now.In.Drops); ok {
			return f, true
		}
		var told uint64
		for _, a := range dropAdvice {
			told += now.In.Drops[a.reason]
		}
		if now.In.Packets <= told { // most packets were dropped, even if some time passes between two of them
			if f, ok := p.droppedIn(nil, now.In.Drops); ok {
				return f, true
			}
		}
	}
	n := 0
	if p.asker != nil {
		n = p.asker.fromPeer()
	}
	if n == 0 && p.pastSockets() && p.status != nil && now != nil {
		n = int(now.In.Packets - p.status.In.Packets)
	}
	if n > 0 || now != nil && now.State.Phase == api.Suspect && now.Liveness.Heard.After(time.Now().Add(-heardLately)) {
		return fail(fmt.Sprintf("on the peer, %v: tcpdump -ni any proto %d, while sixfourctl ping %s runs here: if nothing arrives there, a filter on the way, or its own, drops protocol %d from %v; if it does, look at its sixfourctl doctor",
			p.remote, p.t.outer().Protocol(), p.atDaemon(), p.t.outer().Protocol(), p.local),
			"packets come from %v, but it answers none of ours: they do not arrive there (one direction is cut), or its own rules drop them", p.remote), true
	}
	return p.moved()
}

// moved reports the address from which the peer may send now.
func (p *peer) moved() (f finding, ok bool) {
	if s, ok := p.stranger(); ok {
		return fail(fmt.Sprintf("if %s is the peer: remote = %q in [[tunnel]] %s, then: sixfourctl reload", s.From, s.From, p.t.cfg.Name),
			"nothing comes from %v, but packets of protocol %d come from %s, which is nobody's remote: did the peer move? (the last %v ago)",
			p.remote, s.Protocol, s.From, time.Since(s.Last).Round(time.Second)), true
	}
	return f, false
}

// droppedIn explains why the daemon drops the peer's packets, if drop counters that show
// the reason have increased.
func (p *peer) droppedIn(before, after map[string]uint64) (f finding, ok bool) {
	for _, a := range dropAdvice {
		if after[a.reason] > before[a.reason] {
			return fail(a.mend, "packets come from %v, and the daemon here drops them (%s): %s", p.remote, grown(before, after), a.means), true
		}
	}
	return f, false
}

// dropAdvice explains the reasons for which packets from a peer are dropped.
var dropAdvice = []struct{ reason, means, mend string }{
	{"own_source", "their source is an address of this host: both ends have the same inner address, or local6 and remote6 are not exchanged", "exchange local6 and remote6 at one end, and give the two ends different addresses"},
	{"spoof", "their inner source is not what the peer may send from", "compare local6, remote6 and allowed with the peer's local6 and address"},
	{"key", "the GRE keys of the two ends are not the same", "set the same key at both ends, or ikey at each to the okey of the other"},
	{"sequence", "their GRE sequence numbers are missing, or old", "set sequence the same at both ends"},
	{"bad_checksum", "their checksums are wrong, or, in GRE, missing though checksum = true asks for them", "set checksum the same at both ends; if it is, find what changes packets on the way (sixfourctl capture)"},
	{"foreign_source", "their IPv6 layer comes from another address than remote6", "compare remote6 with the peer's local6"},
	{"unknown_protocol", "they carry what this mode does not", "set the same mode at both ends"},
}

// stranger returns a source address that belongs to no peer and from which packets of the
// tunnel's protocol have recently arrived.
func (p *peer) stranger() (s api.Stranger, ok bool) {
	if p.t.h.status == nil {
		return s, false
	}
	for _, s := range p.t.h.status.Strangers {
		if s.To == p.local.String() && s.Protocol == int(p.t.outer().Protocol()) && time.Since(s.Last) < strangerLately {
			return s, true
		}
	}
	return s, false
}

// strangerLately is how recently a peer that has moved must have sent a packet: by default
// it sends a probe at least every 30 seconds.
const strangerLately = 2 * time.Minute

// heardLately is how recent a packet from the peer must be to show that the peer is alive.
const heardLately = 30 * time.Second

// pinged says whether the peer's host answers outside the tunnel.
func (p *peer) pinged(ping outcome) string {
	switch {
	case ping.answered():
		return fmt.Sprintf("the host %v itself answers pings, in %v", p.remote, ping.rtt.Round(10*time.Microsecond))
	case ping.err != nil:
		return fmt.Sprintf("a ping of %v does not leave: %v", p.remote, ping.err)
	case ping.ok:
		return p.says(ping, fmt.Sprintf("a ping of %v", p.remote))
	}
	return fmt.Sprintf("the host %v does not answer pings either", p.remote)
}

// meaning describes an ICMP error.
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

// Codes of "destination unreachable" (RFC 792, RFC 1812 section 5.2.7.1; RFC 4443 section
// 3.1). Linux sends "port unreachable" where RFC 2003 requires "protocol unreachable".
var (
	unreachable4 = map[byte]string{
		0: "that there is no route", 1: noHost, 2: noTunnel, 3: noTunnel,
		9: prohibited, 10: prohibited, 13: prohibited,
	}
	unreachable6 = map[byte]string{
		0: "that there is no route", 1: prohibited, 3: noHost, 4: noTunnel, 5: prohibited, 6: prohibited,
	}
)

const (
	noTunnel   = "that no tunnel there has these ends"
	noHost     = "that the host does not answer there"
	prohibited = "that a firewall forbids it"
)

// unasked returns why a check that needs answers is skipped; ok: it is not skipped.
func (p *peer) unasked() (f finding, ok bool) {
	if p.pastSockets() {
		return skip("the daemon's packets arrive through AF_XDP, where this program does not hear them").but("sixfourctl mtu " + p.atDaemon()), false
	}
	if p.asker == nil || p.asked == nil {
		return skip("the peer does not answer"), false
	}
	return f, true
}

// beside reports whether the peer answers only outside the tunnel.
func (p *peer) beside() bool { return p.asked != nil && p.asked.way == outside }
