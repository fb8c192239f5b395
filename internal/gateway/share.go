package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/encap/mape"
	"sixfour/internal/nft"
)

// Share is an IPv4 address of which this host may use only some ports, because other hosts
// have the rest (MAP-E, lightweight 4over6). All IPv4 packets that leave through the
// interface get the address as source, and a port or ICMP identifier of the ports.
type Share struct {
	Interface string
	Address   netip.Addr // of IPv4
	Ports     mape.Ports
}

// share is the translation for one interface, in a table of its own.
type share struct {
	own   *nft.Tables
	table *nftables.Table
	in    Share // what the table has; empty: nothing
}

// syncShares makes the table of each share, and removes the others.
func (g *Gateway) syncShares(wanted []Share, done *Done) error {
	var all error
	for _, name := range slices.Sorted(maps.Keys(g.shares)) {
		if !slices.ContainsFunc(wanted, func(w Share) bool { return w.Interface == name }) {
			all = errors.Join(all, g.shares[name].own.Close())
			delete(g.shares, name)
		}
	}
	for _, w := range wanted {
		if err := g.syncShare(w, done); err != nil {
			all = errors.Join(all, fmt.Errorf("translate to %v on %s: %w", w.Address, w.Interface, err))
		}
	}
	return all
}

func (g *Gateway) syncShare(w Share, done *Done) error {
	if !w.Address.Is4() {
		return fmt.Errorf("%v is not an IPv4 address", w.Address)
	}
	if err := w.Ports.Check(); err != nil {
		return err
	}
	s := g.shares[w.Interface]
	if s == nil {
		own, err := nft.OpenTables("share-" + w.Interface)
		if err != nil {
			return explain(err)
		}
		s = &share{own: own}
		if s.table, err = own.Add(nftables.TableFamilyIPv4); err != nil {
			own.Close()
			return explain(err)
		}
		g.shares[w.Interface] = s
	}
	if err := s.restore(done); err != nil {
		return explain(err)
	}
	if s.in == w {
		return nil
	}
	was := s.in
	if err := s.fill(w); err != nil { // begin again at the next call
		delete(g.shares, w.Interface)
		s.own.Close()
		return fmt.Errorf("fill nftables table %s: %w%s", s.own.Name(), err, shareHint(err))
	}
	if was.Address.IsValid() {
		return forget(was.Address)
	}
	return nil
}

// restore makes the table again if another process removed it.
func (s *share) restore(done *Done) error {
	exists, err := s.own.Exists(nftables.TableFamilyIPv4)
	if err != nil || exists {
		return err
	}
	s.in = Share{}
	if s.table, err = s.own.Add(nftables.TableFamilyIPv4); err == nil {
		done.Restored = append(done.Restored, "table")
	}
	return err
}

// forget ends the tracked connections that were translated to an address, because they would
// keep ports that this host no longer has.
func forget(a netip.Addr) error {
	var f netlink.ConntrackFilter
	if err := f.AddIP(netlink.ConntrackReplyDstIP, net.IP(a.AsSlice())); err != nil {
		return err
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, &f); err != nil {
		return fmt.Errorf("end the connections of %v: %w", a, err)
	}
	return nil
}

// fill replaces the content of the table. It has two chains: one translates, and the other
// drops what the first did not translate, such as packets that connection tracking does not
// know.
func (s *share) fill(w Share) error {
	nat := &nftables.Chain{
		Table: s.table, Name: "translate",
		Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	}
	guard := &nftables.Chain{
		Table: s.table, Name: "guard",
		Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityNATSource + 100),
	}
	ranges := slices.Collect(w.Ports.Ranges())
	if s.in.Address.IsValid() {
		// The map of the ranges has other elements now: begin with an empty table. Packets in
		// between are not translated, so they are dropped until the guard has its rules.
		err := s.own.Change(func(c *nftables.Conn) error {
			c.FlushChain(guard)
			c.AddRule(&nftables.Rule{Table: s.table, Chain: guard, Exprs: append(leavesBy(w.Interface), &expr.Verdict{Kind: expr.VerdictDrop})})
			c.FlushChain(nat)
			c.DelSet(&nftables.Set{Table: s.table, Name: rangesSet})
			return nil
		})
		if err != nil {
			return err
		}
		s.in = Share{}
	}
	set := &nftables.Set{
		Table: s.table, Name: rangesSet, IsMap: true,
		KeyType: nftables.TypeInteger, KeyByteOrder: binaryutil.NativeEndian,
		DataType: nftables.MustConcatSetType(nftables.TypeInetService, nftables.TypeInetService),
	}
	if err := s.own.Change(func(c *nftables.Conn) error {
		c.AddChain(guard)
		c.AddChain(nat)
		return c.AddSet(set, nil)
	}); err != nil {
		return err
	}
	i := 0
	for part := range slices.Chunk(ranges, 500) { // one netlink message has at most 64 KiB
		elements := make([]nftables.SetElement, len(part))
		for n, r := range part {
			elements[n] = nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(uint32(i)), Val: value(r)}
			i++
		}
		if err := s.own.Change(func(c *nftables.Conn) error { return c.SetAddElements(set, elements) }); err != nil {
			return err
		}
	}
	err := s.own.Change(func(c *nftables.Conn) error {
		c.FlushChain(guard)
		for _, r := range w.translate(set, len(ranges)) {
			c.AddRule(&nftables.Rule{Table: s.table, Chain: nat, Exprs: append(leavesBy(w.Interface), r...)})
		}
		for _, r := range w.guard() {
			c.AddRule(&nftables.Rule{Table: s.table, Chain: guard, Exprs: append(leavesBy(w.Interface), r...)})
		}
		return nil
	})
	if err == nil {
		s.in = w
	}
	return err
}

// rangesSet is the name of the map from numbers to ranges of ports.
const rangesSet = "ranges"

// value returns a range as the content of two registers.
func value(r mape.Range) []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b, r.First)
	binary.BigEndian.PutUint16(b[4:], r.Last)
	return b
}

// Registers of 4 bytes. What a lookup returns is in two that follow each other.
const (
	regNumber = unix.NFT_REG32_00 // the number of a range
	regFirst  = unix.NFT_REG32_01
	regLast   = unix.NFT_REG32_02
	regAddr   = unix.NFT_REG32_03
	regSource = unix.NFT_REG32_04 // an address, followed by a port
)

// withPorts are the protocols whose first two fields are ports, and which the kernel
// translates.
var withPorts = []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP}

// translate returns the rules that see the first packet of each connection.
//
// The kernel looks for a free port only in one range, which a rule has to choose. Each new
// connection gets the next range, so that the ranges fill evenly, and a repeated attempt gets
// another one. UDP to ports from 1024 gets a range by the source, so that the kernel uses the
// same port for all destinations of one source (RFC 4787 section 4.1), as programs that find
// each other through a NAT need it.
func (w Share) translate(set *nftables.Set, ranges int) [][]expr.Any {
	address := &expr.Immediate{Register: regAddr, Data: w.Address.AsSlice()}
	if w.Ports.PSIDLen == 0 { // snat to ADDRESS
		return [][]expr.Any{{address, &expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regAddr, RegAddrMax: regAddr}}}
	}
	snat := []expr.Any{ // snat to ADDRESS : NUMBER map @ranges
		&expr.Lookup{SourceRegister: regNumber, DestRegister: regFirst, IsDestRegSet: true, SetName: set.Name, SetID: set.ID},
		address,
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regAddr, RegAddrMax: regAddr, RegProtoMin: regFirst, RegProtoMax: regLast, Specified: true},
	}
	rules := [][]expr.Any{slices.Concat(isProtocol(unix.IPPROTO_UDP), []expr.Any{
		// udp dport >= 1024, jhash ip saddr . udp sport mod RANGES
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpGte, Register: register, Data: binaryutil.BigEndian.PutUint16(1024)},
		&expr.Payload{DestRegister: regSource, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Payload{DestRegister: regSource + 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Hash{SourceRegister: regSource, DestRegister: regNumber, Length: 8, Modulus: uint32(ranges), Type: expr.HashTypeJenkins},
	}, snat)}
	for _, p := range append([]byte{unix.IPPROTO_ICMP}, withPorts...) {
		next := &expr.Numgen{Register: regNumber, Modulus: uint32(ranges), Type: unix.NFT_NG_INCREMENTAL}
		rules = append(rules, slices.Concat(isProtocol(p), []expr.Any{next}, snat))
	}
	return rules
}

// guard returns the rules that accept packets with the address and, if it is shared, with the
// ports, and drop and count all others. A port has the port set identifier at a fixed place,
// so that a rule needs no list of the ranges.
func (w Share) guard() [][]expr.Any {
	accept, drop := &expr.Verdict{Kind: expr.VerdictAccept}, &expr.Verdict{Kind: expr.VerdictDrop}
	rules := [][]expr.Any{{ // ip saddr != ADDRESS counter drop
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: w.Address.AsSlice()},
		&expr.Counter{}, drop,
	}}
	p := w.Ports
	if p.PSIDLen == 0 {
		return rules
	}
	low := 16 - p.Offset - p.PSIDLen
	mask, want := uint16((1<<p.PSIDLen-1)<<low), p.PSID<<low
	port := func(offset uint32) []expr.Any { // the port & mask == PSID, and port >= the first of all sets
		load := &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}
		match := []expr.Any{
			load,
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 2, Mask: binaryutil.BigEndian.PutUint16(mask), Xor: make([]byte, 2)},
			&expr.Cmp{Register: register, Data: binaryutil.BigEndian.PutUint16(want)},
		}
		if p.Offset > 0 {
			match = append(match, load, &expr.Cmp{Op: expr.CmpOpGte, Register: register, Data: binaryutil.BigEndian.PutUint16(1 << (16 - p.Offset))})
		}
		return append(match, accept)
	}
	for _, protocol := range withPorts {
		rules = append(rules, append(isProtocol(protocol), port(0)...))
	}
	for _, kind := range []byte{0, 8, 13, 14} { // echo and timestamp have an identifier (RFC 792)
		rules = append(rules, append(isICMP(kind), port(4)...))
	}
	for _, kind := range []byte{3, 11, 12} { // errors do not
		rules = append(rules, append(isICMP(kind), accept))
	}
	return append(rules, []expr.Any{&expr.Counter{}, drop})
}

// isProtocol matches packets of an IP protocol.
func isProtocol(p byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}, &expr.Cmp{Register: register, Data: []byte{p}}}
}

// isICMP matches ICMP messages of a type.
func isICMP(kind byte) []expr.Any {
	return append(isProtocol(unix.IPPROTO_ICMP),
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Register: register, Data: []byte{kind}})
}

// shareHint returns advice for an nftables feature that is missing.
func shareHint(err error) string {
	h := hint(err)
	if h == "" || errors.Is(err, unix.EPERM) {
		return h
	}
	return ": the kernel lacks modules: load nf_tables, nf_conntrack, nft_chain_nat, nft_nat, nft_hash and nft_numgen (modprobe -a)"
}
