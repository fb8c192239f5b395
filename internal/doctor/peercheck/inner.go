package peercheck

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/control/client"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/prober"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/netcfg"
	"sixfour/internal/netns"
	"sixfour/internal/probe"
)

// InnerIPv4 checks whether the peer's inner IPv4 address answers a ping.
func InnerIPv4(ctx context.Context, p *subject.Peer) finding.Finding { return checkInner(ctx, p, 4) }

// InnerIPv6 checks whether the peer's inner IPv6 address answers a ping.
func InnerIPv6(ctx context.Context, p *subject.Peer) finding.Finding { return checkInner(ctx, p, 6) }

// innerPairs returns the pairs of inner addresses of an IP version with which the peer
// can be pinged: those that the configuration shows, and the ends of the IPv6 layer if
// the interface has our end.
func innerPairs(p *subject.Peer, version int) (pairs []config.Pair) {
	is := func(a netip.Addr) bool { return a.Is4() == (version == 4) }
	add := func(pair config.Pair) {
		if is(pair.Local) && pair.Remote.IsValid() && !slices.ContainsFunc(pairs, func(q config.Pair) bool { return q.Local == pair.Local && q.Remote == pair.Remote }) {
			pairs = append(pairs, pair)
		}
	}
	if p.Config.Probe.IsValid() && is(p.Config.Probe) { // the configuration says which address answers
		for _, pair := range p.Tunnel.Config.Probed(p.Config) {
			if pair.Local.IsValid() {
				add(pair)
			}
		}
		return pairs
	}
	if local, remote, ok := probe.Ends(layersOf(p)); ok && p.Tunnel.HasAddress(local) {
		add(config.Pair{Local: local, Remote: remote, Sure: true})
	}
	for _, pair := range p.Tunnel.Config.Inside(p.Config) {
		add(pair)
	}
	if i := slices.IndexFunc(pairs, func(q config.Pair) bool { return q.Sure }); i >= 0 {
		return slices.DeleteFunc(pairs, func(q config.Pair) bool { return !q.Sure })
	}
	return pairs
}

// checkInner pings the peer's inner addresses of an IP version: through the interface,
// like any program, if a daemon runs the tunnel; otherwise with packets made by this
// program.
func checkInner(ctx context.Context, p *subject.Peer, version int) finding.Finding {
	if !p.Tunnel.Carried(version) {
		return finding.Skipped("the tunnel does not carry IPv%d", version)
	}
	if p.Tunnel.Mechanism() >= 0 {
		return finding.Skipped("in this mode, the configuration has no inner address of a peer")
	}
	if why := p.FailedCheck("address", "route"); why != "" {
		return finding.Skipped("%s", why)
	}
	if !p.Local.IsValid() || !p.Remote.IsValid() {
		return finding.Skipped("the outer addresses are not known")
	}
	pairs := innerPairs(p, version)
	if len(pairs) == 0 {
		prefix := map[int]string{4: "/30", 6: "/126"}[version]
		return finding.Skipped("no inner IPv%d address of the peer is known", version).
			WithRemedy(fmt.Sprintf("ping it, or give %s an address in a %s", p.Tunnel.Config.Name, prefix))
	}
	if !p.Tunnel.Host.Privileged() {
		return finding.Skipped("this user may not open raw sockets").WithRemedy(finding.AsRoot)
	}
	if p.Tunnel.Status == nil || slices.Contains(p.Tunnel.Failed, "interface") {
		return innerBeside(ctx, p, pairs)
	}
	if f, bad := innerRoutes(p, pairs); bad {
		return f
	}
	return innerByKernel(ctx, p, pairs)
}

// innerBeside pings without a daemon.
func innerBeside(ctx context.Context, p *subject.Peer, pairs []config.Pair) finding.Finding {
	if p.Prober == nil || bypassesSockets(p) {
		return finding.Skipped("no daemon runs this tunnel")
	}
	probes := make([]prober.Probe, len(pairs))
	for i, pair := range pairs {
		probes[i] = prober.Probe{Kind: prober.Inside, Local: pair.Local, Remote: pair.Remote}
	}
	return judgeInner(ctx, p, pairs, p.Prober.SendAll(ctx, probes), nil)
}

// innerRoutes checks whether packets to the addresses enter this tunnel.
func innerRoutes(p *subject.Peer, pairs []config.Pair) (f finding.Finding, bad bool) {
	err := netns.In(p.Tunnel.Config.Netns, func() error {
		router, err := netcfg.NewRouter()
		if err != nil {
			return err
		}
		defer router.Close()
		for _, pair := range pairs {
			if !pair.Sure {
				continue
			}
			remedy := fmt.Sprintf("%s route add %v dev %s", p.Tunnel.IPCommand(), netip.PrefixFrom(pair.Remote, pair.Remote.BitLen()), p.Tunnel.Config.Name)
			r, err := router.To(pair.Remote, pair.Local, 0)
			switch {
			case err != nil:
				remedy = fmt.Sprintf("look at: %[1]s rule; %[1]s route get %[2]v from %[3]v", p.Tunnel.IPCommand(), pair.Remote, pair.Local)
				f, bad = finding.Failed(remedy, "there is no route from %v to the peer's inner address %v: %v", pair.Local, pair.Remote, err), true
			case r.Interface != p.Tunnel.Config.Name:
				f, bad = finding.Failed(remedy, "the route to the peer's inner address %v leads through %s, not %s", pair.Remote, r.Interface, p.Tunnel.Config.Name), true
			}
		}
		return nil
	})
	if err != nil {
		return finding.OfError(err), true
	}
	return f, bad
}

// innerByKernel pings through the interface.
func innerByKernel(ctx context.Context, p *subject.Peer, pairs []config.Pair) finding.Finding {
	outcomes, heard := make([]prober.Outcome, len(pairs)), make([]prober.Outcome, len(pairs))
	before := countersOf(ctx, p)
	var wg sync.WaitGroup
	for i, pair := range pairs {
		wg.Go(func() { outcomes[i], heard[i] = pingThrough(ctx, p, pair) })
	}
	wg.Wait()
	e := &evidence{replies: heard, before: before, after: countersOf(ctx, p)}
	return judgeInner(ctx, p, pairs, outcomes, e)
}

// pingThrough pings one address through the interface, at most as often as other
// probes are sent. Heard is the answer as seen in an outer packet of the tunnel.
func pingThrough(ctx context.Context, p *subject.Peer, pair config.Pair) (o, heard prober.Outcome) {
	id := probe.NewIdentity()
	if p.Prober != nil {
		id = p.Prober.ID
	}
	ping, err := prober.NewPinger(p.Tunnel.Config.Netns, pair, id)
	if err != nil {
		return prober.Outcome{Err: err}, heard
	}
	defer ping.Close()
	times := prober.Tries
	if slices.Contains(p.Tunnel.Failed, "inner_firewall") || p.FailedCheck("answer") != "" { // no answer is expected
		times = 1
	}
	for n := range times {
		seq := uint16(n + 1)
		var replies <-chan prober.Reply
		if p.Prober != nil {
			seq, replies = p.Prober.Expect()
			defer p.Prober.Forget(seq)
		}
		o = ping.Ping(ctx, seq)
		select {
		case r := <-replies:
			heard = prober.Outcome{Reply: r, Replied: true}
		default:
		}
		if o.Replied || o.Err != nil || ctx.Err() != nil {
			break
		}
	}
	return o, heard
}

// evidence is what this host knows about pings that went through the interface.
type evidence struct {
	replies       []prober.Outcome // answers seen in the tunnel's packets, by pair
	before, after *api.PeerStatus  // the daemon's counters; nil: not known
}

// countersOf requests the peer's counters from the daemon.
func countersOf(ctx context.Context, p *subject.Peer) *api.PeerStatus {
	if p.Tunnel.Host.Status == nil {
		return nil
	}
	c := client.New(p.Tunnel.Host.Socket)
	ctx, cancel := context.WithTimeout(ctx, subject.StatusTimeout)
	defer cancel()
	s, err := c.Status(ctx, p.Tunnel.Config.Name)
	if err != nil || len(s.Tunnels) != 1 {
		return nil
	}
	now := *p.Tunnel
	now.Status = &s.Tunnels[0]
	return now.PeerStatus(p.Config.Name)
}

// judgeInner evaluates the outcomes of pings to inner addresses.
func judgeInner(ctx context.Context, p *subject.Peer, pairs []config.Pair, outcomes []prober.Outcome, e *evidence) finding.Finding {
	answered, silent := -1, -1
	for i, o := range outcomes {
		switch {
		case o.Answered() && answered < 0:
			answered = i
		case !o.Answered() && silent < 0:
			silent = i
		}
	}
	sure := pairs[0].Sure
	if answered >= 0 && (silent < 0 || !sure) {
		way := "(sent by this program itself)"
		if e != nil {
			way = "through " + p.Tunnel.Config.Name
		}
		var names []string
		for i, pair := range pairs {
			if outcomes[i].Answered() {
				names = append(names, pair.Remote.String())
			}
		}
		return finding.Passed("%s answers a ping from %v %s, in %v", strings.Join(names, ", "), pairs[answered].Local, way, outcomes[answered].RTT.Round(10*time.Microsecond))
	}
	return innerSilence(ctx, p, pairs[silent], outcomes[silent], e, silent)
}

// innerSilence explains why a ping was not answered and, as far as this host can know, at
// which end the fault is.
func innerSilence(ctx context.Context, p *subject.Peer, pair config.Pair, o prober.Outcome, e *evidence, i int) finding.Finding {
	what := fmt.Sprintf("%v does not answer a ping from %v", pair.Remote, pair.Local)
	version := 4
	if pair.Remote.Is6() {
		version = 6
	}
	if slices.Contains(p.Tunnel.Failed, "inner_firewall") {
		return finding.Skipped("%s, and the check inner_firewall fails", what)
	}
	if why := p.FailedCheck("answer", "rp_filter", "firewall_out", "firewall_in"); why != "" {
		return finding.Skipped("%s, and %s", what, why)
	}
	here := fmt.Sprintf("look at this host's rules for %s (nft list ruleset, iptables-legacy-save), then at: sixfourctl capture %s", p.Tunnel.Config.Name, p.Tunnel.Config.Name)
	switch {
	case errors.Is(o.Err, unix.EPERM):
		return finding.Failed(here, "%s: this host refuses to send it (a packet filter or a security module)", what)
	case o.Err != nil:
		return finding.Failed(here, "%s: it cannot be sent: %v", what, o.Err)
	case e == nil:
	case e.replies[i].Answered(), bypassesSockets(p) && e.before != nil && e.after != nil && e.after.In.Packets > e.before.In.Packets:
		if reasons := increased(inDrops(e.before), inDrops(e.after)); reasons != "" {
			return finding.Failed("see docs/drops.md", "%s, apparently: the answer arrives, but this host's daemon drops it (%s)", what, reasons)
		}
		return finding.Failed(here, "%s, apparently: the answer arrives through %s, but this host's own rules drop it", what, p.Tunnel.Config.Name)
	}
	if e != nil {
		if f, ok := explainDrops(p, inDrops(e.before), inDrops(e.after)); ok {
			f.Text = what + ": " + f.Text
			return f
		}
		if reasons := increased(outDrops(e.before), outDrops(e.after)); reasons != "" {
			return finding.Failed("see docs/drops.md", "%s: this host's daemon drops the packets to it (%s)", what, reasons)
		}
		if e.before != nil && e.after != nil && e.after.Out.Packets == e.before.Out.Packets {
			return finding.Failed(here, "%s: no packet enters the tunnel: this host's own rules drop them first", what)
		}
	}
	if !pair.Sure {
		return finding.Skipped("%s, but this may not be an address of the peer", what).WithRemedy("ping an address that is the peer's")
	}
	return otherEnd(ctx, p, pair, o, e, i, what, version)
}

// otherEnd explains a fault at the peer, which packets do reach.
func otherEnd(ctx context.Context, p *subject.Peer, pair config.Pair, o prober.Outcome, e *evidence, i int, what string, version int) finding.Finding {
	name := map[int]string{4: "IPv4", 6: "IPv6"}[version]
	there := fmt.Sprintf("on the peer, %v: %%s, then: sixfourctl doctor", p.Remote)
	said := o
	if !said.Replied && e != nil {
		said = e.replies[i]
	}
	if said.Replied && !said.Answer {
		from := said.From
		if !from.IsValid() {
			from = pair.Remote
		}
		err := said.Reply.ICMP
		if err.Version == 6 && err.Type == 4 && err.Code == 1 { // RFC 4443 section 3.4: unrecognized next header
			return finding.Failed(fmt.Sprintf(there, fmt.Sprintf("mode = %q", p.Tunnel.Config.Mode.Name)),
				"%s: %v reports that it does not accept %s in IPv6: the peer runs another mode, or its local6 is not %v", what, from, name, from)
		}
		return finding.Failed(fmt.Sprintf(there, "look at its rules and routes"), "%s: %v reports %s", what, from, prober.Meaning(err))
	}
	if answersAsUs(ctx, p, pair) {
		return finding.Failed(fmt.Sprintf(there, fmt.Sprintf("set its address to %v (or change the one here)", pair.Remote)),
			"%s, but the peer answers for %v, which is this host's address: both ends have the same address", what, pair.Local)
	}
	sent := "packets leave for the peer, but no answer comes back"
	if e == nil {
		sent = "no answer comes back"
	}
	if p.Answered != nil && p.Answered.Kind == prober.Inside && p.Answered.Remote != pair.Remote {
		sent += fmt.Sprintf(", although %v answers, so the path works", p.Answered.Remote)
	}
	return finding.Failed(fmt.Sprintf(there, fmt.Sprintf("its address must be %v, its mode %s, and its packet filter must accept packets from the tunnel (nft insert rule inet filter input iifname %s accept)", pair.Remote, p.Tunnel.Config.Mode.Name, p.Tunnel.Config.Name)),
		"%s: %s: the other end drops them", what, sent)
}

// answersAsUs probes once whether our inner address also answers at the peer.
func answersAsUs(ctx context.Context, p *subject.Peer, pair config.Pair) bool {
	if p.Prober == nil || bypassesSockets(p) || p.Answered == nil || p.Answered.Kind == prober.Outside {
		return false
	}
	return p.Prober.SendOnce(ctx, prober.Probe{Kind: prober.Inside, Local: pair.Remote, Remote: pair.Local}).Answered()
}

func inDrops(s *api.PeerStatus) map[string]uint64 {
	if s == nil {
		return nil
	}
	return s.In.Drops
}

func outDrops(s *api.PeerStatus) map[string]uint64 {
	if s == nil {
		return nil
	}
	return s.Out.Drops
}

// increased lists the counters that have increased, and by how much.
func increased(before, after map[string]uint64) string {
	var list []string
	for _, reason := range slices.Sorted(maps.Keys(after)) {
		if n := after[reason] - before[reason]; after[reason] > before[reason] {
			list = append(list, fmt.Sprintf("%s %d", reason, n))
		}
	}
	return strings.Join(list, ", ")
}
