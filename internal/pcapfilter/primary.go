package pcapfilter

// qualifiers say how an identifier is interpreted.
type qualifiers struct {
	proto string // "": any protocol to which it applies
	side  side
	kind  string // host, net, port, portrange, proto; "": derived from the identifier
}

// primary parses a primitive, a number, or an expression in parentheses.
func (p *parser) primary(follows bool) (operand, *Error) {
	tok := p.tok
	switch {
	case tok.text == "":
		return operand{}, p.unexpected("a condition is missing")
	case tok.is("("):
		return p.parenthesis()
	case tok.is("-"):
		return p.negative()
	case !tok.word:
		return operand{}, p.unexpected("a condition is missing")
	}
	if _, isProtocol := protocols[tok.text]; !tok.escaped && (isProtocol || tok.is("ip", "ip6")) {
		return p.protocol()
	}
	switch {
	case tok.is("src", "dst", "host", "net", "port", "portrange", "proto"):
		return p.qualified("")
	case tok.is("less", "greater"):
		return p.length()
	case tok.is("len"):
		return operand{value: func(e *eval) uint32 { return uint32(len(e.pkt)) }, at: tok.at}, p.advance()
	case tok.is("inbound", "outbound"):
		p.last = nil
		c := func(e *eval) bool { return e.inbound }
		if tok.is("outbound") {
			c = func(e *eval) bool { return e.outbound }
		}
		return operand{condition: c, at: tok.at}, p.advance()
	case tok.is("path"):
		return p.path()
	case tok.is("multicast"):
		return operand{}, p.fail(tok.at, "packets of a tunnel have no link layer: use ip multicast or ip6 multicast")
	case !tok.escaped && unsupported[tok.text]:
		return operand{}, p.fail(tok.at, "%q is not supported, or does not apply to packets of a tunnel, which begin with their IP header", tok.text)
	}
	n, isNumber := number(tok.text)
	named, isNamed := constants[tok.text]
	if isNamed {
		n = named
	}
	if !isNumber && !isNamed || isNumber && follows && p.last != nil && !p.operatorFollows() {
		return p.identifiers()
	}
	return operand{value: func(*eval) uint32 { return n }, literal: &n, at: tok.at}, p.advance()
}

// path parses "path N".
func (p *parser) path() (operand, *Error) {
	at := p.tok.at
	p.last = nil
	if err := p.advance(); err != nil {
		return operand{}, err
	}
	n, ok := number(p.tok.text)
	if !ok || n == 0 {
		return operand{}, p.unexpected("the number of a path (1, 2, …) is missing")
	}
	c := func(e *eval) bool { return uint32(e.path) == n }
	return operand{condition: c, at: at}, p.advance()
}

// operatorFollows reports whether a number is part of an arithmetic expression.
func (p *parser) operatorFollows() bool {
	ahead := p.lexer
	next, err := ahead.next()
	_, op := operators[next.text]
	_, relation := relations[next.text]
	return err == nil && !next.word && (op || relation)
}

// identifiers parses an identifier without qualifiers of its own.
func (p *parser) identifiers() (operand, *Error) {
	q := p.last
	if q == nil {
		q = new(qualifiers)
	}
	at := p.tok.at
	c, err := p.identifier(*q)
	return operand{condition: c, at: at}, err
}

func (p *parser) parenthesis() (operand, *Error) {
	at := p.tok.at
	if err := p.advance(); err != nil {
		return operand{}, err
	}
	o, err := p.expression()
	if err != nil {
		return o, err
	}
	o.at = at
	return o, p.expect(")")
}

func (p *parser) negative() (operand, *Error) {
	at := p.tok.at
	if err := p.advance(); err != nil {
		return operand{}, err
	}
	o, err := p.arithmetic(5, false) // 5 is a higher precedence than any operator has
	if err != nil {
		return o, err
	}
	if o.value == nil {
		return o, p.fail(o.at, `a number must follow "-"`)
	}
	v := o.value
	return operand{condition: o.condition, value: func(e *eval) uint32 { return -v(e) }, at: at}, nil
}

// protocol parses what begins with the name of a protocol: the name alone, bytes of its
// header, or an identifier that it qualifies.
func (p *parser) protocol() (operand, *Error) {
	tok := p.tok
	if err := p.advance(); err != nil {
		return operand{}, err
	}
	switch {
	case p.tok.is("["):
		return p.bytes(tok)
	case p.tok.is("src", "dst", "host", "net", "port", "portrange", "proto"):
		return p.qualified(tok.text)
	case p.tok.is("multicast") && tok.is("ip", "ip6"):
		p.last = nil
		c := func(e *eval) bool { return isIPv4(e) && e.byte(16) >= 224 }
		if tok.is("ip6") {
			c = func(e *eval) bool { return isIPv6(e) && e.byte(24) == 255 }
		}
		return operand{condition: c, at: tok.at}, p.advance()
	case p.tok.is("broadcast", "gateway", "protochain"):
		return operand{}, p.fail(p.tok.at, "%q is not supported", p.tok.text)
	}
	p.last = nil
	switch tok.text {
	case "ip":
		return operand{condition: isIPv4, at: tok.at}, nil
	case "ip6":
		return operand{condition: isIPv6, at: tok.at}, nil
	}
	pr := protocols[tok.text]
	var c condition
	switch {
	case pr.both:
		c = or(protocol4(pr.number), protocol6(pr.number))
	case pr.four:
		c = protocol4(pr.number)
	default:
		c = protocol6(pr.number)
	}
	return operand{condition: c, at: tok.at}, nil
}

// bytes parses an accessor for bytes of a header: [offset] or [offset:size].
func (p *parser) bytes(name token) (operand, *Error) {
	f, ok := fields[name.text]
	if !ok {
		return operand{}, p.fail(name.at, "the header bytes of %s cannot be accessed", name.text)
	}
	if err := p.advance(); err != nil {
		return operand{}, err
	}
	off, err := p.arithmetic(0, false)
	if err != nil {
		return off, err
	}
	if off.value == nil {
		return off, p.fail(off.at, "the offset must be a number")
	}
	size := 1
	if p.tok.is(":") {
		if err := p.advance(); err != nil {
			return off, err
		}
		n, ok := number(p.tok.text)
		if !ok || n != 1 && n != 2 && n != 4 {
			return off, p.fail(p.tok.at, "the size must be 1, 2 or 4")
		}
		size = int(n)
		if err := p.advance(); err != nil {
			return off, err
		}
	}
	at := off.value
	return operand{
		condition: all(f.present, off.condition),
		value:     func(e *eval) uint32 { return e.load(f.start(e)+uint64(at(e)), size) },
		at:        name.at,
	}, p.expect("]")
}

// length parses less and greater.
func (p *parser) length() (operand, *Error) {
	tok := p.tok
	p.last = nil
	if err := p.advance(); err != nil {
		return operand{}, err
	}
	n, ok := number(p.tok.text)
	if !ok {
		return operand{}, p.unexpected("a length in bytes is missing")
	}
	c := func(e *eval) bool { return uint32(len(e.pkt)) <= n }
	if tok.is("greater") {
		c = func(e *eval) bool { return uint32(len(e.pkt)) >= n }
	}
	return operand{condition: c, at: tok.at}, p.advance()
}

// qualified parses the qualifiers after a protocol, and their identifier.
func (p *parser) qualified(proto string) (operand, *Error) {
	q, at := qualifiers{proto: proto}, p.tok.at
	if p.tok.is("src", "dst") {
		if err := p.direction(&q); err != nil {
			return operand{}, err
		}
	}
	if p.tok.is("host", "net", "port", "portrange", "proto") {
		q.kind = p.tok.text
		if err := p.advance(); err != nil {
			return operand{}, err
		}
	}
	p.last = &q
	c, err := p.list(q)
	return operand{condition: c, at: at}, err
}

// direction parses src, dst, src or dst, src and dst.
func (p *parser) direction(q *qualifiers) *Error {
	first := p.tok.text
	q.side = source
	if first == "dst" {
		q.side = destination
	}
	if err := p.advance(); err != nil {
		return err
	}
	if !p.tok.is("or", "||", "and", "&&") {
		return nil
	}
	join, ahead := either, p.lexer
	if p.tok.is("and", "&&") {
		join = both
	}
	next, err := ahead.next() // the error belongs to what follows
	if err == nil && next.is("src", "dst") && next.text != first {
		q.side = join
		if err := p.advance(); err != nil {
			return err
		}
		return p.advance()
	}
	return nil
}

// list parses an identifier, or several in parentheses.
func (p *parser) list(q qualifiers) (condition, *Error) {
	switch {
	case p.tok.is("not", "!"):
		if err := p.advance(); err != nil {
			return nil, err
		}
		c, err := p.list(q)
		if err != nil {
			return nil, err
		}
		return not(c), nil
	case !p.tok.is("("):
		return p.identifier(q)
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	c, err := p.list(q)
	for err == nil && p.tok.is("and", "&&", "or", "||") {
		join := or
		if p.tok.is("and", "&&") {
			join = and
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		var next condition
		if next, err = p.list(q); err == nil {
			c = join(c, next)
		}
	}
	if err != nil {
		return nil, err
	}
	return c, p.expect(")")
}
