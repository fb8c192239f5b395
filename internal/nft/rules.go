package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// familyRules is the part of a Suppressor for one address family.
type familyRules struct {
	family  nftables.TableFamily
	key     nftables.SetDatatype
	rules   func(ends *nftables.Set) [][]expr.Any
	table   *nftables.Table
	ends    *nftables.Set
	present map[Endpoint]bool // the elements of the set; nil: there is no table
}

// fill adds the set, the chain and its rules to the table.
func (g *familyRules) fill(c *nftables.Conn) error {
	g.ends = &nftables.Set{
		Table: g.table, Name: "ends", Concatenation: true,
		KeyType: nftables.MustConcatSetType(g.key, nftables.TypeInetProto),
	}
	if err := c.AddSet(g.ends, nil); err != nil {
		return err
	}
	chain := c.AddChain(&nftables.Chain{
		Table: g.table, Name: "output",
		Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter,
	})
	for _, r := range g.rules(g.ends) {
		c.AddRule(&nftables.Rule{Table: g.table, Chain: chain, Exprs: r})
	}
	return nil
}

// element returns the end as a key of the set: each part takes a multiple of 4 bytes.
func (e Endpoint) element() nftables.SetElement {
	return nftables.SetElement{Key: append(e.Local.AsSlice(), e.Protocol, 0, 0, 0)}
}

// Rules compare and look up values in registers of 4 bytes. The key of a lookup is in
// consecutive registers.
const (
	register0 = unix.NFT_REG32_00
	register1 = unix.NFT_REG32_01
	register4 = unix.NFT_REG32_04
)

// rules4 returns the rule for IPv4.
func rules4(ends *nftables.Set) [][]expr.Any {
	return [][]expr.Any{append(
		// meta l4proto icmp icmp type destination-unreachable icmp code port-unreachable
		portUnreachableOf(unix.IPPROTO_ICMP, 3, 3),
		// ip saddr . @th,136,8 @ends: byte 17 of the message is byte 9 of the
		// quoted header.
		&expr.Payload{DestRegister: register0, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Payload{DestRegister: register1, Base: expr.PayloadBaseTransportHeader, Offset: 17, Len: 1},
		&expr.Lookup{SourceRegister: register0, SetName: ends.Name, SetID: ends.ID},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	)}
}

// The parts of an ICMPv6 error that rules6 reads: the quoted header begins at byte 8
// (RFC 4443 section 3.1, RFC 8200 section 3).
const (
	quotedNext        = 8 + 6
	quotedDestination = 8 + 24
	quotedBehind      = 8 + 40 // the next header field of the header after the quoted IPv6 header
)

// rules6 returns the rules for IPv6. The protocol is the next header of the quoted
// header or, if that is destination options, which hold an encapsulation limit (RFC 2473
// section 4.1.1), their next header. Unlike in IPv4, the address is the quoted
// destination, because the kernel may answer from another address (RFC 4443 section
// 2.2).
func rules6(ends *nftables.Set) (rules [][]expr.Any) {
	for _, protocolAt := range []uint32{quotedNext, quotedBehind} {
		// meta l4proto ipv6-icmp icmpv6 type destination-unreachable icmpv6 code
		// port-unreachable
		r := portUnreachableOf(unix.IPPROTO_ICMPV6, 1, 4)
		if protocolAt == quotedBehind {
			r = append(r, // @th,112,8 60
				&expr.Payload{DestRegister: register0, Base: expr.PayloadBaseTransportHeader, Offset: quotedNext, Len: 1},
				&expr.Cmp{Register: register0, Data: []byte{unix.IPPROTO_DSTOPTS}})
		}
		rules = append(rules, append(r,
			// @th,256,128 . @th,112,8 @ends, or @th,256,128 . @th,384,8 @ends
			&expr.Payload{DestRegister: register0, Base: expr.PayloadBaseTransportHeader, Offset: quotedDestination, Len: 16},
			&expr.Payload{DestRegister: register4, Base: expr.PayloadBaseTransportHeader, Offset: protocolAt, Len: 1},
			&expr.Lookup{SourceRegister: register0, SetName: ends.Name, SetID: ends.ID},
			&expr.Counter{},
			&expr.Verdict{Kind: expr.VerdictDrop},
		))
	}
	return rules
}

// portUnreachableOf returns the beginning of a rule, which matches only ICMP messages of
// this type and code.
func portUnreachableOf(protocol, kind, code byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register0},
		&expr.Cmp{Register: register0, Data: []byte{protocol}},
		&expr.Payload{DestRegister: register0, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Cmp{Register: register0, Data: []byte{kind, code}},
	}
}
