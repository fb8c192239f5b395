// Package pcapfilter implements the filter expressions of pcap-filter(7), with which
// tcpdump and other packet analysers select packets, for packets that begin with their
// IP header (LINKTYPE_RAW).
//
// It supports all primitives that apply to such packets: ip, ip6, tcp, udp, icmp, icmp6,
// sctp, esp, ah, igmp, pim and proto; host, net, port and portrange with src and dst;
// less, greater, len; ip multicast and ip6 multicast; the bytes of headers, with
// arithmetic; and, or, not and parentheses. The results are those of libpcap for that
// link type. In addition there is gre, which is proto 47, and inbound and outbound are
// the direction in the tunnel, and path N is the path to the peer. Host names are not resolved.
package pcapfilter

import "fmt"

// Filter selects packets. It is not safe for concurrent use.
type Filter struct {
	match condition
	eval  eval
}

// MaxLen is the length of the longest expression, in bytes. It bounds the time to
// compile the expression and to match a packet, because there are no loops.
const MaxLen = 4096

// Error describes what is wrong with an expression.
type Error struct {
	Expression string
	Column     int // position of the error, from 1, in bytes
	Text       string
}

func (e *Error) Error() string {
	return fmt.Sprintf("filter %q, column %d: %s", e.Expression, e.Column, e.Text)
}

// Compile compiles an expression. For an empty one it returns nil, which matches every
// packet. The error is an *Error.
func Compile(expression string) (*Filter, error) {
	if len(expression) > MaxLen {
		return nil, &Error{expression[:40] + "...", MaxLen + 1, fmt.Sprintf("the expression is longer than %d bytes", MaxLen)}
	}
	p := &parser{lexer: lexer{text: expression}}
	match, err := p.parse()
	if err != nil {
		err.Expression = expression
		return nil, err
	}
	if match == nil {
		return nil, nil
	}
	return &Filter{match: match}, nil
}

// Match reports whether the filter selects a packet. It does not change or keep the
// packet. inbound and outbound are the packet's direction, and path is the number of its
// path; 0: none.
func (f *Filter) Match(pkt []byte, inbound, outbound bool, path int) bool {
	if f == nil {
		return true
	}
	f.eval = eval{pkt: pkt, inbound: inbound, outbound: outbound, path: path}
	ok := f.match(&f.eval)
	return ok && !f.eval.outOfRange
}
