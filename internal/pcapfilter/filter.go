// Package pcapfilter understands the filter expressions of pcap-filter(7), by which
// tcpdump and other packet analysers choose packets, for packets that begin with
// their IP header (LINKTYPE_RAW).
//
// It knows all primitives that such packets can have: ip, ip6, tcp, udp, icmp, icmp6,
// sctp, esp, ah, igmp, pim and proto; host, net, port and portrange with src and dst;
// less, greater, len; ip multicast and ip6 multicast; the bytes of headers, with
// arithmetic; and, or, not and parentheses. It decides as libpcap does for that link
// type. Beyond those there is gre, which is proto 47, and inbound and outbound mean
// the way through the tunnel. Names of hosts it does not look up.
package pcapfilter

import "fmt"

// Filter chooses packets. One goroutine at a time may use it.
type Filter struct {
	match condition
	eval  eval
}

// MaxLen is the longest expression, in bytes. Its length bounds how long it takes to
// compile, and to decide about a packet: there are no loops.
const MaxLen = 4096

// Error is what is wrong with an expression.
type Error struct {
	Expression string
	Column     int // from 1, in bytes, of where it is
	Text       string
}

func (e *Error) Error() string {
	return fmt.Sprintf("filter %q, column %d: %s", e.Expression, e.Column, e.Text)
}

// Compile understands an expression. Of none it is nil, which matches every packet;
// the error is an *Error.
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

// Match reports whether the filter chooses a packet, which is only looked at. Inbound
// and outbound say which way it went.
func (f *Filter) Match(pkt []byte, inbound, outbound bool) bool {
	if f == nil {
		return true
	}
	f.eval = eval{pkt: pkt, inbound: inbound, outbound: outbound}
	ok := f.match(&f.eval)
	return ok && !f.eval.beyond
}
