package firewall

import (
	"encoding/binary"

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
	tracked   bool // connection tracking knows about the packet
	left      int  // number of expressions that may still be evaluated
	registers *registers
	base0     *chain // the base chain that the packet entered
}

// outcome is what may happen to a packet in a chain: it passes the base chain, is
// dropped, or continues after the rule that jumped here. Several may be possible.
type outcome struct {
	pass bool
	drop *Place
	on   bool
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
	e.base0 = c
	out := e.chain(c, 0)
	if out.on {
		out.on = false
		if c.drops {
			out.fall(e.place(c, 0))
		} else {
			out.pass = true
		}
	}
	return out
}

// fall records the first place where a packet may be dropped.
func (o *outcome) fall(at *Place) {
	if o.drop == nil {
		o.drop = at
	}
}

func (e *evaluation) place(c *chain, handle uint64) *Place {
	return &Place{Family: familyNames[c.family], Table: c.table, Base: e.base0.name, Chain: c.name, Handle: handle}
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
			all.fall(one.drop)
		}
		if last {
			all.on = all.on || one.on
			if matches == yes {
				return all
			}
			continue
		}
		if matches == yes && !one.on {
			return all
		}
	}
	all.on = true
	return all
}

// verdict is the verdict of a rule that matches.
type verdict struct {
	expr.Verdict
	unsure bool // any verdict is possible
}

var (
	goOn     = verdict{Verdict: expr.Verdict{Kind: expr.VerdictContinue}}
	anything = verdict{unsure: true}
)

// apply applies a rule's verdict. last means that no other rule of the chain follows.
func (e *evaluation) apply(c *chain, r *rule, v verdict, depth int) (one outcome, last bool) {
	if v.unsure {
		one = outcome{pass: true, on: true}
		one.fall(e.place(c, r.handle))
		return one, false
	}
	switch v.Kind {
	case expr.VerdictAccept, expr.VerdictStop:
		return outcome{pass: true}, false
	case expr.VerdictDrop:
		return outcome{drop: e.place(c, r.handle)}, false
	case expr.VerdictReturn:
		return outcome{on: true}, true
	case expr.VerdictJump, expr.VerdictGoto:
		to := c.chains[v.Chain]
		if to == nil || depth >= maxJumps || e.left <= 0 {
			return e.apply(c, r, anything, depth)
		}
		return e.chain(to, depth+1), v.Kind == expr.VerdictGoto
	case expr.VerdictContinue, expr.VerdictBreak:
		return outcome{on: true}, false
	}
	return e.apply(c, r, anything, depth) // a queue: a program decides
}

// rule reports whether the packet matches, and the rule's verdict in that case.
func (e *evaluation) rule(c *chain, r *rule) (matches ternary, v verdict) {
	e.registers = newRegisters()
	matches, v = yes, goOn
	for _, x := range r.exprs {
		if e.left--; e.left <= 0 {
			return maybe, anything
		}
		var one ternary
		one, v = e.expr(c, x)
		if matches = min(matches, one); matches == no {
			return no, goOn
		}
		if v != goOn {
			return matches, v
		}
	}
	return matches, v
}

// expr evaluates one expression.
func (e *evaluation) expr(c *chain, x any) (ternary, verdict) {
	switch x := x.(type) {
	case *expr.Verdict:
		return yes, verdict{Verdict: *x}
	case *expr.Reject:
		return yes, verdict{Verdict: expr.Verdict{Kind: expr.VerdictDrop}}
	case *expr.NAT, *expr.Masq:
		return yes, verdict{Verdict: expr.Verdict{Kind: expr.VerdictAccept}}
	case *expr.Counter, *expr.Log:
		return yes, goOn
	case *expr.Notrack:
		e.tracked = false
		return yes, goOn
	case *expr.Meta:
		e.meta(x)
		return yes, goOn
	case *expr.Payload:
		e.payload(x)
		return yes, goOn
	case *expr.Bitwise:
		e.bitwise(x)
		return yes, goOn
	case *expr.Byteorder:
		e.byteorder(x)
		return yes, goOn
	case *expr.Ct:
		e.ct(x)
		return yes, goOn
	case *expr.Fib:
		e.fib(x)
		return yes, goOn
	case *expr.Immediate:
		e.registers.store(x.Register, knownValue(x.Data))
		return yes, goOn
	case *expr.Cmp:
		return e.registers.load(x.Register, len(x.Data)).compare(x.Op, x.Data), goOn
	case *expr.Range:
		in := e.registers.load(x.Register, len(x.FromData)).within(x.FromData, x.ToData)
		if x.Op == expr.CmpOpNeq { // NFT_RANGE_NEQ has the same number
			in = in.not()
		}
		return in, goOn
	case *expr.Lookup:
		return e.lookup(c, x)
	case *expr.Match:
		return e.match(x), goOn
	case unread:
		return e.unread(x)
	}
	return maybe, goOn
}

// match evaluates an iptables match.
func (e *evaluation) match(x *expr.Match) ternary {
	switch info := x.Info.(type) {
	case *xt.Comment:
		return yes
	case *xt.ConntrackMtinfo1:
		return e.matchState(info.ConntrackMtinfoBase, uint16(info.StateMask))
	case *xt.ConntrackMtinfo2:
		return e.matchState(info.ConntrackMtinfoBase, info.StateMask)
	case *xt.ConntrackMtinfo3:
		return e.matchState(info.ConntrackMtinfoBase, info.StateMask)
	}
	return maybe
}

// matchState is known if the match tests only states, whose bits are the same as those
// of nftables.
func (e *evaluation) matchState(info xt.ConntrackMtinfoBase, states uint16) ternary {
	if info.MatchFlags != uint16(xt.ConntrackState) || info.InvertFlags != 0 || !e.tracked {
		return maybe
	}
	return ternaryOf(uint32(states)&e.state() != 0)
}

// state returns the packet's state in connection tracking.
func (e *evaluation) state() uint32 {
	if e.packet.Answer {
		return expr.CtStateBitESTABLISHED
	}
	return expr.CtStateBitNEW
}

// unread handles an expression that this package does not understand: it is unknown
// whether it matches, and what it writes.
func (e *evaluation) unread(x unread) (ternary, verdict) {
	e.registers = newRegisters()
	switch x.name {
	case "target LOG", "target NFLOG", "target MARK", "target CONNMARK", "target TCPMSS", "target CT", "objref", "last", "dup", "flow_offload":
		e.mark = unknownValue(4)
		return yes, goOn
	case "queue", "synproxy", "tproxy", "fwd":
		return yes, anything
	case "target REJECT":
		return yes, verdict{Verdict: expr.Verdict{Kind: expr.VerdictDrop}}
	case "redir":
		return yes, verdict{Verdict: expr.Verdict{Kind: expr.VerdictAccept}}
	}
	if len(x.name) > 6 && x.name[:6] == "target" {
		return yes, anything
	}
	return maybe, goOn
}

func (e *evaluation) lookup(c *chain, x *expr.Lookup) (ternary, verdict) {
	s := c.sets[x.SetName]
	n := 0
	if s != nil {
		for _, el := range s.elements {
			n = max(n, len(el.Key))
		}
	}
	found, el := s.find(e.registers.load(x.SourceRegister, n))
	if x.Invert {
		return found.not(), goOn
	}
	if !x.IsDestRegSet || found == no {
		return found, goOn
	}
	if x.DestRegister != unix.NFT_REG_VERDICT {
		v := unknownValue(16)
		if el != nil {
			v = knownValue(el.Val)
		}
		e.registers.store(x.DestRegister, v)
		return found, goOn
	}
	if el == nil {
		return found, anything
	}
	v, ok := parseVerdict(el.Val)
	if !ok {
		return found, anything
	}
	return found, verdict{Verdict: v}
}
