package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/packetfilter"
	"sixfour/internal/doctor/prober"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/firewall"
	"sixfour/internal/probe"
)

// gateway describes the [gateway] section, with which a tunnel leads to the internet.
type gateway struct {
	h         *subject.Host
	cfg       config.Gateway
	status    *api.GatewayStatus // nil: no daemon applies it
	failed    []string           // failed checks of the default route's tunnel and its peers
	ipv4Works bool               // internet_ipv4 passes
}

// newGateway returns the configured gateway; nil: none.
func newGateway(h *subject.Host) *gateway {
	g := &gateway{h: h}
	if h.Config != nil {
		g.cfg = h.Config.Gateway
	}
	if h.Status != nil {
		g.status = h.Status.Gateway
	}
	if g.cfg.DefaultRoute == "" && len(g.cfg.Masquerade) == 0 {
		return nil
	}
	return g
}

// recordFailed stores the failed checks of the tunnel that takes the default route.
func (g *gateway) recordFailed(r *Report) {
	for _, c := range r.Checks {
		if c.Verdict == finding.Fail && c.Tunnel != "" && c.Tunnel == g.cfg.DefaultRoute && slices.Contains(neededBeyondPeer, c.Check) {
			g.failed = append(g.failed, c.Check)
		}
	}
}

// neededBeyondPeer are the checks that must pass to reach anything beyond the peer.
var neededBeyondPeer = []string{"interface", "address", "route", "rp_filter", "firewall_out", "firewall_in", "state", "answer", "inner_ipv4", "inner_ipv6"}

func checkDefaultRoute(_ context.Context, g *gateway) finding.Finding {
	switch d := g.status; {
	case g.cfg.DefaultRoute == "":
		return finding.Skipped("default_route is not set")
	case g.h.Status == nil:
		return finding.Skipped("no daemon is running")
	case d == nil || d.DefaultRoute == nil:
		return finding.Failed("sixfourctl reload", "default_route is set in the file, but the daemon does not apply it")
	case d.DefaultRoute.State == api.GatewayFailed:
		return finding.Failed("journalctl -u sixfourd", "the daemon reports: %s", d.DefaultRoute.Detail)
	case d.DefaultRoute.State == api.GatewayWaiting && len(g.failed) > 0:
		return finding.Skipped("the daemon reports: %s; and the check %s fails", d.DefaultRoute.Detail, g.failed[0])
	case d.DefaultRoute.State == api.GatewayWaiting:
		return finding.Failed("sixfourctl watch (the daemon continues by itself afterwards)", "the daemon reports: %s", d.DefaultRoute.Detail)
	}
	return finding.Passed("packets without another route go into %s", g.cfg.DefaultRoute)
}

func checkMasquerade(_ context.Context, g *gateway) finding.Finding {
	if len(g.cfg.Masquerade) == 0 {
		return finding.Skipped("masquerade is not set: this host gives nobody internet access")
	}
	switch s := g.status; {
	case g.h.Status == nil:
		return finding.Skipped("no daemon is running")
	case s == nil || s.Masquerade == nil:
		return finding.Failed("sixfourctl reload", "masquerade is set in the file, but the daemon does not apply it")
	case s.Masquerade.State != api.GatewayActive:
		return finding.Failed(fmt.Sprintf("name the interface towards the internet: masquerade = %q in [gateway]", g.uplink()), "the daemon reports: %s", s.Masquerade.Detail)
	}
	if up := g.uplink(); !slices.Contains(g.cfg.Masquerade, up) && up != unknownUplink {
		return finding.Failed(fmt.Sprintf("masquerade = %q in [gateway]", up), "packets to the internet leave through %s, but masquerade is %s", up, strings.Join(g.cfg.Masquerade, ", "))
	}
	if a := g.status.Advice; len(a) > 0 {
		return finding.Skipped("%s", a[0])
	}
	return finding.Passed("packets from the tunnels leave through %s with its address", strings.Join(g.cfg.Masquerade, ", "))
}

// unknownUplink is the placeholder for an unknown interface.
const unknownUplink = "UPLINK"

// uplink returns the interface by which IPv4 packets to the internet leave.
func (g *gateway) uplink() string {
	to := packetfilter.DistantHosts[4]
	for _, a := range g.cfg.Probe {
		if a.Is4() {
			to = a
		}
	}
	if g.h.Router != nil {
		if r, err := g.h.Router.To(to, netip.Addr{}, config.GatewayMark); err == nil {
			return r.Interface
		}
	}
	return unknownUplink
}

func checkInternet4(ctx context.Context, g *gateway) finding.Finding {
	f := g.checkInternet(ctx, 4)
	g.ipv4Works = f.Verdict == finding.Pass
	return f
}

func checkInternet6(ctx context.Context, g *gateway) finding.Finding { return g.checkInternet(ctx, 6) }

// checkInternet pings a host on the internet: through the tunnel and, if there is no
// answer, by the old route, to find out which of the two is broken.
func (g *gateway) checkInternet(ctx context.Context, version int) finding.Finding {
	through := g.cfg.DefaultRoute != "" && (version == 4 && g.cfg.IPv4 || version == 6 && g.cfg.IPv6)
	serves := len(g.cfg.Masquerade) > 0 && (version == 4 || g.serves6())
	if !through && !serves {
		return finding.Skipped("[gateway] is not used for IPv%d here", version)
	}
	i := slices.IndexFunc(g.cfg.Probe, func(a netip.Addr) bool { return a.Is4() == (version == 4) })
	switch {
	case i < 0:
		return finding.Skipped("probe in [gateway] has no IPv%d address", version)
	case g.h.Status == nil:
		return finding.Skipped("no daemon is running")
	case !g.h.Privileged():
		return finding.Skipped("this user may not open raw sockets").WithRemedy(finding.AsRoot)
	case g.h.Router == nil:
		return finding.Skipped("%v", g.h.RouterErr)
	}
	target := g.cfg.Probe[i]
	if !through {
		if g.lacksRoute(version) {
			return finding.Skipped("this host has no IPv%d route to the internet", version).WithRemedy(fmt.Sprintf("if it should have one: with probe = \"ADDRESS\" (an IPv%d address) in [gateway], this check fails without a route", version))
		}
		return g.pingFromServer(ctx, target)
	}
	if d := g.status; d == nil || d.DefaultRoute == nil || d.DefaultRoute.State != api.GatewayActive {
		return finding.Skipped("the default route does not lead into %s", g.cfg.DefaultRoute)
	}
	return g.pingFromClient(ctx, target)
}

// lacksRoute reports whether this host has no route to the internet for an IP version
// that the user did not ask to test, but has one for the other version.
func (g *gateway) lacksRoute(version int) bool {
	if !g.cfg.DefaultProbe {
		return false
	}
	routed := make(map[bool]bool) // by whether it is the version
	for _, a := range g.cfg.Probe {
		_, err := g.h.Router.To(a, netip.Addr{}, 0)
		routed[a.Is4() == (version == 4)] = !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH)
	}
	return !routed[true] && routed[false]
}

// private6 reports whether all IPv6 addresses of the default route's tunnel are in
// fc00::/7. The peer then needs IPv6 internet access of its own, and masquerades.
func (g *gateway) private6() bool {
	some := false
	for _, t := range g.h.Config.Tunnels {
		for _, p := range t.Address {
			if t.Name != g.cfg.DefaultRoute || p.Addr().Is4() {
				continue
			}
			if !p.Addr().IsPrivate() {
				return false
			}
			some = true
		}
	}
	return some
}

// serves6 reports whether IPv6 packets of a tunnel are masqueraded.
func (g *gateway) serves6() bool {
	return g.h.Config != nil && slices.ContainsFunc(g.h.Config.Tunnels, func(t config.Tunnel) bool {
		return t.Netns == "" && slices.ContainsFunc(t.Address, func(p netip.Prefix) bool { return p.Addr().Is6() && p.Addr().IsPrivate() })
	})
}

// orProbe says how to configure another host to ping.
const orProbe = `; to ping another host: probe = "ADDRESS" in [gateway]`

// pingFromServer pings from the host that gives others access to the internet.
func (g *gateway) pingFromServer(ctx context.Context, target netip.Addr) finding.Finding {
	o, route, err := g.ping(ctx, target, 0)
	remedy := "ip route get " + target.String() + orProbe
	switch {
	case err != nil:
		return finding.Failed(remedy, "this host cannot reach the internet: %v", err)
	case o.Answered():
		return finding.Passed("%v answers a ping of this host through %s, in %v", target, route, o.RTT.Round(10*time.Microsecond))
	}
	return finding.Failed(remedy, "%v does not answer a ping of this host through %s%s", target, route, describeError(o))
}

// pingFromClient pings from the host that sends all traffic into the tunnel.
func (g *gateway) pingFromClient(ctx context.Context, target netip.Addr) finding.Finding {
	into := g.cfg.DefaultRoute
	o, route, err := g.ping(ctx, target, 0)
	switch {
	case err != nil:
		return finding.Failed("ip rule; ip route get "+target.String(), "there is no route to the internet: %v", err)
	case route != into:
		return finding.Failed("ip rule; ip route get "+target.String()+orProbe, "packets to %v leave through %s, not through %s", target, route, into)
	case o.Answered():
		return finding.Passed("%v answers a ping through %s, in %v", target, into, o.RTT.Round(10*time.Microsecond))
	case len(g.failed) > 0:
		return finding.Skipped("%v does not answer a ping through %s, and the check %s fails", target, into, g.failed[0])
	}
	if f, bad := g.ownRules(target, into); bad {
		return f
	}
	old, by, err := g.ping(ctx, target, config.GatewayMark)
	outside := err == nil && by != into
	if target.Is6() && g.cfg.DefaultProbe && g.ipv4Works && g.private6() && (!outside || !old.Answered()) {
		return finding.Skipped("%v does not answer a ping through %s%s, but IPv4 works: the peer may have no IPv6 internet access", target, into, describeError(o)).
			WithRemedy("if it has: with probe = \"ADDRESS\" (an IPv6 address) in [gateway], this check fails without an answer")
	}
	remedy := fmt.Sprintf("on the peer: set masquerade = \"INTERFACE\" in [gateway], and run sixfourctl doctor%s", orProbe)
	switch {
	case outside && old.Answered():
		return finding.Failed(remedy, "%v does not answer a ping through %s%s, but it answers one through %s, past the tunnel: the peer does not forward packets to the internet, or their answers", target, into, describeError(o), by)
	case outside:
		return finding.Failed(remedy, "%v does not answer a ping, neither through %s%s nor through %s, past the tunnel: the peer does not forward packets to the internet, or that host answers no pings", target, into, describeError(o), by)
	}
	return finding.Failed(remedy, "%v does not answer a ping through %s%s: the peer does not forward packets to the internet, or their answers", target, into, describeError(o))
}

// describeError describes the error of an outcome.
func describeError(o prober.Outcome) string {
	switch {
	case o.Err != nil:
		return fmt.Sprintf(" (it cannot be sent: %v)", o.Err)
	case o.Replied:
		return fmt.Sprintf(" (%v reports %s)", o.From, prober.Meaning(o.Reply.ICMP))
	}
	return ""
}

// ownRules checks whether this host's rules drop the answers.
func (g *gateway) ownRules(target netip.Addr, into string) (f finding.Finding, bad bool) {
	rules, err := g.h.Rules()
	route, err2 := g.h.Router.To(target, netip.Addr{}, 0)
	if err != nil || err2 != nil {
		return f, false
	}
	p := packetfilter.Echo(firewall.Input, target, route.Source, true)
	p.Device, p.Index = into, route.Index
	if j := rules.Judge(p); j.Verdict == firewall.Drop {
		return finding.Failed(packetfilter.AcceptDevice(j.Place, firewall.Input, into), "%s drops answers from the internet (such as those of %v) that arrive through %s", packetfilter.Describe(j.Place), target, into), true
	}
	return f, false
}

// ping pings a host by the route for packets with a mark, and returns the interface of
// that route.
func (g *gateway) ping(ctx context.Context, target netip.Addr, mark uint32) (o prober.Outcome, device string, err error) {
	route, err := g.h.Router.To(target, netip.Addr{}, mark)
	if err != nil {
		return o, "", err
	}
	ping, err := prober.NewPinger("", config.Pair{Local: route.Source, Remote: target}, probe.NewIdentity())
	if err != nil {
		return o, route.Interface, err
	}
	defer ping.Close()
	if err := ping.Mark(mark); err != nil {
		return o, route.Interface, err
	}
	for n := range prober.Tries {
		if o = ping.Ping(ctx, uint16(n+1)); o.Replied || o.Err != nil || ctx.Err() != nil {
			break
		}
	}
	return o, route.Interface, nil
}
