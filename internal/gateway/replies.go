package gateway

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"sixfour/internal/nft"
)

// replyRules makes answers from hosts behind this host go back the way that their connection
// came, if that is not the tunnel. It is a chain in the table of the default route. It exists only
// while the host forwards, because it needs connection tracking, which costs time for
// every packet.
type replyRules struct {
	table *nftables.Table
	chain *nftables.Chain // nil: there is none
	iface string          // the tunnel's interface in the chain
}

func (f *replyRules) sync(own *nft.Tables, wanted bool, d *Default) error {
	if wanted == (f.chain != nil) && (!wanted || f.iface == d.Interface) {
		return nil
	}
	chain := &nftables.Chain{
		Table: f.table, Name: "follow",
		Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle,
	}
	err := own.Change(func(c *nftables.Conn) error {
		if f.chain != nil {
			c.FlushChain(chain)
		}
		if !wanted {
			c.DelChain(chain)
			return nil
		}
		c.AddChain(chain)
		for _, r := range replyExprs(d) {
			c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: r})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("answers from hosts behind this one (containers, a network) to connections from outside go into the tunnel instead of back, because nftables cannot track connections: "+
			"load nf_conntrack and nft_ct (modprobe -a nf_conntrack nft_ct): %w", err)
	}
	f.chain, f.iface = nil, ""
	if wanted {
		f.chain, f.iface = chain, d.Interface
	}
	return nil
}

// replyExprs returns rules that mark connections that do not begin in the tunnel, and
// the packets that answer them, before these are routed.
func replyExprs(d *Default) [][]expr.Any {
	mark := binaryutil.NativeEndian.PutUint32(d.Mark)
	rest := binaryutil.NativeEndian.PutUint32(^d.Mark)
	or := &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: rest, Xor: mark}
	return [][]expr.Any{
		// iifname TUNNEL return
		append(arrivesBy(d.Interface), &expr.Verdict{Kind: expr.VerdictReturn}),
		// ct state new ct mark set ct mark or MARK
		append(state(expr.CtStateBitNEW),
			&expr.Ct{Key: expr.CtKeyMARK, Register: register}, or,
			&expr.Ct{Key: expr.CtKeyMARK, Register: register, SourceRegister: true}),
		// ct direction reply ct mark and MARK == MARK meta mark set meta mark or MARK
		{
			&expr.Ct{Key: expr.CtKeyDIRECTION, Register: register},
			&expr.Cmp{Register: register, Data: []byte{1}},
			&expr.Ct{Key: expr.CtKeyMARK, Register: register},
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: mark, Xor: make([]byte, 4)},
			&expr.Cmp{Register: register, Data: mark},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: register}, or,
			&expr.Meta{Key: expr.MetaKeyMARK, Register: register, SourceRegister: true},
		},
	}
}

// Rules compare values in one register.
const register = unix.NFT_REG_1

// arrivesBy matches packets that arrived on an interface, left those that leave through
// one.
func arrivesBy(name string) []expr.Any { return named(expr.MetaKeyIIFNAME, name) }
func leavesBy(name string) []expr.Any  { return named(expr.MetaKeyOIFNAME, name) }

func named(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: register}, &expr.Cmp{Register: register, Data: padded}}
}

// state matches connections in one of some states.
func state(bits uint32) []expr.Any { return ctBits(expr.CtKeySTATE, bits) }

func ctBits(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}
}

// explain adds advice to an error if nftables is missing.
func explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w%s", err, hint(err))
}
