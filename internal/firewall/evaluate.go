package firewall

import (
	"encoding/binary"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
)

// evaluation evaluates the rules for one packet.
type evaluation struct {
	packet    Packet
	head      value // the IP header
	mark      value
	tracked   bool // connection tracking sees the packet
	left      int  // number of expressions that may still be evaluated
	registers *registers
	entered   *chain  // the base chain that the packet entered
	effect    *Effect // the first one; for Affects
}

// outcome is what may happen to a packet in a chain: it passes the base chain, is
// dropped, or continues after the rule that jumped here. Several may be possible.
type outcome struct {
	pass      bool
	drop      *Place
	continues bool
}

// prepare writes the known fields of the IP header.
func (e *evaluation) prepare() {
	p := e.packet
	e.tracked = true
	e.mark = unknownValue(4)
	if p.Hook == Output { // a device may have set a mark on packets that arrive
		e.mark = knownValue(binary.NativeEndian.AppendUint32(nil, p.Mark))
	}
	set := func(at int, b ...byte) {
		copy(e.head.b[at:], b)
		for i := range b {
			e.head.known[at+i] = true
		}
	}
	if p.Source.Is4() {
		e.head = unknownValue(header.IPv4Len)
		set(0, 0x45)
		set(6, header.DF>>8, 0) // nearly all tunnel packets have it
		set(9, p.Protocol)
		set(12, p.Source.AsSlice()...)
		set(16, p.Destination.AsSlice()...)
		return
	}
	e.head = unknownValue(header.IPv6Len)
	set(6, p.Protocol)
	set(8, p.Source.AsSlice()...)
	set(24, p.Destination.AsSlice()...)
}

// base evaluates a base chain.
func (e *evaluation) base(c *chain) outcome {
	e.entered = c
	out := e.chain(c, 0)
	if out.continues {
		out.continues = false
		if c.drops {
			out.dropsAt(e.place(c, 0))
		} else {
			out.pass = true
		}
	}
	return out
}

// dropsAt records the first place where a packet may be dropped.
func (o *outcome) dropsAt(at *Place) {
	if o.drop == nil {
		o.drop = at
	}
}

func (e *evaluation) place(c *chain, handle uint64) *Place {
	return &Place{Family: familyNames[c.family], Table: c.table, Base: e.entered.name, Chain: c.name, Handle: handle}
}

// maxJumps is NFT_JUMP_STACK_SIZE.
const maxJumps = 16

// chain evaluates a chain's rules.
func (e *evaluation) chain(c *chain, depth int) (all outcome) {
	for i := range c.rules {
		r := &c.rules[i]
		matches, verdict := e.rule(c, r)
		if matches == no {
			continue
		}
		one, last := e.apply(c, r, verdict, depth)
		all.pass = all.pass || one.pass
		if one.drop != nil {
			all.dropsAt(one.drop)
		}
		if last {
			all.continues = all.continues || one.continues
			if matches == yes {
				return all
			}
			continue
		}
		if matches == yes && !one.continues {
			return all
		}
	}
	all.continues = true
	return all
}

// verdict is the verdict of a rule that matches.
type verdict struct {
	expr.Verdict
	unsure bool // any verdict is possible
}

var (
	noVerdict  = verdict{Verdict: expr.Verdict{Kind: expr.VerdictContinue}}
	anyVerdict = verdict{unsure: true}
)

// apply applies a rule's verdict. last means that no other rule of the chain follows.
func (e *evaluation) apply(c *chain, r *rule, v verdict, depth int) (one outcome, last bool) {
	if v.unsure {
		one = outcome{pass: true, continues: true}
		one.dropsAt(e.place(c, r.handle))
		return one, false
	}
	switch v.Kind {
	case expr.VerdictAccept, expr.VerdictStop:
		return outcome{pass: true}, false
	case expr.VerdictDrop:
		return outcome{drop: e.place(c, r.handle)}, false
	case expr.VerdictReturn:
		return outcome{continues: true}, true
	case expr.VerdictJump, expr.VerdictGoto:
		to := c.chains[v.Chain]
		if to == nil || depth >= maxJumps || e.left <= 0 {
			return e.apply(c, r, anyVerdict, depth)
		}
		return e.chain(to, depth+1), v.Kind == expr.VerdictGoto
	case expr.VerdictContinue, expr.VerdictBreak:
		return outcome{continues: true}, false
	}
	return e.apply(c, r, anyVerdict, depth) // a queue: a program decides
}

// rule reports whether the packet matches, and the rule's verdict in that case.
func (e *evaluation) rule(c *chain, r *rule) (matches ternary, v verdict) {
	e.registers = newRegisters()
	matches, v = yes, noVerdict
	for i := range r.exprs {
		if e.left--; e.left <= 0 {
			return maybe, anyVerdict
		}
		var one ternary
		one, v = e.expr(c, &r.exprs[i])
		if matches = min(matches, one); matches == no {
			return no, noVerdict
		}
		e.note(c, r, &r.exprs[i])
		if v != noVerdict {
			return matches, v
		}
	}
	return matches, v
}

// expr evaluates one expression.
func (e *evaluation) expr(c *chain, x *expression) (ternary, verdict) {
	if x.jump != nil {
		return yes, verdict{Verdict: *x.jump}
	}
	switch x := x.fields.(type) {
	case nil:
	case *expr.Meta:
		e.meta(x)
		return yes, noVerdict
	case *expr.Payload:
		e.payload(x)
		return yes, noVerdict
	case *expr.Bitwise:
		e.bitwise(x)
		return yes, noVerdict
	case *expr.Byteorder:
		e.byteorder(x)
		return yes, noVerdict
	case *expr.Ct:
		e.ct(x)
		return yes, noVerdict
	case *expr.Fib:
		e.fib(x)
		return yes, noVerdict
	case *expr.Cmp:
		return e.registers.load(x.Register, len(x.Data)).compare(x.Op, x.Data), noVerdict
	case *expr.Range:
		in := e.registers.load(x.Register, len(x.FromData)).within(x.FromData, x.ToData)
		if x.Op == expr.CmpOpNeq { // NFT_RANGE_NEQ has the same number
			in = in.not()
		}
		return in, noVerdict
	case *expr.Lookup:
		return e.lookup(c, x)
	case *expr.Match:
		return e.match(x), noVerdict
	}
	return e.named(x.name)
}

// named evaluates an expression by its name. It is unknown whether one with another name
// matches, and which registers it writes.
func (e *evaluation) named(name string) (ternary, verdict) {
	switch name {
	case "reject", "target REJECT":
		return yes, verdict{Verdict: expr.Verdict{Kind: expr.VerdictDrop}}
	case "nat", "masq", "redir":
		return yes, verdict{Verdict: expr.Verdict{Kind: expr.VerdictAccept}}
	case "counter", "log", "last", "objref", "dup", "flow_offload", "target LOG", "target NFLOG", "target TCPMSS":
		return yes, noVerdict
	case "target MARK", "target CONNMARK":
		e.mark = unknownValue(4)
		return yes, noVerdict
	case "notrack", "target CT":
		e.tracked = false
		return yes, noVerdict
	}
	e.registers = newRegisters()
	if name == "immediate" { // a value, such as a new mark
		return yes, noVerdict
	}
	if strings.HasPrefix(name, "target ") || name == "queue" || name == "synproxy" || name == "tproxy" || name == "fwd" {
		return yes, anyVerdict
	}
	return maybe, noVerdict
}

// match evaluates an iptables match. The states of connection tracking have the same bits
// as in nftables.
func (e *evaluation) match(x *expr.Match) ternary {
	switch info := x.Info.(type) {
	case *xt.Comment:
		return yes
	case *xt.ConntrackMtinfo3:
		if e.tracked && info.MatchFlags == uint16(xt.ConntrackState) && info.InvertFlags == 0 {
			return ternaryOf(uint32(info.StateMask)&e.state() != 0)
		}
	}
	return maybe
}

// state returns the packet's state in connection tracking.
func (e *evaluation) state() uint32 {
	if e.packet.Answer {
		return expr.CtStateBitESTABLISHED
	}
	return expr.CtStateBitNEW
}

func (e *evaluation) lookup(c *chain, x *expr.Lookup) (ternary, verdict) {
	s, n := c.sets[x.SetName], 0
	if s != nil {
		n = s.length
	}
	found, el := s.find(e.registers.load(x.SourceRegister, n))
	if x.Invert {
		return found.not(), noVerdict
	}
	if !x.IsDestRegSet || found == no {
		return found, noVerdict
	}
	if x.DestRegister != unix.NFT_REG_VERDICT {
		e.registers.store(x.DestRegister, unknownValue(16))
		return found, noVerdict
	}
	if el != nil && el.verdict != nil {
		return found, verdict{Verdict: *el.verdict}
	}
	return found, anyVerdict
}
