package gateway

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/netcfg"
	"sixfour/internal/nft"
)

// masquerade replaces the source of packets from tunnels by the host's own address. It
// does that for all IPv4 packets. For IPv6 it does that only for unique local addresses (RFC
// 4193), which cannot reach the internet otherwise: global addresses need routes instead
// (RFC 5902).
//
// Only one process in a network namespace can masquerade: the owner of the table.
type masquerade struct {
	handle       *netlink.Handle
	router       *netcfg.Router
	own          *nft.Tables
	v4, v6       *nftables.Table // v6 is nil while no tunnel needs it
	in4          content         // the content of the tables
	in6          content
	forwardingOn []string // interfaces on which we have turned forwarding on
}

// content describes one table.
type content struct {
	tunnels, uplinks []string
	forward          []string // interfaces on which only this package needs forwarding
}

func (g *Gateway) openMasquerade() (*masquerade, error) {
	m := &masquerade{handle: g.handle, router: g.router}
	var err error
	if m.own, err = nft.OpenTables("masquerade"); err != nil {
		return nil, explain(err)
	}
	m.v4, err = m.own.Add(nftables.TableFamilyIPv4)
	if err != nil {
		m.own.Close()
		if errors.Is(err, nft.ErrTaken) {
			return nil, fmt.Errorf("%w: only one sixfourd of a network namespace can have masquerade: remove it from one configuration", err)
		}
		return nil, explain(err)
	}
	return m, nil
}

// sync makes the tables and the forwarding settings as required.
func (m *masquerade) sync(w Wanted, done *Done) error {
	if err := m.restore(done); err != nil {
		return err
	}
	in4, in6 := content{uplinks: w.Masquerade}, content{uplinks: w.Masquerade}
	for _, t := range w.Tunnels {
		if t.IPv4 {
			in4.tunnels = append(in4.tunnels, t.Interface)
		}
		if t.IPv6 {
			in6.tunnels = append(in6.tunnels, t.Interface)
		}
	}
	steps, err := m.forwarding(slices.Concat(in4.tunnels, w.Masquerade), done)
	if err != nil {
		return err
	}
	for _, name := range w.Masquerade {
		if steps.index[name] == 0 {
			done.Missing = append(done.Missing, name)
			done.Advice = append(done.Advice, fmt.Sprintf("there is no interface %s, or it has no IPv4 address: no packets leave through it; if this is not intended, correct masquerade", name))
		}
	}
	in4.forward = steps.own
	// The accepting rules are changed before the others.
	if err := m.fill(m.v4, &m.in4, in4); err != nil {
		return err
	}
	err = m.apply(steps)
	if len(in6.tunnels) > 0 || m.v6 != nil {
		err = errors.Join(err, m.sync6(in6))
		m.adviseIPv6(in6, done)
	}
	return err
}

// restore makes tables again that another process removed, on kernels without table
// owners.
func (m *masquerade) restore(done *Done) error {
	for _, t := range []struct {
		table **nftables.Table
		in    *content
	}{{&m.v4, &m.in4}, {&m.v6, &m.in6}} {
		if *t.table == nil {
			continue
		}
		exists, err := m.own.Exists((*t.table).Family)
		if err == nil && !exists {
			*t.in = content{}
			if *t.table, err = m.own.Add((*t.table).Family); err == nil {
				done.Restored = append(done.Restored, "table")
			}
		}
		if err != nil {
			return explain(err)
		}
	}
	return nil
}

func (m *masquerade) sync6(in content) (err error) {
	if m.v6 == nil {
		if m.v6, err = m.own.Add(nftables.TableFamilyIPv6); err != nil {
			m.v6 = nil
			return explain(err)
		}
	}
	return m.fill(m.v6, &m.in6, in)
}

// adviseIPv6 adds advice if this host does not forward IPv6. The kernel forwards IPv6 on
// all interfaces or on none, and a host that forwards no longer accepts a default route
// from router advertisements. So the administrator must decide.
func (m *masquerade) adviseIPv6(in content, done *Done) {
	conf, err := m.router.Conf(6, netcfg.AllInterfaces)
	if err != nil || conf.Forwarding || len(in.tunnels) == 0 {
		return
	}
	done.Advice = append(done.Advice, fmt.Sprintf("IPv6 from the tunnels is not forwarded: if it should be, run: sysctl -w net.ipv6.conf.all.forwarding=1, "+
		"and, if %s has its default route by router advertisements, before that net.ipv6.conf.%s.accept_ra=2", in.uplinks[0], in.uplinks[0]))
}

// fill replaces the content of a table in one step.
func (m *masquerade) fill(table *nftables.Table, in *content, wanted content) error {
	if reflect.DeepEqual(*in, wanted) {
		return nil
	}
	nat := &nftables.Chain{
		Table: table, Name: "postrouting",
		Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	}
	forward := &nftables.Chain{
		Table: table, Name: "forward",
		Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	}
	err := m.own.Change(func(c *nftables.Conn) error {
		put := func(chain *nftables.Chain, rules [][]expr.Any) {
			c.AddChain(chain)
			c.FlushChain(chain)
			for _, r := range rules {
				c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r})
			}
		}
		put(nat, natRules(wanted, table.Family))
		switch {
		case len(wanted.forward) > 0:
			put(forward, forwardRules(wanted))
		case len(in.forward) > 0:
			c.FlushChain(forward)
			c.DelChain(forward)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("fill nftables table %s: %w%s", m.own.Name(), err, hint(err))
	}
	*in = wanted
	return nil
}

// between calls f for each pair of a tunnel and an uplink.
func (c content) between(f func(tunnel, uplink string)) {
	for _, t := range c.tunnels {
		for _, u := range c.uplinks {
			f(t, u)
		}
	}
}

// natRules returns the rules that see only the first packet of a connection. They can
// match the input interface since Linux 5.7.
func natRules(in content, family nftables.TableFamily) (rules [][]expr.Any) {
	in.between(func(tunnel, uplink string) {
		r := append(arrivesBy(tunnel), leavesBy(uplink)...)
		if family == nftables.TableFamilyIPv6 { // ip6 saddr fc00::/7
			r = append(r,
				&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 1},
				&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 1, Mask: []byte{0xfe}, Xor: []byte{0}},
				&expr.Cmp{Register: register, Data: []byte{0xfc}})
		}
		rules = append(rules, append(r, &expr.Masq{}))
	})
	return rules
}

// ctStatusDNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const ctStatusDNAT = 1 << 5

// forwardRules restrict interfaces on which we have turned forwarding on: they forward
// only between tunnels and uplinks. Otherwise the host would be a router for every host
// on its links.
func forwardRules(in content) [][]expr.Any {
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	rules := [][]expr.Any{
		append(state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept),
		append(ctBits(expr.CtKeySTATUS, ctStatusDNAT), accept), // for a published port (destination NAT)
	}
	in.between(func(tunnel, uplink string) {
		rules = append(rules, append(append(arrivesBy(tunnel), leavesBy(uplink)...), accept))
	})
	for _, name := range in.forward {
		rules = append(rules, append(arrivesBy(name), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}))
	}
	return rules
}

// close removes the tables, and turns forwarding off again.
func (m *masquerade) close() error {
	steps, err := m.forwarding(nil, new(Done))
	if err == nil {
		err = m.apply(steps)
	}
	return errors.Join(err, m.own.Close())
}

// hint returns advice for an nftables feature that is missing.
func hint(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return ": this needs CAP_NET_ADMIN"
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return ": the kernel lacks modules: load nf_tables, nf_conntrack, nft_ct, nft_chain_nat and nft_masq (modprobe -a)"
	}
	return ""
}
