package pcapfilter

import "fmt"

// parser is a recursive descent parser for expressions. Its terms are those of the
// grammar in pcap-filter(7).
type parser struct {
	lexer
	tok  token
	last *qualifiers // of the previous primitive; a bare identifier uses them
}

// operand is a condition or a number. For a number, it has the condition under which the
// number exists.
type operand struct {
	condition condition
	value     value
	literal   *uint32 // the number is this constant
	at        int
}

func (l *lexer) fail(at int, format string, args ...any) *Error {
	return &Error{Column: at + 1, Text: fmt.Sprintf(format, args...)}
}

// advance moves to the next token.
func (p *parser) advance() (err *Error) {
	p.tok, err = p.next()
	return err
}

// expect skips a sign, which must be there.
func (p *parser) expect(sign string) *Error {
	if !p.tok.is(sign) {
		return p.unexpected("%q is missing", sign)
	}
	return p.advance()
}

// unexpected returns an error with the token that was found instead.
func (p *parser) unexpected(format string, args ...any) *Error {
	what := fmt.Sprintf(format, args...)
	if p.tok.text == "" {
		return p.fail(p.tok.at, "%s at the end of the expression", what)
	}
	return p.fail(p.tok.at, "%s before %q", what, p.tok.text)
}

func (p *parser) parse() (condition, *Error) {
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.tok.text == "" {
		return nil, nil
	}
	o, err := p.expression()
	if err != nil {
		return nil, err
	}
	if p.tok.text != "" {
		return nil, p.unexpected(`"and" or "or" is missing`)
	}
	return p.condition(o)
}

// condition returns the operand's condition, or an error if it is a number.
func (p *parser) condition(o operand) (condition, *Error) {
	if o.value != nil {
		return nil, p.fail(o.at, "a number is not a condition: compare it with another number (=, !=, <, >)")
	}
	return o.condition, nil
}

// expression parses conditions joined by and and or, which have the same precedence,
// from the left.
func (p *parser) expression() (operand, *Error) {
	left, err := p.term(false)
	if err != nil {
		return left, err
	}
	for p.tok.is("and", "&&", "or", "||") {
		join := or
		if p.tok.is("and", "&&") {
			join = and
		}
		a, err := p.condition(left)
		if err != nil {
			return left, err
		}
		if err := p.advance(); err != nil {
			return left, err
		}
		right, err := p.term(true)
		if err != nil {
			return left, err
		}
		b, err := p.condition(right)
		if err != nil {
			return left, err
		}
		left = operand{condition: join(a, b), at: left.at}
	}
	return left, nil
}

// term parses a condition or a number. After and and or, a bare identifier has the
// qualifiers of the one before it.
func (p *parser) term(follows bool) (operand, *Error) {
	at := p.tok.at
	if p.tok.is("not", "!") {
		if err := p.advance(); err != nil {
			return operand{}, err
		}
		o, err := p.term(follows)
		if err != nil {
			return o, err
		}
		c, err := p.condition(o)
		if err != nil {
			return o, err
		}
		return operand{condition: not(c), at: at}, nil
	}
	o, err := p.arithmetic(0, follows)
	if err != nil || o.value == nil {
		return o, err
	}
	compare, ok := relations[p.tok.text]
	if !ok {
		return o, nil
	}
	if err := p.advance(); err != nil {
		return o, err
	}
	right, err := p.arithmetic(0, false)
	if err != nil {
		return o, err
	}
	if right.value == nil {
		return o, p.fail(right.at, "a number must be compared with a number")
	}
	p.last = nil
	a, b := o.value, right.value
	relation := condition(func(e *eval) bool {
		x, y := a(e), b(e)
		return !e.outOfRange && compare(x, y)
	})
	return operand{condition: all(o.condition, right.condition, relation), at: at}, nil
}

var relations = map[string]func(a, b uint32) bool{
	"=": func(a, b uint32) bool { return a == b }, "==": func(a, b uint32) bool { return a == b },
	"!=": func(a, b uint32) bool { return a != b },
	"<":  func(a, b uint32) bool { return a < b }, "<=": func(a, b uint32) bool { return a <= b },
	">": func(a, b uint32) bool { return a > b }, ">=": func(a, b uint32) bool { return a >= b },
}

// operators are the arithmetic operators: their precedence and their functions.
var operators = map[string]struct {
	binds int
	do    func(e *eval, a, b uint32) uint32
}{
	"|":  {1, func(_ *eval, a, b uint32) uint32 { return a | b }},
	"^":  {1, func(_ *eval, a, b uint32) uint32 { return a ^ b }},
	"&":  {2, func(_ *eval, a, b uint32) uint32 { return a & b }},
	"<<": {3, func(_ *eval, a, b uint32) uint32 { return a << b }},
	">>": {3, func(_ *eval, a, b uint32) uint32 { return a >> b }},
	"+":  {4, func(_ *eval, a, b uint32) uint32 { return a + b }},
	"-":  {4, func(_ *eval, a, b uint32) uint32 { return a - b }},
	"*":  {5, func(_ *eval, a, b uint32) uint32 { return a * b }},
	"/":  {5, divide},
	"%": {5, func(e *eval, a, b uint32) uint32 {
		return a - divide(e, a, b)*b
	}},
}

// divide returns the quotient. A division by 0 ends the filter.
func divide(e *eval, a, b uint32) uint32 {
	if b == 0 {
		e.outOfRange = true
		return 0
	}
	return a / b
}

// arithmetic parses an arithmetic expression with operators of a higher precedence than
// binds. The operand may also be a condition.
func (p *parser) arithmetic(binds int, follows bool) (operand, *Error) {
	left, err := p.primary(follows)
	for err == nil && left.value != nil {
		op, ok := operators[p.tok.text]
		if !ok || p.tok.escaped || op.binds <= binds {
			return left, nil
		}
		sign := p.tok
		if err := p.advance(); err != nil {
			return left, err
		}
		right, err := p.arithmetic(op.binds, false)
		switch {
		case err != nil:
			return left, err
		case right.value == nil:
			return left, p.fail(right.at, "a number must follow %q", sign.text)
		case right.literal != nil && *right.literal == 0 && (sign.text == "/" || sign.text == "%"):
			return left, p.fail(right.at, "division by 0")
		}
		a, b := left.value, right.value
		left = operand{
			condition: all(left.condition, right.condition),
			value:     func(e *eval) uint32 { return op.do(e, a(e), b(e)) },
			at:        left.at,
		}
	}
	return left, err
}
