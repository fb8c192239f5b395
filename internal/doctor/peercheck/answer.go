// Package peercheck has doctor's checks of a peer and of the path to it.
package peercheck

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/control/client"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/prober"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/firewall"
)

// mayProbe reports whether probes to the peer can be sent and answers received, or why
// not.
func mayProbe(p *subject.Peer) (f finding.Finding, ok bool) {
	switch why := p.FailedCheck("address", "route"); {
	case why != "":
		return finding.Skipped("%s", why), false
	case !p.Local.IsValid() || !p.Remote.IsValid() || p.Route.Interface == "":
		return finding.Skipped("the outer addresses, or the route to the peer, are not known"), false
	case !p.Tunnel.Host.Privileged():
		return finding.Skipped("this user may not open raw sockets").WithRemedy(finding.AsRoot), false
	case p.EncapKnown() != "":
		return finding.Skipped("%s", p.EncapKnown()).WithRemedy("use the sixfourctl of the daemon's version"), false
	case !p.Tunnel.FromFile && p.Tunnel.Config.Kind(len(p.Tunnel.Config.Layers)-1).Properties().Optional:
		return finding.Skipped("the tunnel's GRE key is in the configuration file, which was not found").WithRemedy("sixfourctl doctor --config PATH"), false
	}
	return f, true
}

// layersOf returns the layers of the peer's packets.
func layersOf(p *subject.Peer) []encap.Layer {
	return p.Tunnel.Config.Stack(p.Config, &p.Config.Paths[0], p.Local, p.Remote)
}

// openProber opens the sockets of the prober, which shares answers with another one; nil:
// with none.
func openProber(p *subject.Peer, with *prober.Prober) error {
	layers := layersOf(p)
	o := p.Tunnel.Config.Options
	o.ECNCompat = false // this program sets the ECN fields itself
	var err error
	p.Prober, err = prober.New(layers, o, p.Tunnel.Config.FwMark, p.Route.Index, with)
	return err
}

// State reports what the daemon waits for, unless a failed check already explains it.
func State(_ context.Context, p *subject.Peer) finding.Finding {
	if p.Status == nil {
		return finding.Skipped("no daemon runs this tunnel")
	}
	s := p.Status.State
	switch s.Phase {
	case api.Waiting:
	case api.Suspect, api.Down: // the next check says why
		return finding.Skipped("the daemon reports: %s, %s", s.Phase, s.Detail)
	default:
		return finding.Passed("the daemon reports: %s", s.Phase)
	}
	if len(p.Failed) > 0 {
		return finding.Skipped("the daemon waits, and the check %s fails", p.Failed[0])
	}
	if slices.Contains(p.Tunnel.Failed, "interface") {
		return finding.Skipped("the daemon waits, and the check interface fails")
	}
	return finding.Failed("sixfourctl watch (the daemon continues by itself afterwards)", "the daemon waits for %s", s.Detail)
}

// Answer checks whether the peer answers a probe that goes through the tunnel. It also opens
// the sockets for the checks after it.
func Answer(ctx context.Context, p *subject.Peer) finding.Finding {
	if f, ok := mayProbe(p); !ok {
		return f
	}
	if hasSession(p) {
		return askDaemon(ctx, p)
	}
	if err := openProber(p, nil); err != nil {
		return finding.Skipped("%v", err)
	}
	if bypassesSockets(p) {
		return askDaemon(ctx, p)
	}
	all := candidates(p, p.Prober.Layers)
	probes := make([]prober.Probe, 0, len(all)+1)
	for _, c := range all {
		probes = append(probes, c.Probe)
	}
	host := prober.Probe{Kind: prober.Outside}
	outcomes := p.Prober.SendAll(ctx, append(probes, host))
	ping := outcomes[len(all)]
	for i, c := range all {
		if o := outcomes[i]; o.Answered() {
			p.Answered = &c.Probe
			return finding.Passed("%s answers through the tunnel in %v", c.name, o.RTT.Round(10*time.Microsecond))
		}
	}
	return explainNoAnswer(ctx, p, all, outcomes[:len(all)], ping)
}

// bypassesSockets reports whether the peer's packets bypass the sockets of this program.
func bypassesSockets(p *subject.Peer) bool {
	return hasSession(p) || p.Status != nil && p.Status.State.IO == string(config.IOXDP)
}

// hasSession reports whether the peer's packets travel in connections, for which only the
// daemon has the keys.
func hasSession(p *subject.Peer) bool {
	return slices.ContainsFunc(config.Encapsulations, func(e config.Encapsulation) bool {
		return e.Name == p.Config.Paths[0].Encap && e.Session != nil
	})
}

// daemonName returns the daemon's name for the peer.
func daemonName(p *subject.Peer) string {
	if p.Tunnel.Config.Hub {
		return p.Tunnel.Config.Name + "/" + p.Config.Name
	}
	return p.Tunnel.Config.Name
}

// askDaemon makes the daemon probe the peer.
func askDaemon(ctx context.Context, p *subject.Peer) finding.Finding {
	c := client.New(p.Tunnel.Host.Socket)
	var answer *api.PingReply
	err := c.Ping(ctx, api.PingRequest{Peer: daemonName(p), Count: prober.Tries, Interval: prober.AnswerTimeout, Timeout: prober.AnswerTimeout}, func(r api.PingReply) error {
		if !r.Lost && answer == nil {
			answer = &r
		}
		return nil
	})
	switch {
	case answer != nil && answer.Detail == "":
		return finding.Passed("the peer answers the daemon's probes through the tunnel, in %v", time.Duration(answer.RTT*float64(time.Second)).Round(10*time.Microsecond))
	case answer != nil:
		return finding.Skipped("the answer to the daemon's probe shows: %s", answer.Detail)
	case err != nil:
		return finding.Skipped("the daemon could not probe the peer: %v", err)
	}
	return explainNoAnswer(ctx, p, nil, nil, prober.Outcome{})
}

// explainNoAnswer explains that no answer came back through the tunnel.
func explainNoAnswer(ctx context.Context, p *subject.Peer, all []candidate, outcomes []prober.Outcome, ping prober.Outcome) finding.Finding {
	if why := p.FailedCheck("rp_filter", "firewall_out", "firewall_in"); why != "" {
		return finding.Skipped("no answer comes back, and %s", why)
	}
	sure := slices.ContainsFunc(all, func(c candidate) bool { return c.sure })
	remedy := fmt.Sprintf("on the peer, %v: sixfourctl doctor (its local must be %v, its remote %v, its mode %s; firewalls on the path must accept %s, and the peer's own firewall must accept pings from the tunnel)",
		p.Remote, p.Remote, p.Local, p.Tunnel.Config.Mode.Name, p.Traffic(firewall.Output))
	why := describeErrors(p, outcomes)
	if why == "" {
		why = lastError(ctx, p)
	}
	if f, ok := explainMove(p); ok && p.Tunnel.Mechanism() < 0 && (p.Prober == nil || p.Prober.OtherPackets() == 0) {
		return f
	}
	if f, ok := explainArrivals(ctx, p); ok && why == "" && (sure || f.Verdict == finding.Fail && p.Tunnel.Mechanism() < 0) {
		return f
	}
	if bypassesSockets(p) {
		return finding.Failed(remedy, "no answer to the daemon's probes comes back")
	}
	if !sure && p.Status != nil && p.Status.State.Phase == api.Suspect {
		return finding.Failed(remedy, "the peer answers no probe, and the daemon reports: %s", p.Status.State.Detail)
	}
	if !sure && p.Status != nil && !p.Status.Liveness.LastPacket.IsZero() && time.Since(p.Status.Liveness.LastPacket) < recentPacket {
		return finding.Passed("the peer answers no probe, but the daemon received a packet from it %v ago", time.Since(p.Status.Liveness.LastPacket).Round(time.Second))
	}
	if p.Tunnel.Mechanism() >= 0 && !sure {
		return finding.Skipped("nothing in this mode must answer probes: %s", describePing(p, ping))
	}
	if !sure {
		if ping.Answered() {
			p.Answered = &prober.Probe{Kind: prober.Outside}
		}
		if why != "" {
			return finding.Failed(remedy, "no answer comes back through the tunnel: %s", why)
		}
		return finding.Skipped("no inner address of the peer is known: %s", describePing(p, ping)).
			WithRemedy(fmt.Sprintf("ping the peer's inner address, or give %s an address in a /30 or /126", p.Tunnel.Config.Name))
	}
	if why == "" {
		why = describePing(p, ping)
	}
	return finding.Failed(remedy, "no answer comes back through the tunnel: %s", why)
}

// describeErrors returns what ICMP errors say about the probes; "": nothing is known.
func describeErrors(p *subject.Peer, outcomes []prober.Outcome) string {
	for _, o := range outcomes {
		switch {
		case errors.Is(o.Err, unix.EPERM):
			return "this host refuses to send (a packet filter or a security module)"
		case o.Err != nil:
			return o.Err.Error()
		case o.Replied:
			return describeError(p, o, "a packet of the tunnel")
		}
	}
	return ""
}

// lastError returns the last error that the daemon recorded while doctor was probing; "":
// none.
func lastError(ctx context.Context, p *subject.Peer) string {
	now := countersOf(ctx, p)
	if now == nil || now.LastError == nil || p.Status == nil || p.Status.LastError != nil && !now.LastError.At.After(p.Status.LastError.At) {
		return ""
	}
	return "the daemon's last error: " + now.LastError.What
}

// describeError describes an ICMP error about a packet. This host's own kernel sends one
// if no host on the link has the next hop's address.
func describeError(p *subject.Peer, o prober.Outcome, about string) string {
	m := prober.Meaning(o.Reply.ICMP)
	if o.From != p.Local {
		return fmt.Sprintf("%v reports %s (about %s)", o.From, m, about)
	}
	hop := p.Route.NextHop
	if m != prober.NoHost || !hop.IsValid() {
		return fmt.Sprintf("this host's kernel reports %s (about %s)", m, about)
	}
	return fmt.Sprintf("no host on the link of %s answers ARP or neighbour discovery for %v, so %s does not leave this host", p.Route.Interface, hop, about)
}

// explainArrivals describes what arrives from the peer, or from its possible new address,
// while the peer does not answer. If ok is false, nothing arrives.
func explainArrivals(ctx context.Context, p *subject.Peer) (f finding.Finding, ok bool) {
	now := countersOf(ctx, p)
	if p.Status != nil && now != nil {
		if f, ok := explainDrops(p, p.Status.In.Drops, now.In.Drops); ok {
			return f, true
		}
		var explained uint64
		for _, a := range dropAdvice {
			explained += now.In.Drops[a.reason]
		}
		if now.In.Packets <= explained { // most packets were dropped, even if some time passes between two of them
			if f, ok := explainDrops(p, nil, now.In.Drops); ok {
				return f, true
			}
		}
	}
	n := 0
	if p.Prober != nil {
		n = p.Prober.OtherPackets()
	}
	if n == 0 && bypassesSockets(p) && p.Status != nil && now != nil {
		n = int(now.In.Packets - p.Status.In.Packets)
	}
	if n > 0 || now != nil && now.State.Phase == api.Suspect && now.Liveness.LastPacket.After(time.Now().Add(-recentPacket)) {
		return finding.Failed(fmt.Sprintf("on the peer, %v: tcpdump -ni any %s, while sixfourctl ping %s runs here. If nothing arrives there, a filter on the path or the peer's own drops %s from %v; otherwise run sixfourctl doctor there",
			p.Remote, dumpFilter(p), daemonName(p), p.Traffic(firewall.Output), p.Local),
			"packets arrive from %v, but it does not answer ours: they do not reach it (one direction is broken), or its own rules drop them", p.Remote), true
	}
	return explainMove(p)
}

// dumpFilter returns the expression with which tcpdump shows our packets at the peer.
func dumpFilter(p *subject.Peer) string {
	if p.HasPorts() {
		return fmt.Sprintf("udp port %d", p.PortTo(firewall.Output))
	}
	return fmt.Sprintf("proto %d", p.Outer().Protocol())
}

// explainMove reports the address from which the peer may send now.
func explainMove(p *subject.Peer) (f finding.Finding, ok bool) {
	if s, ok := unknownSource(p); ok {
		packets := fmt.Sprintf("packets of protocol %d", s.Protocol)
		if p.HasPorts() { // the daemon does not record the port
			packets = "UDP packets"
		}
		return finding.Failed(fmt.Sprintf("if %s is the peer: remote = %q in [[tunnel]] %s, then: sixfourctl reload", s.From, s.From, p.Tunnel.Config.Name),
			"no packet comes from %v, but %s come from %s, which is no peer's remote: has the peer's address changed? (the last one came %v ago)",
			p.Remote, packets, s.From, time.Since(s.Last).Round(time.Second)), true
	}
	return f, false
}

// explainDrops explains why the daemon drops the peer's packets, if drop counters that
// show the reason have increased.
func explainDrops(p *subject.Peer, before, after map[string]uint64) (f finding.Finding, ok bool) {
	for _, a := range dropAdvice {
		if after[a.reason] > before[a.reason] {
			return finding.Failed(a.remedy, "packets arrive from %v, and this host's daemon drops them (%s): %s", p.Remote, increased(before, after), a.means), true
		}
	}
	return f, false
}

// dropAdvice explains the reasons for which packets from a peer are dropped.
var dropAdvice = []struct{ reason, means, remedy string }{
	{"own_source", "their source is an address of this host: both ends have the same inner address, or local6 and remote6 are the wrong way round", "exchange local6 and remote6 at one end, and give the two ends different addresses"},
	{"spoof", "the peer may not send from their inner source address", "compare local6, remote6 and allowed with the peer's local6 and address"},
	{"key", "the GRE keys of the two ends are not the same", "set the same key at both ends, or set ikey at each end to the okey of the other end"},
	{"sequence", "their GRE sequence numbers are missing, or old", "set sequence the same at both ends"},
	{"bad_checksum", "their checksums are wrong, or (with checksum = true) they have no GRE checksums", "set checksum the same at both ends; if it is the same, find what changes packets on the path (sixfourctl capture)"},
	{"foreign_source", "their IPv6 layer comes from another address than remote6", "compare remote6 with the peer's local6"},
	{"unknown_protocol", "they carry a protocol that this mode does not support", "set the same mode at both ends"},
}

// unknownSource returns a source address that belongs to no peer and from which packets
// of the tunnel's protocol have recently arrived.
func unknownSource(p *subject.Peer) (s api.UnknownSource, ok bool) {
	if p.Tunnel.Host.Status == nil {
		return s, false
	}
	for _, s := range p.Tunnel.Host.Status.UnknownSources {
		if s.To == p.Local.String() && s.Protocol == int(p.Outer().Protocol()) && time.Since(s.Last) < recentUnknownSource {
			return s, true
		}
	}
	return s, false
}

// recentUnknownSource is how recently a peer that has moved must have sent a packet: by
// default it sends a probe at least every 30 seconds.
const recentUnknownSource = 2 * time.Minute

// recentPacket is how recent a packet from the peer must be to show that the peer is
// alive.
const recentPacket = 30 * time.Second

// describePing says whether the peer's host answers outside the tunnel.
func describePing(p *subject.Peer, ping prober.Outcome) string {
	switch {
	case ping.Answered():
		return fmt.Sprintf("the host %v answers pings outside the tunnel, in %v", p.Remote, ping.RTT.Round(10*time.Microsecond))
	case ping.Err != nil:
		return fmt.Sprintf("a ping of %v cannot be sent: %v", p.Remote, ping.Err)
	case ping.Replied:
		return describeError(p, ping, fmt.Sprintf("a ping of %v", p.Remote))
	}
	return fmt.Sprintf("the host %v does not answer pings either", p.Remote)
}

// mayProbeAgain returns why a check that needs answers is skipped; ok: it is not skipped.
func mayProbeAgain(p *subject.Peer) (f finding.Finding, ok bool) {
	if hasSession(p) {
		return finding.Skipped("only the daemon can make packets of the encapsulation %s", p.Config.Paths[0].Encap).WithRemedy("sixfourctl mtu " + daemonName(p)), false
	}
	if bypassesSockets(p) {
		return finding.Skipped("the daemon receives packets through AF_XDP, so this program does not see them").WithRemedy("sixfourctl mtu " + daemonName(p)), false
	}
	if p.Prober == nil || p.Answered == nil {
		return finding.Skipped("the peer does not answer"), false
	}
	return f, true
}

// answersOutside reports whether the peer answers only outside the tunnel.
func answersOutside(p *subject.Peer) bool {
	return p.Answered != nil && p.Answered.Kind == prober.Outside
}
