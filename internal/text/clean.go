package text

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Clean returns a text on one line, without characters that have an effect on a
// terminal, such as control characters and those that change the direction of writing.
// Each of them becomes U+FFFD.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, s)
}

// Writer writes text that may come from other programs, without characters that have an
// effect on a terminal. It is Clean, except for newlines and tabs.
type Writer struct {
	w    io.Writer
	json bool
	rest []byte // the beginning of an incomplete character
	out  []byte
}

// NewWriter returns a Writer. An incomplete character at the end of a write is held back
// until the next write.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// NewJSONWriter returns a Writer for JSON. It escapes such characters, so that the
// values do not change.
func NewJSONWriter(w io.Writer) *Writer { return &Writer{w: w, json: true} }

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	if len(w.rest) == 0 && isPlain(p) {
		return w.w.Write(p)
	}
	in := append(w.rest, p...)
	w.out = w.out[:0]
	for len(in) > 0 && utf8.FullRune(in) {
		r, n := utf8.DecodeRune(in)
		w.out = w.append(w.out, r)
		in = in[n:]
	}
	w.rest = append([]byte(nil), in...)
	if _, err := w.w.Write(w.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// isPlain reports whether there are only printable ASCII characters, newlines and tabs.
func isPlain(p []byte) bool {
	for _, c := range p {
		if (c < ' ' || c > '~') && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

func (w *Writer) append(b []byte, r rune) []byte {
	switch {
	case r == '\n' || r == '\t' || unicode.IsPrint(r):
		return utf8.AppendRune(b, r)
	case !w.json:
		return utf8.AppendRune(b, utf8.RuneError)
	}
	if high, low := utf16.EncodeRune(r); high != utf8.RuneError { // RFC 8259, section 7
		return fmt.Appendf(b, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(b, `\u%04x`, r)
}
