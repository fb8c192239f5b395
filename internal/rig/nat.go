package rig

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Masquerade makes the namespace, a router, a NAT for IPv4: packets that it forwards through a
// device get its address there as source. It accepts no packets for itself: otherwise the
// first packet of a remote host to a port that a mapping will use makes the port unusable for
// that mapping.
func (n *Namespace) Masquerade(dev string) error {
	err := n.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Name: "rig-nat", Family: nftables.TableFamilyIPv4})
		out := c.AddChain(&nftables.Chain{
			Table: table, Name: "out",
			Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, dev)
		c.AddRule(&nftables.Rule{Table: table, Chain: out, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: unix.NFT_REG_1},
			&expr.Cmp{Register: unix.NFT_REG_1, Data: name},
			&expr.Masq{},
		}})
		drop := nftables.ChainPolicyDrop
		c.AddChain(&nftables.Chain{
			Table: table, Name: "in",
			Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &drop,
		})
		return c.Flush()
	})
	if err != nil {
		return n.explain("masquerade through "+dev, err)
	}
	return nil
}
