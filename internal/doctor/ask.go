package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap/icmp"
	"sixfour/internal/config"
	"sixfour/internal/control"
	"sixfour/internal/engine"
)

// mayAsk reports whether packets to the peer can be sent and heard; if not, why.
func (p *peer) mayAsk() (f finding, ok bool) {
	switch why := p.lacks("address", "route"); {
	case why != "":
		return skip("%s", why), false
	case !p.local.IsValid() || !p.remote.IsValid() || p.route.Interface == "":
		return skip("the ends, or the route between them, are not known"), false
	case !p.t.h.privileged():
		return skip("raw sockets are not for this user").but(asRoot), false
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
	switch s.Phase {
	case engine.Waiting:
	case engine.Suspect, engine.Down: // why, the next check says
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
	return p.noAnswer(all, outcomes[:len(all)], ping)
}

// pastSockets reports whether the peer's packets go past the sockets of this program.
func (p *peer) pastSockets() bool {
	return p.status != nil && p.status.State.IO == string(config.IOXDP)
}

// atDaemon is how the daemon calls the peer.
func (p *peer) atDaemon() string {
	if p.t.cfg.Hub {
		return p.t.cfg.Name + "/" + p.cfg.Name
	}
	return p.t.cfg.Name
}

// askDaemon lets the daemon ask the peer.
func (p *peer) askDaemon(ctx context.Context) finding {
	c := control.NewClient(p.t.h.socket)
	defer c.Close()
	var answer *engine.PingReply
	err := c.Ping(ctx, engine.PingRequest{Peer: p.atDaemon(), Count: tries, Interval: answerLimit, Timeout: answerLimit}, func(r engine.PingReply) error {
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
	return p.noAnswer(nil, nil, outcome{})
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
	mend := fmt.Sprintf("on the peer, %v: sixfourctl doctor (its local must be %v, its remote %v, its mode %s; firewalls on the way must let protocol %d pass, and the peer's own must let pings in that come out of the tunnel)",
		p.remote, p.remote, p.local, p.t.cfg.Mode.Name, p.t.outer().Protocol())
	if p.pastSockets() {
		return fail(mend, "nothing comes back to the daemon")
	}
	if !sure && p.status != nil && p.status.State.Phase == engine.Suspect {
		return fail(mend, "it answers no question, and the daemon says: %s", p.status.State.Detail)
	}
	if !sure && p.status != nil && !p.status.Liveness.Heard.IsZero() && time.Since(p.status.Liveness.Heard) < heardLately {
		return pass("it answers no question, but the daemon heard from it %v ago", time.Since(p.status.Liveness.Heard).Round(time.Second))
	}
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
	if p.pastSockets() {
		return skip("the daemon's packets arrive through AF_XDP, where this program does not hear them").but("sixfourctl mtu " + p.atDaemon()), false
	}
	if p.asker == nil || p.asked == nil {
		return skip("the peer does not answer"), false
	}
	return f, true
}

// outside reports whether the peer was only asked beside the tunnel.
func (p *peer) beside() bool { return p.asked != nil && p.asked.way == outside }
