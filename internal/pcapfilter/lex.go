package pcapfilter

import "strings"

// token is a word, a number or a sign, and its position. The zero value is the end.
type token struct {
	text    string
	at      int
	word    bool // a word or number, not a sign
	escaped bool // after a backslash: a name, even if it is a keyword
}

func (t token) is(texts ...string) bool {
	for _, s := range texts {
		if t.text == s && !t.escaped {
			return true
		}
	}
	return false
}

// lexer splits an expression into tokens.
type lexer struct {
	text     string
	at       int
	brackets int // number of open brackets: inside them a colon is a sign of its own
}

// signs are the signs of more than one character.
var signs = []string{"&&", "||", ">=", "<=", "!=", "==", "<<", ">>"}

func (l *lexer) next() (token, *Error) {
	for l.at < len(l.text) && strings.IndexByte(" \t\r\n", l.text[l.at]) >= 0 {
		l.at++
	}
	if l.at == len(l.text) {
		return token{at: l.at}, nil
	}
	start := l.at
	escaped := l.text[start] == '\\'
	if escaped {
		l.at++
	}
	from := l.at
	for l.at < len(l.text) && l.inWord(l.text[l.at], l.at > from) {
		l.at++
	}
	if l.at > from {
		return token{l.text[from:l.at], start, true, escaped}, nil
	}
	if escaped {
		return token{}, l.fail(start, "a name must follow the backslash")
	}
	for _, s := range signs {
		if strings.HasPrefix(l.text[start:], s) {
			l.at += len(s)
			return token{s, start, false, false}, nil
		}
	}
	c := l.text[start]
	switch {
	case c == '[':
		l.brackets++
	case c == ']':
		l.brackets--
	case strings.IndexByte("()!&|<>=+-*/%^:", c) < 0:
		return token{}, l.fail(start, "unexpected character %q", c)
	}
	l.at++
	return token{string(c), start, false, false}, nil
}

// inWord reports whether a character is part of a word, such as 10.0.0.1, fc00::1,
// tcp-syn and 80-90.
func (l *lexer) inWord(c byte, inside bool) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
		return true
	case l.brackets > 0:
		return false
	}
	return c == '.' || c == ':' || inside && c == '-'
}
