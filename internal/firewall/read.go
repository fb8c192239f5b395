package firewall

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// rule is one rule's expressions in their order.
type rule struct {
	handle uint64
	exprs  []any // an expr.Any, or unread
}

// unread is an expression that this package does not understand.
type unread struct{ name string }

// set holds the elements of a set or a map.
type set struct {
	interval bool
	concat   bool
	elements []nftables.SetElement
}

// answerLimit bounds the wait for the kernel's answer. A kernel without nf_tables does
// not answer some requests.
const answerLimit = 5 * time.Second

// maxSteps bounds how many expressions are evaluated for one packet. The kernel follows
// 16 jumps; if it is unknown whether a rule matches, each of them may double the work.
const maxSteps = 1 << 18

// Read reads the rules of the network namespace of the calling thread. It needs
// CAP_NET_ADMIN there.
func Read() (*Ruleset, error) {
	var socket *nfnetlink.Conn
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *nfnetlink.Conn) error {
		socket = c
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("open netlink for nftables: %w", err)
	}
	defer func() { _ = conn.CloseLasting() }()                              // the connection was only read
	limit := func() { _ = socket.SetDeadline(time.Now().Add(answerLimit)) } // fails only if it is closed
	limit()
	list, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	limit()
	rules, err := readRules(socket)
	if err != nil {
		return nil, fmt.Errorf("list nftables rules: %w", err)
	}
	b := builder{rules: rules, chains: make(map[tableName]map[string]*chain)}
	for _, c := range list {
		b.add(c)
	}
	for t, chains := range b.chains {
		limit()
		sets, err := readSets(conn, t)
		if err != nil {
			return nil, err
		}
		for _, c := range chains {
			c.sets = sets
		}
	}
	return b.ruleset(), nil
}

// tableName identifies a table.
type tableName struct {
	family nftables.TableFamily
	name   string
}

// chainName identifies a chain.
type chainName struct {
	tableName
	chain string
}

// builder builds a Ruleset from the kernel's lists.
type builder struct {
	rules  map[chainName][]rule
	chains map[tableName]map[string]*chain
	base   []*chain
}

func (b *builder) add(c *nftables.Chain) {
	if c.Table == nil {
		return
	}
	t := tableName{c.Table.Family, c.Table.Name}
	if b.chains[t] == nil {
		b.chains[t] = make(map[string]*chain)
	}
	n := &chain{
		family: t.family, table: t.name, name: c.Name,
		nat: c.Type == nftables.ChainTypeNAT, drops: c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop,
		rules: b.rules[chainName{t, c.Name}], chains: b.chains[t],
	}
	b.chains[t][c.Name] = n
	if c.Hooknum != nil && c.Priority != nil {
		n.hook, n.priority = uint32(*c.Hooknum), int32(*c.Priority)
		b.base = append(b.base, n)
	}
}

// ruleset returns the rules. Chains of devices come before those of hooks, and
// priorities order the chains of a hook.
func (b *builder) ruleset() *Ruleset {
	rank := func(c *chain) int {
		if c.family == nftables.TableFamilyNetdev || c.hook == inetIngress {
			return -1
		}
		return int(c.hook)
	}
	slices.SortStableFunc(b.base, func(x, y *chain) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x.priority, y.priority))
	})
	return &Ruleset{base: b.base, steps: maxSteps}
}

// readSets reads the sets and maps of a table, including anonymous ones.
func readSets(conn *nftables.Conn, t tableName) (map[string]*set, error) {
	list, err := conn.GetSets(&nftables.Table{Name: t.name, Family: t.family})
	if err != nil {
		return nil, fmt.Errorf("list nftables sets of table %s: %w", t.name, err)
	}
	sets := make(map[string]*set, len(list))
	for _, s := range list {
		s.Table.Family = t.family
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return nil, fmt.Errorf("list nftables set %s of table %s: %w", s.Name, t.name, err)
		}
		// The kernel does not mark all concatenations as such; their ranges show it.
		concat := s.Concatenation || slices.ContainsFunc(elements, func(e nftables.SetElement) bool { return len(e.KeyEnd) > 0 })
		sets[s.Name] = &set{interval: s.Interval, concat: concat, elements: elements}
	}
	return sets, nil
}

// readRules lists all rules. The library could do this too, but it silently omits
// expressions that it does not understand: a rule that drops some packets would seem to
// drop all.
func readRules(socket *nfnetlink.Conn) (map[chainName][]rule, error) {
	replies, err := socket.Execute(nfnetlink.Message{
		Header: nfnetlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: nfnetlink.Request | nfnetlink.Dump},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return nil, err
	}
	rules := make(map[chainName][]rule)
	for _, m := range replies {
		c, r, err := parseRule(m.Data)
		if err != nil {
			return nil, err
		}
		rules[c] = append(rules[c], r)
	}
	return rules, nil
}

// parseRule parses a rule (linux/netfilter/nf_tables.h: enum nft_rule_attributes), after
// the 4 bytes of struct nfgenmsg.
func parseRule(b []byte) (c chainName, r rule, err error) {
	if len(b) < 4 {
		return c, r, errors.New("the kernel's answer is too short")
	}
	c.family = nftables.TableFamily(b[0])
	ad, err := nfnetlink.NewAttributeDecoder(b[4:])
	if err != nil {
		return c, r, err
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_RULE_TABLE:
			c.name = ad.String()
		case unix.NFTA_RULE_CHAIN:
			c.chain = ad.String()
		case unix.NFTA_RULE_HANDLE:
			r.handle = ad.Uint64()
		case unix.NFTA_RULE_EXPRESSIONS:
			ad.Nested(func(list *nfnetlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(func(e *nfnetlink.AttributeDecoder) error {
						r.exprs = append(r.exprs, parseExpr(byte(c.family), e))
						return nil
					})
				}
				return nil
			})
		}
	}
	return c, r, ad.Err()
}

// parseExpr parses an expression (enum nft_expr_attributes).
func parseExpr(family byte, ad *nfnetlink.AttributeDecoder) any {
	var name string
	var data []byte
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_EXPR_NAME:
			name = ad.String()
		case unix.NFTA_EXPR_DATA:
			data = ad.Bytes()
		}
	}
	if v, ok := immediateVerdict(name, data); ok {
		return &v
	}
	switch name {
	case "target": // made by iptables-nft
		return unread{targetName(data)}
	case "byteorder":
		return parseByteorder(data)
	}
	e := newExpr(name)
	if e == nil {
		return unread{name}
	}
	if len(data) > 0 {
		if err := expr.Unmarshal(family, data, e); err != nil {
			return unread{name}
		}
	}
	return e
}

// newExpr returns the value for an expression with the given name, or nil if this
// package does not understand it.
func newExpr(name string) expr.Any {
	switch name {
	case "meta":
		return new(expr.Meta)
	case "cmp":
		return new(expr.Cmp)
	case "payload":
		return new(expr.Payload)
	case "bitwise":
		return new(expr.Bitwise)
	case "range":
		return new(expr.Range)
	case "lookup":
		return new(expr.Lookup)
	case "ct":
		return new(expr.Ct)
	case "fib":
		return new(expr.Fib)
	case "immediate":
		return new(expr.Immediate)
	case "reject":
		return new(expr.Reject)
	case "counter":
		return new(expr.Counter)
	case "log":
		return new(expr.Log)
	case "notrack":
		return new(expr.Notrack)
	case "nat":
		return new(expr.NAT)
	case "masq":
		return new(expr.Masq)
	case "match":
		return new(expr.Match)
	}
	return nil
}

// immediateVerdict parses an immediate that is a verdict (enum
// nft_immediate_attributes).
func immediateVerdict(name string, data []byte) (v expr.Verdict, ok bool) {
	if name != "immediate" {
		return v, false
	}
	ad, err := nfnetlink.NewAttributeDecoder(data)
	if err != nil {
		return v, false
	}
	for ad.Next() {
		if ad.Type() != unix.NFTA_IMMEDIATE_DATA {
			continue
		}
		ad.Nested(func(value *nfnetlink.AttributeDecoder) error {
			for value.Next() {
				if value.Type() == unix.NFTA_DATA_VERDICT {
					v, ok = parseVerdict(value.Bytes())
				}
			}
			return nil
		})
	}
	return v, ok && ad.Err() == nil
}

// parseByteorder parses a byte order expression (enum nft_byteorder_attributes), which
// the library can only write.
func parseByteorder(data []byte) any {
	ad, err := nfnetlink.NewAttributeDecoder(data)
	if err != nil {
		return unread{"byteorder"}
	}
	ad.ByteOrder = binary.BigEndian
	x := new(expr.Byteorder)
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_BYTEORDER_SREG:
			x.SourceRegister = ad.Uint32()
		case unix.NFTA_BYTEORDER_DREG:
			x.DestRegister = ad.Uint32()
		case unix.NFTA_BYTEORDER_LEN:
			x.Len = ad.Uint32()
		case unix.NFTA_BYTEORDER_SIZE:
			x.Size = ad.Uint32()
		}
	}
	if ad.Err() != nil {
		return unread{"byteorder"}
	}
	return x
}

// targetName returns the name of an iptables target.
func targetName(data []byte) string {
	ad, err := nfnetlink.NewAttributeDecoder(data)
	if err != nil {
		return "target"
	}
	for ad.Next() {
		if ad.Type() == unix.NFTA_TARGET_NAME {
			return "target " + ad.String()
		}
	}
	return "target"
}

// parseVerdict parses a verdict, of an immediate or of an element of a verdict map (enum
// nft_verdict_attributes).
func parseVerdict(b []byte) (v expr.Verdict, ok bool) {
	ad, err := nfnetlink.NewAttributeDecoder(b)
	if err != nil {
		return v, false
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_VERDICT_CODE:
			if b := ad.Bytes(); len(b) == 4 {
				v.Kind, ok = expr.VerdictKind(int32(binary.BigEndian.Uint32(b))), true
			}
		case unix.NFTA_VERDICT_CHAIN:
			v.Chain = ad.String()
		}
	}
	return v, ok && ad.Err() == nil
}
