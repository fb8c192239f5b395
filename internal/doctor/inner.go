package doctor

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
	"sixfour/internal/netcfg"
	"sixfour/internal/netns"
	"sixfour/internal/probe"
)

func (p *peer) checkInner4(ctx context.Context) finding { return p.checkInner(ctx, 4) }
func (p *peer) checkInner6(ctx context.Context) finding { return p.checkInner(ctx, 6) }

// innerPairs returns the pairs of inner addresses of an IP version with which the peer can be
// pinged: those that the configuration shows, and the ends of the IPv6 layer if the interface
// has our end.
func (p *peer) innerPairs(version int) (pairs []config.Pair) {
	is := func(a netip.Addr) bool { return a.Is4() == (version == 4) }
	add := func(pair config.Pair) {
		if is(pair.Local) && pair.Remote.IsValid() && !slices.ContainsFunc(pairs, func(q config.Pair) bool { return q.Local == pair.Local && q.Remote == pair.Remote }) {
			pairs = append(pairs, pair)
		}
	}
	if p.cfg.Probe.IsValid() && is(p.cfg.Probe) { // the configuration says which address answers
		for _, pair := range p.t.cfg.Probed(p.cfg) {
			if pair.Local.IsValid() {
				add(pair)
			}
		}
		return pairs
	}
	if local, remote, ok := probe.Ends(p.layers()); ok && p.t.hasAddress(local) {
		add(config.Pair{Local: local, Remote: remote, Sure: true})
	}
	for _, pair := range p.t.cfg.Inside(p.cfg) {
		add(pair)
	}
	if i := slices.IndexFunc(pairs, func(q config.Pair) bool { return q.Sure }); i >= 0 {
		return slices.DeleteFunc(pairs, func(q config.Pair) bool { return !q.Sure })
	}
	return pairs
}

// hasAddress reports whether the interface is configured to have an address.
func (t *tunnel) hasAddress(a netip.Addr) bool {
	return slices.ContainsFunc(t.addresses(), func(p netip.Prefix) bool { return p.Addr() == a })
}

// carried reports whether packets of an IP version can enter the interface.
func (t *tunnel) carried(version int) bool {
	return t.cfg.Mode.Carries(version) || slices.ContainsFunc(t.cfg.Address, func(p netip.Prefix) bool { return p.Addr().Is4() == (version == 4) })
}

// checkInner pings the peer's inner addresses of an IP version: through the interface, like
// any program, if a daemon runs the tunnel; otherwise with packets made by this program.
func (p *peer) checkInner(ctx context.Context, version int) finding {
	if !p.t.carried(version) {
		return skip("the tunnel does not carry IPv%d", version)
	}
	if p.t.mechanism() >= 0 {
		return skip("the mode has no peer whose inner address the configuration shows")
	}
	if why := p.lacks("address", "route"); why != "" {
		return skip("%s", why)
	}
	if !p.local.IsValid() || !p.remote.IsValid() {
		return skip("the ends are not known")
	}
	pairs := p.innerPairs(version)
	if len(pairs) == 0 {
		prefix := map[int]string{4: "/30", 6: "/126"}[version]
		return skip("no inner IPv%d address is known to be the peer's", version).
			but(fmt.Sprintf("ping it, or give %s an address in a %s", p.t.cfg.Name, prefix))
	}
	if !p.t.h.privileged() {
		return skip("raw sockets are not for this user").but(asRoot)
	}
	if p.t.status == nil || slices.Contains(p.t.failed, "interface") {
		return p.innerBeside(ctx, pairs)
	}
	if f, bad := p.innerRoutes(pairs); bad {
		return f
	}
	return p.innerByKernel(ctx, pairs)
}

// innerBeside pings without a daemon.
func (p *peer) innerBeside(ctx context.Context, pairs []config.Pair) finding {
	if p.asker == nil || p.pastSockets() {
		return skip("no daemon runs the tunnel")
	}
	questions := make([]question, len(pairs))
	for i, pair := range pairs {
		questions[i] = question{way: inside, local: pair.Local, remote: pair.Remote}
	}
	return p.judgeInner(ctx, pairs, p.asker.askAll(ctx, questions), nil)
}

// innerRoutes checks whether packets to the addresses enter this tunnel.
func (p *peer) innerRoutes(pairs []config.Pair) (f finding, bad bool) {
	err := netns.In(p.t.cfg.Netns, func() error {
		router, err := netcfg.NewRouter()
		if err != nil {
			return err
		}
		defer router.Close()
		for _, pair := range pairs {
			if !pair.Sure {
				continue
			}
			mend := fmt.Sprintf("%s route add %v dev %s", p.t.ip(), netip.PrefixFrom(pair.Remote, pair.Remote.BitLen()), p.t.cfg.Name)
			r, err := router.To(pair.Remote, pair.Local, 0)
			switch {
			case err != nil:
				mend = fmt.Sprintf("look at: %[1]s rule; %[1]s route get %[2]v from %[3]v", p.t.ip(), pair.Remote, pair.Local)
				f, bad = fail(mend, "packets from %v to the peer's inner address %v find no way: %v", pair.Local, pair.Remote, err), true
			case r.Interface != p.t.cfg.Name:
				f, bad = fail(mend, "the route to the peer's inner address %v leads through %s, not %s", pair.Remote, r.Interface, p.t.cfg.Name), true
			}
		}
		return nil
	})
	if err != nil {
		return failOrSkip(err), true
	}
	return f, bad
}

// innerByKernel pings through the interface.
func (p *peer) innerByKernel(ctx context.Context, pairs []config.Pair) finding {
	outcomes, heard := make([]outcome, len(pairs)), make([]outcome, len(pairs))
	before := p.traffic(ctx)
	var wg sync.WaitGroup
	for i, pair := range pairs {
		wg.Go(func() { outcomes[i], heard[i] = p.pingThrough(ctx, pair) })
	}
	wg.Wait()
	e := &evidence{heard: heard, before: before, after: p.traffic(ctx)}
	return p.judgeInner(ctx, pairs, outcomes, e)
}

// pingThrough pings one address through the interface, at most as often as other questions
// are sent. Heard is the answer as seen in an outer packet of the tunnel.
func (p *peer) pingThrough(ctx context.Context, pair config.Pair) (o, heard outcome) {
	id := probe.NewIdentity()
	if p.asker != nil {
		id = p.asker.id
	}
	ping, err := p.t.newPinger(pair, id)
	if err != nil {
		return outcome{err: err}, heard
	}
	defer ping.close()
	times := tries
	if slices.Contains(p.t.failed, "inner_firewall") || p.lacks("answer") != "" { // no answer is expected
		times = 1
	}
	for n := range times {
		seq := uint16(n + 1)
		q := &question{replies: make(chan reply, 2)}
		if p.asker != nil {
			seq = p.asker.expect(q)
			defer p.asker.forget(seq)
		}
		o = ping.ping(ctx, seq)
		select {
		case r := <-q.replies:
			heard = outcome{reply: r, ok: true}
		default:
		}
		if o.ok || o.err != nil || ctx.Err() != nil {
			break
		}
	}
	return o, heard
}

// evidence is what this host knows about pings that went through the interface.
type evidence struct {
	heard         []outcome       // answers seen in the tunnel's packets, by pair
	before, after *api.PeerStatus // the daemon's counters; nil: not known
}

// traffic requests the peer's counters from the daemon.
func (p *peer) traffic(ctx context.Context) *api.PeerStatus {
	if p.t.h.status == nil {
		return nil
	}
	c := client.New(p.t.h.socket)
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	s, err := c.Status(ctx, p.t.cfg.Name)
	if err != nil || len(s.Tunnels) != 1 {
		return nil
	}
	now := *p.t
	now.status = &s.Tunnels[0]
	return now.peerStatus(p.cfg.Name)
}

// judgeInner evaluates the outcomes of pings to inner addresses.
func (p *peer) judgeInner(ctx context.Context, pairs []config.Pair, outcomes []outcome, e *evidence) finding {
	answered, silent := -1, -1
	for i, o := range outcomes {
		switch {
		case o.answered() && answered < 0:
			answered = i
		case !o.answered() && silent < 0:
			silent = i
		}
	}
	sure := pairs[0].Sure
	if answered >= 0 && (silent < 0 || !sure) {
		way := "by a packet of this program's own"
		if e != nil {
			way = "through " + p.t.cfg.Name
		}
		var names []string
		for i, pair := range pairs {
			if outcomes[i].answered() {
				names = append(names, pair.Remote.String())
			}
		}
		return pass("%s answers a ping from %v %s, in %v", strings.Join(names, ", "), pairs[answered].Local, way, outcomes[answered].rtt.Round(10*time.Microsecond))
	}
	return p.innerSilence(ctx, pairs[silent], outcomes[silent], e, silent)
}

// innerSilence explains why a ping was not answered and, as far as this host can know, at
// which end the fault is.
func (p *peer) innerSilence(ctx context.Context, pair config.Pair, o outcome, e *evidence, i int) finding {
	what := fmt.Sprintf("%v does not answer a ping from %v", pair.Remote, pair.Local)
	version := 4
	if pair.Remote.Is6() {
		version = 6
	}
	if slices.Contains(p.t.failed, "inner_firewall") {
		return skip("%s, and the check inner_firewall fails", what)
	}
	if why := p.lacks("answer", "rp_filter", "firewall_out", "firewall_in"); why != "" {
		return skip("%s, and %s", what, why)
	}
	here := fmt.Sprintf("look at this host's rules for %s (nft list ruleset, iptables-legacy-save), then at: sixfourctl capture %s", p.t.cfg.Name, p.t.cfg.Name)
	switch {
	case errors.Is(o.err, unix.EPERM):
		return fail(here, "%s: this host refuses to send it: a packet filter, or a security module", what)
	case o.err != nil:
		return fail(here, "%s: it does not leave: %v", what, o.err)
	case e == nil:
	case e.heard[i].answered(), p.pastSockets() && e.before != nil && e.after != nil && e.after.In.Packets > e.before.In.Packets:
		if reasons := grown(inDrops(e.before), inDrops(e.after)); reasons != "" {
			return fail("docs/drops.md says what to do", "%s, so it seems: the answer arrives, and this host's daemon drops it (%s)", what, reasons)
		}
		return fail(here, "%s, so it seems: the answer arrives and comes out of %s, and this host's own rules drop it there", what, p.t.cfg.Name)
	}
	if e != nil {
		if f, ok := p.droppedIn(inDrops(e.before), inDrops(e.after)); ok {
			f.text = what + ": " + f.text
			return f
		}
		if reasons := grown(outDrops(e.before), outDrops(e.after)); reasons != "" {
			return fail("docs/drops.md says what to do", "%s: this host's daemon drops the packets to it (%s)", what, reasons)
		}
		if e.before != nil && e.after != nil && e.after.Out.Packets == e.before.Out.Packets {
			return fail(here, "%s: no packet enters the tunnel: this host's own rules drop them before", what)
		}
	}
	if !pair.Sure {
		return skip("%s, of which it is not known whether it is the peer's", what).but("ping the address that is")
	}
	return p.otherEnd(ctx, pair, o, e, i, what, version)
}

// otherEnd explains a fault at the peer, which packets do reach.
func (p *peer) otherEnd(ctx context.Context, pair config.Pair, o outcome, e *evidence, i int, what string, version int) finding {
	name := map[int]string{4: "IPv4", 6: "IPv6"}[version]
	there := fmt.Sprintf("on the peer, %v: %%s, then: sixfourctl doctor", p.remote)
	said := o
	if !said.ok && e != nil {
		said = e.heard[i]
	}
	if said.ok && !said.answer {
		from := said.from
		if !from.IsValid() {
			from = pair.Remote
		}
		err := said.reply.err
		if err.Version == 6 && err.Type == 4 && err.Code == 1 { // RFC 4443 section 3.4: unrecognized next header
			return fail(fmt.Sprintf(there, fmt.Sprintf("mode = %q", p.t.cfg.Mode.Name)),
				"%s: %v says that it does not take %s in IPv6: the peer runs another mode, or its local6 is not %v", what, from, name, from)
		}
		return fail(fmt.Sprintf(there, "look at its rules and routes"), "%s: %v says %s", what, from, meaning(err))
	}
	if p.hasOurs(ctx, pair) {
		return fail(fmt.Sprintf(there, fmt.Sprintf("set its address to %v (or change the one here)", pair.Remote)),
			"%s, while %v, which is this host's, answers from the peer: both ends have the same address", what, pair.Local)
	}
	sent := "packets leave for the peer, and none comes back"
	if e == nil {
		sent = "nothing comes back"
	}
	if p.asked != nil && p.asked.way == inside && p.asked.remote != pair.Remote {
		sent += fmt.Sprintf(", while %v does answer, so the way is open", p.asked.remote)
	}
	return fail(fmt.Sprintf(there, fmt.Sprintf("its address must be %v, its mode %s, and it must let in what comes out of the tunnel (nft insert rule inet filter input iifname %s accept)", pair.Remote, p.t.cfg.Mode.Name, p.t.cfg.Name)),
		"%s: %s: it is the other end that drops it", what, sent)
}

// hasOurs probes once whether our inner address also answers at the peer.
func (p *peer) hasOurs(ctx context.Context, pair config.Pair) bool {
	if p.asker == nil || p.pastSockets() || p.asked == nil || p.asked.way == outside {
		return false
	}
	return p.asker.askOnce(ctx, question{way: inside, local: pair.Remote, remote: pair.Local}).answered()
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

// grown lists the counters that have increased, and by how much.
func grown(before, after map[string]uint64) string {
	var list []string
	for _, reason := range slices.Sorted(maps.Keys(after)) {
		if n := after[reason] - before[reason]; after[reason] > before[reason] {
			list = append(list, fmt.Sprintf("%s %d", reason, n))
		}
	}
	return strings.Join(list, ", ")
}
