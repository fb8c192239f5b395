package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/encap/icmp"
	"sixfour/internal/config"
	"sixfour/internal/firewall"
	"sixfour/internal/netns"
)

// innerRules returns the rules of the namespace of the tunnel's interface.
func (t *tunnel) innerRules() (rules *firewall.Ruleset, err error) {
	if t.cfg.Netns == "" {
		return t.h.rules()
	}
	err = netns.In(t.cfg.Netns, func() (err error) {
		rules, err = firewall.Read()
		return err
	})
	return rules, err
}

// unreadable returns the finding for rules that could not be read.
func unreadable(err error) finding {
	if errors.Is(err, unix.EPERM) {
		return skip("nftables may not be read by this user").but(asRoot)
	}
	return skip("%v", err).but("nft list ruleset")
}

// echo describes a ping request, or its answer, for the packet filter.
func echo(hook firewall.Hook, from, to netip.Addr, answer bool) firewall.Packet {
	p := firewall.Packet{Hook: hook, Source: from, Destination: to, Protocol: header.ICMP, Answer: answer}
	typ := byte(icmp.EchoRequest4)
	if answer {
		typ = icmp.EchoReply4
	}
	if from.Is6() {
		p.Protocol, typ = header.ICMPv6, icmp.EchoRequest6
		if answer {
			typ = icmp.EchoReply6
		}
	}
	p.Payload = []byte{typ, 0}
	return p
}

// innerExamples returns one pair of inner addresses for each of the interface's addresses:
// with the first peer's address, or else with a neighbour's.
func (t *tunnel) innerExamples() (pairs []config.Pair) {
	for _, own := range t.cfg.Address {
		pair := config.Pair{Local: own.Addr(), Remote: own.Masked().Addr().Next()}
		if pair.Remote == pair.Local {
			pair.Remote = pair.Remote.Next()
		}
		if len(t.cfg.Peers) > 0 {
			for _, q := range t.cfg.Inside(&t.cfg.Peers[0]) {
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

// checkInnerFirewall evaluates this host's rules for pings between the inner addresses.
func (t *tunnel) checkInnerFirewall(context.Context) finding {
	pairs := t.innerExamples()
	if len(pairs) == 0 {
		return skip("the interface has no address by the configuration")
	}
	rules, err := t.innerRules()
	if err != nil {
		return unreadable(err)
	}
	index := t.index()
	doubt, drops := t.answersNoPings(), false
	for _, pair := range pairs {
		for _, w := range []struct {
			packet firewall.Packet
			what   string
			ours   bool // our own pings need it
		}{
			{echo(firewall.Output, pair.Local, pair.Remote, false), "pings from %[1]v to %[2]v, which go into %[3]s", true},
			{echo(firewall.Input, pair.Remote, pair.Local, true), "answers from %[2]v to %[1]v, which come out of %[3]s", true},
			{echo(firewall.Input, pair.Remote, pair.Local, false), "pings from %[2]v to %[1]v, which come out of %[3]s", false},
			{echo(firewall.Output, pair.Local, pair.Remote, true), "answers from %[1]v to %[2]v, which go into %[3]s", false},
		} {
			w.packet.Device, w.packet.Index = t.cfg.Name, index
			j := rules.Judge(w.packet)
			if j.Verdict == firewall.Pass {
				continue
			}
			what := fmt.Sprintf(w.what, pair.Local, pair.Remote, t.cfg.Name)
			accept := acceptDevice(j.Place, w.packet.Hook, t.cfg.Name)
			switch {
			case j.Verdict == firewall.Drop && w.ours:
				return fail(accept, "%s drops %s", place(j.Place), what)
			case j.Verdict == firewall.Drop && !drops:
				drops = true
				doubt = skip("%s drops %s; what this host asks is let through", place(j.Place), what).but(accept + ", if the peer's programs shall reach this host")
			case doubt.text == "":
				doubt = skip("whether %s drops %s depends on what is not known here", place(j.Place), what).but(listChain(j.Place))
			}
		}
	}
	if doubt.text != "" {
		return doubt
	}
	return pass("this host's rules let pings into %s, and out of it, of %s", t.cfg.Name, examples(pairs))
}

// answersNoPings reports if this host is configured not to answer pings.
func (t *tunnel) answersNoPings() (f finding) {
	_ = t.inside(func(*netlink.Handle) error {
		for _, s := range []struct {
			version       int
			path, setting string
		}{{4, "net/ipv4/icmp_echo_ignore_all", "net.ipv4.icmp_echo_ignore_all"}, {6, "net/ipv6/icmp/echo_ignore_all", "net.ipv6.icmp.echo_ignore_all"}} {
			if value, err := t.sysctl(s.path); err == nil && value != 0 && t.carried(s.version) {
				f = skip("%s is %d: this host answers no pings, so the peer cannot see that it is there", s.setting, value).but("sysctl -w " + s.setting + "=0")
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
	return list(all)
}

// index returns the index of the tunnel's interface; 0: none.
func (t *tunnel) index() (index int) {
	_ = t.inside(func(h *netlink.Handle) error {
		link, err := h.LinkByName(t.cfg.Name)
		if err == nil {
			index = link.Attrs().Index
		}
		return err
	})
	return index
}

// acceptDevice returns the command that accepts packets of an interface.
func acceptDevice(at firewall.Place, hook firewall.Hook, name string) string {
	key := "iifname"
	if hook == firewall.Output {
		key = "oifname"
	}
	return fmt.Sprintf("nft insert rule %s %s %s %s %s accept", at.Family, at.Table, at.Base, key, name)
}

// checkForwardFirewall evaluates this host's rules for packets between the tunnel and another
// network of this host.
func (t *tunnel) checkForwardFirewall(context.Context) (f finding) {
	if err := t.inside(func(h *netlink.Handle) error {
		f = t.lookAtForwardFirewall(h)
		return nil
	}); err != nil {
		return failOrSkip(err)
	}
	return f
}

func (t *tunnel) lookAtForwardFirewall(h *netlink.Handle) finding {
	ways := t.forwardWays(h)
	if len(ways) == 0 {
		return skip("this host forwards nothing between the tunnel and another network")
	}
	rules, err := firewall.Read()
	if err != nil {
		return unreadable(err)
	}
	index := t.index()
	for _, w := range ways {
		judge := func(in, answer bool) firewall.Judgement {
			p := echo(firewall.Forward, w.behind, w.beyond, answer)
			p.Device, p.Index, p.To, p.ToIndex = w.name, w.index, t.cfg.Name, index
			if in {
				p = echo(firewall.Forward, w.beyond, w.behind, answer)
				p.Device, p.Index, p.To, p.ToIndex = t.cfg.Name, index, w.name, w.index
			}
			return rules.Judge(p)
		}
		out, back := worst(judge(false, false), judge(true, true)), worst(judge(true, false), judge(false, true))
		if w.oneWay == "in" {
			out = back
		}
		bad := out
		if out.Verdict != firewall.Drop {
			bad = back
		}
		accept := fmt.Sprintf("nft insert rule %s %s %s iifname %s accept; nft insert rule %s %s %s oifname %s accept",
			bad.Family, bad.Table, bad.Base, t.cfg.Name, bad.Family, bad.Table, bad.Base, t.cfg.Name)
		between := fmt.Sprintf("between %s and %s (such as %v and %v)", t.cfg.Name, w.name, w.beyond, w.behind)
		switch {
		case out.Verdict == firewall.Drop && back.Verdict == firewall.Drop:
			return fail(accept, "%s drops what this host forwards %s", place(bad.Place), between)
		case out.Verdict == firewall.Drop:
			return skip("%s drops connections from %s into the tunnel; those from the tunnel pass", place(out.Place), w.name).but(accept)
		case back.Verdict == firewall.Drop:
			return skip("%s drops connections from the tunnel to %s; those into the tunnel pass", place(back.Place), w.name).but(accept)
		case out.Verdict == firewall.Depends || back.Verdict == firewall.Depends:
			doubt := worst(out, back)
			return skip("whether %s drops what this host forwards %s depends on what is not known here", place(doubt.Place), between).but(listChain(doubt.Place))
		}
	}
	return pass("this host's rules let through what it forwards between %s and %s", t.cfg.Name, ways[0].name)
}

// worst returns the judgement that decides about a connection, given those for its two
// directions.
func worst(a, b firewall.Judgement) firewall.Judgement {
	rank := [...]int{firewall.Pass: 0, firewall.Depends: 1, firewall.Drop: 2}
	if rank[b.Verdict] > rank[a.Verdict] {
		return b
	}
	return a
}

// forwardWay is another network that this host forwards for, with an address in it and one
// on the other side of the tunnel. OneWay is "in" if connections begin only there.
type forwardWay struct {
	name           string
	index          int
	behind, beyond netip.Addr
	oneWay         string
}

// forwardWays returns the networks to and from which the tunnel's packets of an IP version
// are forwarded: forwarding is on, and the tunnel has routes or the gateway serves it.
func (t *tunnel) forwardWays(h *netlink.Handle) (ways []forwardWay) {
	for _, s := range forwarding {
		is := func(p netip.Prefix) bool { return p.Addr().Is4() == (s.version == 4) }
		if w, ok := t.servedWay(h, s.version); ok {
			ways = append(ways, w)
		}
		i := slices.IndexFunc(t.cfg.Routes, is)
		if value, err := t.sysctl(s.path); i < 0 || err != nil || value == 0 {
			continue
		}
		name, known := t.otherNetwork(h, s.version)
		if name == "" || !known {
			continue
		}
		if w, ok := wayBy(h, name, s.version); ok {
			w.beyond = t.cfg.Routes[i].Masked().Addr().Next()
			if t.cfg.Routes[i].IsSingleIP() {
				w.beyond = t.cfg.Routes[i].Addr()
			}
			if t.cfg.Routes[i].Bits() == 0 {
				w.beyond = everywhere[s.version]
			}
			ways = append(ways, w)
		}
	}
	return ways
}

// everywhere has addresses of distant hosts, by IP version. They are documentation addresses
// (RFC 5737, RFC 3849), to which nothing is sent.
var everywhere = map[int]netip.Addr{4: netip.MustParseAddr("192.0.2.1"), 6: netip.MustParseAddr("2001:db8::1")}

// wayBy returns the network of an interface.
func wayBy(h *netlink.Handle, name string, version int) (w forwardWay, ok bool) {
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
		return forwardWay{name: name, index: link.Attrs().Index, behind: first}, first.IsValid()
	}
	return w, false
}

// servedWay returns the uplink through which packets from the tunnel are masqueraded.
func (t *tunnel) servedWay(h *netlink.Handle, version int) (w forwardWay, ok bool) {
	if t.h.cfg == nil || len(t.h.cfg.Gateway.Masquerade) == 0 || t.cfg.Netns != "" {
		return w, false
	}
	i := slices.IndexFunc(t.cfg.Address, func(p netip.Prefix) bool {
		return p.Addr().Is4() == (version == 4) && (version == 4 || p.Addr().IsPrivate())
	})
	if i < 0 {
		return w, false
	}
	link, err := h.LinkByName(t.h.cfg.Gateway.Masquerade[0])
	if err != nil {
		return w, false
	}
	own := t.cfg.Address[i]
	beyond := own.Masked().Addr().Next()
	if beyond == own.Addr() {
		beyond = beyond.Next()
	}
	return forwardWay{name: link.Attrs().Name, index: link.Attrs().Index, behind: everywhere[version], beyond: beyond, oneWay: "in"}, true
}
