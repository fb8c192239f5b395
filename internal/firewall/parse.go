package firewall

import (
	"encoding/binary"
	"errors"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// rule is one rule's expressions in their order.
type rule struct {
	handle uint64
	exprs  []expression
}

// expression is an expression of a rule.
type expression struct {
	name   string        // of an iptables target: "target NAME"
	fields expr.Any      // nil: only the name is known
	jump   *expr.Verdict // the verdict of an immediate, if it has one
}

// newFields makes the values for the expressions whose fields are evaluated.
var newFields = map[string]func() expr.Any{
	"meta":    func() expr.Any { return new(expr.Meta) },
	"cmp":     func() expr.Any { return new(expr.Cmp) },
	"payload": func() expr.Any { return new(expr.Payload) },
	"bitwise": func() expr.Any { return new(expr.Bitwise) },
	"range":   func() expr.Any { return new(expr.Range) },
	"lookup":  func() expr.Any { return new(expr.Lookup) },
	"ct":      func() expr.Any { return new(expr.Ct) },
	"fib":     func() expr.Any { return new(expr.Fib) },
	"match":   func() expr.Any { return new(expr.Match) },
}

// attributes calls each for every netlink attribute.
func attributes(b []byte, each func(kind uint16, data []byte)) error {
	list, err := nfnetlink.UnmarshalAttributes(b)
	for _, a := range list {
		each(a.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), a.Data)
	}
	return err
}

// text returns a string attribute.
func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// parseRule parses a rule (linux/netfilter/nf_tables.h: enum nft_rule_attributes), after
// the 4 bytes of struct nfgenmsg.
func parseRule(b []byte) (c chainName, r rule, err error) {
	if len(b) < 4 {
		return c, r, errors.New("the kernel's answer is too short")
	}
	c.family = nftables.TableFamily(b[0])
	var list []byte
	err = attributes(b[4:], func(kind uint16, data []byte) {
		switch {
		case kind == unix.NFTA_RULE_TABLE:
			c.name = text(data)
		case kind == unix.NFTA_RULE_CHAIN:
			c.chain = text(data)
		case kind == unix.NFTA_RULE_HANDLE && len(data) == 8:
			r.handle = binary.BigEndian.Uint64(data)
		case kind == unix.NFTA_RULE_EXPRESSIONS:
			list = data
		}
	})
	return c, r, errors.Join(err, attributes(list, func(_ uint16, data []byte) {
		r.exprs = append(r.exprs, parseExpr(byte(c.family), data))
	}))
}

// parseExpr parses an expression (enum nft_expr_attributes). Of one that cannot be parsed
// only the name is known.
func parseExpr(family byte, b []byte) (e expression) {
	var data []byte
	if err := attributes(b, func(kind uint16, value []byte) {
		switch kind {
		case unix.NFTA_EXPR_NAME:
			e.name = text(value)
		case unix.NFTA_EXPR_DATA:
			data = value
		}
	}); err != nil {
		return e
	}
	switch e.name {
	case "immediate":
		e.jump = immediateVerdict(data)
	case "target": // made by iptables-nft
		name := ""
		_ = attributes(data, func(kind uint16, value []byte) { // without a name it is any target
			if kind == unix.NFTA_TARGET_NAME {
				name = text(value)
			}
		})
		e.name += " " + name
	}
	if e.name == "byteorder" {
		e.fields = parseByteorder(data)
	} else if fresh := newFields[e.name]; fresh != nil {
		if fields := fresh(); len(data) == 0 || expr.Unmarshal(family, data, fields) == nil {
			e.fields = fields
		}
	}
	return e
}

// parseByteorder parses what the library can only write (enum nft_byteorder_attributes).
func parseByteorder(b []byte) *expr.Byteorder {
	var n [unix.NFTA_BYTEORDER_SIZE + 1]uint32
	if err := attributes(b, func(kind uint16, data []byte) {
		if int(kind) < len(n) && len(data) == 4 {
			n[kind] = binary.BigEndian.Uint32(data)
		}
	}); err != nil {
		return new(expr.Byteorder)
	}
	return &expr.Byteorder{
		SourceRegister: n[unix.NFTA_BYTEORDER_SREG], DestRegister: n[unix.NFTA_BYTEORDER_DREG],
		Len: n[unix.NFTA_BYTEORDER_LEN], Size: n[unix.NFTA_BYTEORDER_SIZE],
	}
}

// immediateVerdict parses an immediate that is a verdict (enum nft_immediate_attributes);
// nil: it is a value.
func immediateVerdict(b []byte) (v *expr.Verdict) {
	var value []byte
	if err := attributes(b, func(kind uint16, data []byte) {
		if kind == unix.NFTA_IMMEDIATE_DATA {
			value = data
		}
	}); err != nil {
		return nil
	}
	if err := attributes(value, func(kind uint16, data []byte) {
		if kind == unix.NFTA_DATA_VERDICT {
			v = parseVerdict(data)
		}
	}); err != nil {
		return nil
	}
	return v
}

// parseVerdict parses a verdict, of an immediate or of an element of a verdict map (enum
// nft_verdict_attributes); nil: it is none.
func parseVerdict(b []byte) *expr.Verdict {
	var v expr.Verdict
	found := false
	if err := attributes(b, func(kind uint16, data []byte) {
		switch {
		case kind == unix.NFTA_VERDICT_CODE && len(data) == 4:
			v.Kind, found = expr.VerdictKind(int32(binary.BigEndian.Uint32(data))), true
		case kind == unix.NFTA_VERDICT_CHAIN:
			v.Chain = text(data)
		}
	}); err != nil || !found {
		return nil
	}
	return &v
}
