package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sixfour/encap/resolve"
	"sixfour/encap/teredo"
	"sixfour/encap/teredo/node"
	"sixfour/internal/config"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/nat"
	"sixfour/internal/doctor/packetfilter"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/firewall"
	"sixfour/internal/netcfg"
)

// natPath is the path to a Teredo server, by which the NAT of this host is found out.
type natPath struct {
	h      *subject.Host
	tunnel string         // the tunnel whose server it is; "": none
	server natServer      // nil: there is none
	local  netip.Addr     // configured; invalid: by the route
	mark   uint32         // of the tunnel's packets
	inside netip.Addr     // this host's private address; invalid: it is not private
	found  *nat.Behaviour // nil: not known
}

// natServer is a mechanism by whose server the NAT can be found out.
type natServer interface {
	nat.Client
	Hosts() []resolve.Host
}

// newNATPath returns the path to the server that was named, or to that of the first tunnel
// that has one. Without a server, it returns one without if this host is behind a NAT; nil:
// there is nothing to check.
func newNATPath(h *subject.Host) *natPath {
	if first, second, both := strings.Cut(h.Options.NATServer, ","); first != "" {
		var other resolve.Host
		if both {
			other = hostNamed(second)
		}
		return &natPath{h: h, server: node.NewClient(0, hostNamed(first), other)}
	}
	if p := configuredNATPath(h); p != nil {
		return p
	}
	if h.Router == nil || len(h.Options.Names) > 0 {
		return nil
	}
	carrierGrade := netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
	r, err := h.Router.To(packetfilter.DistantHosts[4], netip.Addr{}, 0)
	if err != nil || !r.Source.IsPrivate() && !carrierGrade.Contains(r.Source) {
		return nil
	}
	return &natPath{h: h, inside: r.Source}
}

// configuredNATPath returns the path to the server of a tunnel that is to be checked; nil:
// there is none.
func configuredNATPath(h *subject.Host) *natPath {
	if h.Config == nil {
		return nil
	}
	named := func(t *config.Tunnel) bool {
		return len(h.Options.Names) == 0 || slices.ContainsFunc(h.Options.Names, func(n string) bool { return n == t.Name || strings.HasPrefix(n, t.Name+"/") })
	}
	for i := range h.Config.Tunnels {
		t := &h.Config.Tunnels[i]
		for j := range t.Layers {
			if s, ok := t.Layers[j].Mechanism.(natServer); ok && named(t) {
				return &natPath{h: h, tunnel: t.Name, server: s, local: t.LocalOf(j, &t.Peers[0].Paths[0]), mark: t.FwMark}
			}
		}
	}
	return nil
}

// hostNamed returns the host with an address or a name.
func hostNamed(text string) resolve.Host {
	text = strings.TrimSpace(text)
	if a, err := netip.ParseAddr(text); err == nil {
		return resolve.Host{Addr: a}
	}
	return resolve.Host{Name: text}
}

func checkNAT(ctx context.Context, p *natPath) finding.Finding {
	if p.server == nil {
		return finding.Skipped("this host's address %v is not one of the internet, so there is a NAT; a Teredo server can show what NAT it is", p.inside).
			WithRemedy("sixfourctl doctor --nat-server ADDRESS, of a server in mode teredo with role server, or of miredo-server")
	}
	q := nat.Question{Client: p.server, Mark: p.mark}
	var err error
	if q.Servers, err = addressesOf(ctx, p.server.Hosts()); err != nil {
		return finding.Failed("name the server by its IPv4 address", "%v", err)
	}
	if p.h.Router == nil {
		return finding.Skipped("%v", p.h.RouterErr)
	}
	route, err := p.h.Router.To(q.Servers[0], p.local, p.mark)
	if err != nil {
		return finding.Failed("ip route get "+q.Servers[0].String(), "there is no route to the Teredo server: %v", err)
	}
	if q.Local = p.local; !q.Local.IsValid() {
		q.Local = route.Source
	}
	found, err := nat.Find(ctx, q)
	switch {
	case errors.Is(err, nat.ErrSilent):
		return p.silent(q, found)
	case errors.Is(err, unix.EPERM):
		return finding.Failed("nft list ruleset", "this host's packet filter refuses UDP to the Teredo server: %v", err)
	case err != nil:
		return finding.OfError(err)
	}
	if found.Filtering != nat.AnyHost && p.dropsOthers(q, route) {
		found.Filtering = nat.FilteringUnknown
	}
	p.found = found
	return finding.Passed("%v", found)
}

// silent returns the finding for a server that does not answer, or only at one of its
// addresses.
func (p *natPath) silent(q nat.Question, found *nat.Behaviour) finding.Finding {
	const remedy = "sixfourctl doctor --nat-server ADDRESS,SECOND with a server that runs; firewalls on the path must accept UDP to port 3544, and answers. If none does, use encap = \"https\", which needs TCP only"
	first, second := found.Mapped[0].IsValid(), found.Mapped[1].IsValid()
	switch {
	case first:
		return finding.Failed("set server2 to the server's second address, if it is another one", "the Teredo server answers at %v, to %v, but not at its second address %v: so it is not known what NAT there is", q.Servers[0], found.Mapped[0], q.Servers[1])
	case second:
		return finding.Failed(remedy, "the Teredo server answers at its second address %v, but not at its first address %v", q.Servers[1], q.Servers[0])
	}
	return finding.Failed(remedy, "no Teredo server answers at %v and %v: it does not run, or UDP does not pass", q.Servers[0], q.Servers[1])
}

// dropsOthers reports whether this host's packet filter may drop what is no answer to a packet
// of this host: then it cannot be seen whether the NAT would let it in.
func (p *natPath) dropsOthers(q nat.Question, route netcfg.Route) bool {
	rules, err := p.h.Rules()
	if err != nil {
		return false
	}
	const ephemeral = 50000
	ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, teredo.Port), ephemeral)
	return rules.Judge(firewall.Packet{
		Hook: firewall.Input, Source: q.Servers[1], Destination: q.Local, Protocol: unix.IPPROTO_UDP, Payload: ports,
		Device: route.Interface, Index: route.Index,
	}).Verdict != firewall.Pass
}

// addressesOf returns the two addresses of a server. If only one is given, the second one is
// the next.
func addressesOf(ctx context.Context, hosts []resolve.Host) (addrs [2]netip.Addr, err error) {
	for i, h := range hosts[:min(len(hosts), 2)] {
		a := h.Addr
		if h.Name != "" {
			list, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", h.Name)
			if err != nil {
				return addrs, fmt.Errorf("the name of the Teredo server: %w", err)
			}
			a = list[0] // there is at least one
		}
		if a = a.Unmap(); !a.Is4() {
			return addrs, fmt.Errorf("the Teredo server %v has no IPv4 address", a)
		}
		addrs[i] = a
	}
	if len(hosts) == 1 {
		addrs[1] = addrs[0].Next()
	}
	if addrs[0] == addrs[1] {
		return addrs, fmt.Errorf("the two addresses of the Teredo server are both %v: by the second one the NAT is found out", addrs[0])
	}
	return addrs, nil
}

// passes returns the check that says how a mechanism passes the NAT.
func passes(how func(*nat.Behaviour) nat.Passing) func(context.Context, *natPath) finding.Finding {
	return func(_ context.Context, p *natPath) finding.Finding {
		switch {
		case p.found == nil:
			return finding.Skipped("it is not known what NAT there is")
		case !how(p.found).Works:
			return finding.Skipped("%s", how(p.found).How)
		}
		return finding.Passed("%s", how(p.found).How)
	}
}
