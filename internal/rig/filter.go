package rig

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// filterTable is the nftables table of a namespace's filters.
var filterTable = &nftables.Table{Name: "rig", Family: nftables.TableFamilyINet}

// droppedErrors are the ICMP messages that a misconfigured firewall drops: "destination
// unreachable", which includes "fragmentation needed", and in IPv6 "packet too big".
var droppedErrors = []struct{ protocol, typ byte }{
	{unix.IPPROTO_ICMP, 3}, {unix.IPPROTO_ICMPV6, 1}, {unix.IPPROTO_ICMPV6, 2},
}

// DropUnreachable makes the namespace, a router, drop the ICMP messages "destination
// unreachable" and "packet too big" that it would send or forward, like a misconfigured
// firewall: packets that are too large for one of its links are lost silently.
// PassUnreachable ends that.
func (n *Namespace) DropUnreachable() error {
	err := n.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := c.AddTable(filterTable)
		for name, hook := range map[string]*nftables.ChainHook{"output": nftables.ChainHookOutput, "forward": nftables.ChainHookForward} {
			chain := c.AddChain(&nftables.Chain{
				Table: table, Name: name,
				Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter,
			})
			for _, m := range droppedErrors {
				c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
					&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
					&expr.Cmp{Register: unix.NFT_REG_1, Data: []byte{m.protocol}},
					&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseTransportHeader, Len: 1},
					&expr.Cmp{Register: unix.NFT_REG_1, Data: []byte{m.typ}},
					&expr.Verdict{Kind: expr.VerdictDrop},
				}})
			}
		}
		return c.Flush()
	})
	if err != nil {
		return n.explain("drop ICMP errors", err)
	}
	return nil
}

// PassUnreachable reverts DropUnreachable.
func (n *Namespace) PassUnreachable() error {
	err := n.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.DelTable(filterTable)
		return c.Flush()
	})
	if err != nil {
		return n.explain("pass ICMP errors", err)
	}
	return nil
}
