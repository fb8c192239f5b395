package firewall

import (
	"github.com/google/nftables/expr"
)

// Effect is what a rule, or the policy of a chain, may do to a packet.
type Effect struct {
	Place
	Does string // as in "may Does it": "drop", "log"…
}

// Affects returns the first effect that the rules may have on a packet, except that they count
// it and let it pass. ok reports whether there is one. A packet without effects could as well
// go past the packet filter. A rule counts if it is unknown whether it matches the packet, or
// what it does.
func (r *Ruleset) Affects(p Packet) (effect Effect, ok bool) {
	e := &evaluation{packet: p, left: r.steps}
	e.prepare()
	for _, c := range r.base {
		if _, ok := c.isOnWayOf(p); !ok || c.nat && p.Answer {
			continue
		}
		out := e.base(c)
		switch {
		case e.effect != nil:
			return *e.effect, true
		case out.drop != nil:
			return Effect{Place: *out.drop, Does: "drop"}, true
		}
	}
	return Effect{}, false
}

// note records what an expression of a rule does, if it is the first that does anything.
func (e *evaluation) note(c *chain, r *rule, x *expression) {
	if e.effect != nil {
		return
	}
	if does := x.does(); does != "" {
		e.effect = &Effect{Place: *e.place(c, r.handle), Does: does}
	}
}

// does returns what an expression does to packets, or "" if it compares them, counts them, or
// has a verdict.
func (x *expression) does() string {
	const change, unknown = "change", "do what is not known here to"
	switch fields := x.fields.(type) {
	case *expr.Meta:
		if fields.SourceRegister {
			return change
		}
	case *expr.Payload:
		if fields.OperationType == expr.PayloadWrite {
			return change
		}
	case *expr.Ct:
		if fields.SourceRegister {
			return "change the connection of"
		}
	case *expr.Match:
		switch fields.Name {
		case "recent", "quota", "rateest", "led", "IDLETIMER":
			return "record"
		}
	case nil:
		if x.jump != nil {
			return ""
		}
		switch x.name {
		case "immediate", "counter", "last", "limit", "connlimit", "numgen", "hash", "socket", "rt", "osf", "xfrm", "tunnel", "inner", "exthdr",
			"reject", "target REJECT": // the latter two drop
			return ""
		case "nat", "masq", "redir", "target MASQUERADE", "target SNAT", "target DNAT", "target REDIRECT", "target NETMAP":
			return "translate the addresses of"
		case "log", "target LOG", "target NFLOG":
			return "log"
		case "objref", "dynset", "quota":
			return "record"
		case "notrack", "target CT", "target NOTRACK":
			return "hide from connection tracking"
		case "dup", "fwd", "target TEE":
			return "copy or redirect"
		case "queue", "target NFQUEUE", "tproxy", "synproxy", "target TPROXY":
			return "hand to another program"
		case "target MARK", "target CONNMARK", "target DSCP", "target TOS", "target TTL", "target HL":
			return change
		}
		return unknown
	}
	return ""
}
