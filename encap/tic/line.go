package tic

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// ErrLine is the error of a line that is too long.
var ErrLine = fmt.Errorf("a line has at most %d bytes", MaxLine)

// Reader reads lines.
type Reader struct{ b *bufio.Reader }

// NewReader returns a Reader, which reads a little ahead.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReaderSize(r, MaxLine+2)} }

// Line returns the next line, without the LF or CR LF that ends it. A line that the end of the
// input cuts off is io.ErrUnexpectedEOF.
func (r *Reader) Line() (string, error) {
	b, err := r.b.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", ErrLine
	case err == io.EOF && len(b) > 0:
		return "", io.ErrUnexpectedEOF
	case err != nil:
		return "", err
	}
	b = b[:len(b)-1]
	if n := len(b); n > 0 && b[n-1] == '\r' {
		b = b[:n-1]
	}
	if len(b) > MaxLine {
		return "", ErrLine
	}
	return string(b), nil
}

// Buffered returns the number of bytes that were read ahead.
func (r *Reader) Buffered() int { return r.b.Buffered() }

// Reply is an answer of a server, or what begins or ends a list.
type Reply struct {
	Code int // three digits
	Text string
}

// ErrReply is the error of a line that is not an answer.
var ErrReply = errors.New("not an answer of a TIC server, which begins with three digits")

// ParseReply reads an answer. What follows the three digits may be missing.
func ParseReply(line string) (Reply, error) {
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return Reply{}, ErrReply
	}
	var r Reply
	for _, c := range []byte(line[:3]) {
		if c < '0' || c > '9' {
			return Reply{}, ErrReply
		}
		r.Code = 10*r.Code + int(c-'0')
	}
	if len(line) > 4 {
		r.Text = strings.TrimSpace(line[4:])
	}
	return r, nil
}

// Good reports whether a server has done what it was asked to do.
func (r Reply) Good() bool { return r.Code/100 == 2 }

// Bad reports whether the line, within a list, says that the rest of it will not come.
func (r Reply) Bad() bool { return r.Code/100 >= 4 && r.Code/100 <= 5 }

// End is the code of the line that ends a list.
const End = 202

// Printable returns a text of the other end as it can be shown: without control characters
// and invalid bytes, and not longer than a line of a terminal or two.
func Printable(text string) string {
	const most = 160
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, text)
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "…"
	}
	return text
}

// Command is a line of a client.
type Command struct {
	Name string   // in lower case, such as "tunnel show"; "": none
	Args []string // the words after it
	Rest string   // what follows the first of Args, as it was sent
}

// two are the words that begin a name of two words.
var two = map[string]bool{"get": true, "set": true, "tunnel": true, "pop": true, "route": true}

// ParseCommand reads a line of a client. Names may be in any case.
func ParseCommand(line string) Command {
	words := strings.Fields(line)
	if len(words) == 0 {
		return Command{}
	}
	c := Command{Name: strings.ToLower(words[0]), Args: words[1:]}
	if two[c.Name] && len(c.Args) > 0 {
		c.Name += " " + strings.ToLower(c.Args[0])
		c.Args = c.Args[1:]
	}
	// A password in clear may contain, and end with, spaces.
	if _, after, ok := strings.Cut(strings.TrimLeft(line, " \t"), " "); ok {
		_, c.Rest, _ = strings.Cut(after, " ")
	}
	return c
}
