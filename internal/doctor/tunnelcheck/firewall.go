package tunnelcheck

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"sixfour/internal/config"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/packetfilter"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/firewall"
	"sixfour/internal/netns"
)

// rulesOf returns the rules of the namespace of the tunnel's interface.
func rulesOf(t *subject.Tunnel) (rules *firewall.Ruleset, err error) {
	if t.Config.Netns == "" {
		return t.Host.Rules()
	}
	err = netns.In(t.Config.Netns, func() (err error) {
		rules, err = firewall.Read()
		return err
	})
	return rules, err
}

// innerExamples returns one pair of inner addresses for each of the interface's
// addresses: with the first peer's address, or else with a neighbour's.
func innerExamples(t *subject.Tunnel) (pairs []config.Pair) {
	for _, own := range t.Config.Address {
		pair := config.Pair{Local: own.Addr(), Remote: own.Masked().Addr().Next()}
		if pair.Remote == pair.Local {
			pair.Remote = pair.Remote.Next()
		}
		if len(t.Config.Peers) > 0 {
			for _, q := range t.Config.Inside(&t.Config.Peers[0]) {
				if q.Local == own.Addr() {
					pair = q
					break
				}
			}
		}
		if pair.Remote.IsValid() {
			pairs = append(pairs, pair)
		}
	}
	return pairs
}

// InnerFirewall evaluates this host's rules for pings between the inner addresses.
func InnerFirewall(_ context.Context, t *subject.Tunnel) finding.Finding {
	pairs := innerExamples(t)
	if len(pairs) == 0 {
		return finding.Skipped("the configuration gives the interface no address")
	}
	rules, err := rulesOf(t)
	if err != nil {
		return packetfilter.Unreadable(err)
	}
	index := indexOf(t)
	doubt, drops := answersNoPings(t), false
	for _, pair := range pairs {
		for _, w := range []struct {
			packet firewall.Packet
			what   string
			ours   bool // our own pings need it
		}{
			{packetfilter.Echo(firewall.Output, pair.Local, pair.Remote, false), "pings from %[1]v to %[2]v that leave through %[3]s", true},
			{packetfilter.Echo(firewall.Input, pair.Remote, pair.Local, true), "answers from %[2]v to %[1]v that arrive through %[3]s", true},
			{packetfilter.Echo(firewall.Input, pair.Remote, pair.Local, false), "pings from %[2]v to %[1]v that arrive through %[3]s", false},
			{packetfilter.Echo(firewall.Output, pair.Local, pair.Remote, true), "answers from %[1]v to %[2]v that leave through %[3]s", false},
		} {
			w.packet.Device, w.packet.Index = t.Config.Name, index
			j := rules.Judge(w.packet)
			if j.Verdict == firewall.Pass {
				continue
			}
			what := fmt.Sprintf(w.what, pair.Local, pair.Remote, t.Config.Name)
			accept := packetfilter.AcceptDevice(j.Place, w.packet.Hook, t.Config.Name)
			switch {
			case j.Verdict == firewall.Drop && w.ours:
				return finding.Failed(accept, "%s drops %s", packetfilter.Describe(j.Place), what)
			case j.Verdict == firewall.Drop && !drops:
				drops = true
				doubt = finding.Skipped("%s drops %s; answers to this host's own pings are accepted", packetfilter.Describe(j.Place), what).WithRemedy(accept + ", if the peer may open connections to this host")
			case doubt.Text == "":
				doubt = finding.Skipped("whether %s drops %s depends on something that is unknown here", packetfilter.Describe(j.Place), what).WithRemedy(packetfilter.ListChain(j.Place))
			}
		}
	}
	if doubt.Text != "" {
		return doubt
	}
	return finding.Passed("this host's rules accept pings through %s, in both directions, for %s", t.Config.Name, examples(pairs))
}

// answersNoPings reports if this host is configured not to answer pings.
func answersNoPings(t *subject.Tunnel) (f finding.Finding) {
	_ = t.InNamespace(func(*netlink.Handle) error {
		for _, s := range []struct {
			version       int
			path, setting string
		}{{4, "net/ipv4/icmp_echo_ignore_all", "net.ipv4.icmp_echo_ignore_all"}, {6, "net/ipv6/icmp/echo_ignore_all", "net.ipv6.icmp.echo_ignore_all"}} {
			if value, err := t.Sysctl(s.path); err == nil && value != 0 && t.Carried(s.version) {
				f = finding.Skipped("%s is %d: this host answers no pings, so the checks of the peer fail", s.setting, value).WithRemedy("sysctl -w " + s.setting + "=0")
			}
		}
		return nil
	})
	return f
}

// examples formats the pairs.
func examples(pairs []config.Pair) string {
	var all []netip.Addr
	for _, p := range pairs {
		all = append(all, p.Local)
	}
	return finding.Addresses(all)
}

// indexOf returns the index of the tunnel's interface; 0: none.
func indexOf(t *subject.Tunnel) (index int) {
	_ = t.InNamespace(func(h *netlink.Handle) error {
		link, err := h.LinkByName(t.Config.Name)
		if err == nil {
			index = link.Attrs().Index
		}
		return err
	})
	return index
}

// ForwardFirewall evaluates this host's rules for packets between the tunnel and another
// network of this host.
func ForwardFirewall(_ context.Context, t *subject.Tunnel) (f finding.Finding) {
	if err := t.InNamespace(func(h *netlink.Handle) error {
		f = inspectForwardFirewall(t, h)
		return nil
	}); err != nil {
		return finding.OfError(err)
	}
	return f
}

func inspectForwardFirewall(t *subject.Tunnel, h *netlink.Handle) finding.Finding {
	ways := forwardPaths(t, h)
	if len(ways) == 0 {
		return finding.Skipped("this host forwards nothing between the tunnel and another network")
	}
	rules, err := firewall.Read()
	if err != nil {
		return packetfilter.Unreadable(err)
	}
	index := indexOf(t)
	for _, w := range ways {
		judge := func(in, answer bool) firewall.Judgement {
			p := packetfilter.Echo(firewall.Forward, w.behind, w.beyond, answer)
			p.Device, p.Index, p.To, p.ToIndex = w.name, w.index, t.Config.Name, index
			if in {
				p = packetfilter.Echo(firewall.Forward, w.beyond, w.behind, answer)
				p.Device, p.Index, p.To, p.ToIndex = t.Config.Name, index, w.name, w.index
			}
			return rules.Judge(p)
		}
		out, back := packetfilter.Worst(judge(false, false), judge(true, true)), packetfilter.Worst(judge(true, false), judge(false, true))
		if w.oneWay == "in" {
			out = back
		}
		bad := out
		if out.Verdict != firewall.Drop {
			bad = back
		}
		accept := fmt.Sprintf("nft insert rule %s %s %s iifname %s accept; nft insert rule %s %s %s oifname %s accept",
			bad.Family, bad.Table, bad.Base, t.Config.Name, bad.Family, bad.Table, bad.Base, t.Config.Name)
		between := fmt.Sprintf("between %s and %s (such as %v and %v)", t.Config.Name, w.name, w.beyond, w.behind)
		switch {
		case out.Verdict == firewall.Drop && back.Verdict == firewall.Drop:
			return finding.Failed(accept, "%s drops packets that this host forwards %s", packetfilter.Describe(bad.Place), between)
		case out.Verdict == firewall.Drop:
			return finding.Skipped("%s drops connections from %s into the tunnel; connections from the tunnel are accepted", packetfilter.Describe(out.Place), w.name).WithRemedy(accept)
		case back.Verdict == firewall.Drop:
			return finding.Skipped("%s drops connections from the tunnel to %s; connections into the tunnel are accepted", packetfilter.Describe(back.Place), w.name).WithRemedy(accept)
		case out.Verdict == firewall.Depends || back.Verdict == firewall.Depends:
			doubt := packetfilter.Worst(out, back)
			return finding.Skipped("whether %s drops packets that this host forwards %s depends on something that is unknown here", packetfilter.Describe(doubt.Place), between).WithRemedy(packetfilter.ListChain(doubt.Place))
		}
	}
	return finding.Passed("this host's rules accept the packets that it forwards between %s and %s", t.Config.Name, ways[0].name)
}

// forwardPath is another network that this host forwards for, with an address in it and
// one on the other side of the tunnel. OneWay is "in" if connections begin only there.
type forwardPath struct {
	name           string
	index          int
	behind, beyond netip.Addr
	oneWay         string
}

// forwardPaths returns the networks to and from which the tunnel's packets of an IP
// version are forwarded: forwarding is on, and the tunnel has routes or the gateway
// serves it.
func forwardPaths(t *subject.Tunnel, h *netlink.Handle) (ways []forwardPath) {
	for _, s := range forwarding {
		is := func(p netip.Prefix) bool { return p.Addr().Is4() == (s.version == 4) }
		if w, ok := servedPath(t, h, s.version); ok {
			ways = append(ways, w)
		}
		i := slices.IndexFunc(t.Config.Routes, is)
		if value, err := t.Sysctl(s.path); i < 0 || err != nil || value == 0 {
			continue
		}
		name, known := otherNetwork(t, h, s.version)
		if name == "" || !known {
			continue
		}
		if w, ok := pathThrough(h, name, s.version); ok {
			w.beyond = t.Config.Routes[i].Masked().Addr().Next()
			if t.Config.Routes[i].IsSingleIP() {
				w.beyond = t.Config.Routes[i].Addr()
			}
			if t.Config.Routes[i].Bits() == 0 {
				w.beyond = packetfilter.DistantHosts[s.version]
			}
			ways = append(ways, w)
		}
	}
	return ways
}

// pathThrough returns the network of an interface.
func pathThrough(h *netlink.Handle, name string, version int) (w forwardPath, ok bool) {
	link, err := h.LinkByName(name)
	if err != nil {
		return w, false
	}
	family := netlink.FAMILY_V4
	if version == 6 {
		family = netlink.FAMILY_V6
	}
	addrs, err := h.AddrList(link, family)
	if err != nil {
		return w, false
	}
	for _, a := range addrs {
		own, ok := netip.AddrFromSlice(a.IP)
		ones, _ := a.Mask.Size()
		if own = own.Unmap(); !ok || !own.IsGlobalUnicast() {
			continue
		}
		first := netip.PrefixFrom(own, ones).Masked().Addr().Next()
		if first == own {
			first = first.Next()
		}
		return forwardPath{name: name, index: link.Attrs().Index, behind: first}, first.IsValid()
	}
	return w, false
}

// servedPath returns the uplink through which packets from the tunnel are masqueraded.
func servedPath(t *subject.Tunnel, h *netlink.Handle, version int) (w forwardPath, ok bool) {
	if t.Host.Config == nil || len(t.Host.Config.Gateway.Masquerade) == 0 || t.Config.Netns != "" {
		return w, false
	}
	i := slices.IndexFunc(t.Config.Address, func(p netip.Prefix) bool {
		return p.Addr().Is4() == (version == 4) && (version == 4 || p.Addr().IsPrivate())
	})
	if i < 0 {
		return w, false
	}
	link, err := h.LinkByName(t.Host.Config.Gateway.Masquerade[0])
	if err != nil {
		return w, false
	}
	own := t.Config.Address[i]
	beyond := own.Masked().Addr().Next()
	if beyond == own.Addr() {
		beyond = beyond.Next()
	}
	return forwardPath{name: link.Attrs().Name, index: link.Attrs().Index, behind: packetfilter.DistantHosts[version], beyond: beyond, oneWay: "in"}, true
}
