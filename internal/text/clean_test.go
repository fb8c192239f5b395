package text

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// hostile are texts that have an effect on a terminal.
var hostile = map[string]string{
	"\x1b[2J":           "\uFFFD[2J", // ESC: clears the screen
	"\u009b2J":          "\uFFFD2J",  // the same with one character (C1)
	"\x9b2J":            "\uFFFD2J",  // a byte that is not UTF-8
	"a\x7fb\x00\ac\b\r": "a\uFFFDb\uFFFD\uFFFDc\uFFFD\uFFFD",
	"\u202egpj.exe":     "\uFFFDgpj.exe",  // right to left
	"\u2066x\u2069":     "\uFFFDx\uFFFD",  // isolates
	"a\u200bb\ufeff":    "a\uFFFDb\uFFFD", // zero width
	"\U000e0041":        "\uFFFD",         // a tag
	"é 漢字 🙂\u2028":      "é 漢字 🙂\uFFFD",
	"plain":             "plain",
}

func TestClean(t *testing.T) {
	for in, want := range hostile {
		if got := Clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := Clean("a\nb"); got != "a\uFFFDb" {
		t.Errorf("%q is more than one line", got)
	}
}

// TestWriter: the output does not depend on how the text is split into writes.
func TestWriter(t *testing.T) {
	for in, want := range hostile {
		for _, size := range []int{1, 2, 3, len(in)} {
			var b bytes.Buffer
			w := NewWriter(&b)
			for rest := []byte("\t" + in + "\n"); len(rest) > 0; {
				n, err := w.Write(rest[:min(size, len(rest))])
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if got := b.String(); got != "\t"+want+"\n" {
				t.Errorf("%q in writes of %d: %q, want %q", in, size, got, want)
			}
		}
	}
}

// TestJSONWriter: JSON keeps its value, and contains only printable characters.
func TestJSONWriter(t *testing.T) {
	for in := range hostile {
		var b bytes.Buffer
		if err := json.NewEncoder(NewJSONWriter(&b)).Encode(in); err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || back != strings.ToValidUTF8(in, "\uFFFD") {
			t.Errorf("%q: %s is %q, %v", in, b.Bytes(), back, err)
		}
		if !printable(b.String()) {
			t.Errorf("%q: %q", in, b.String())
		}
	}
}

func printable(s string) bool {
	for _, r := range s {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return false
		}
	}
	return utf8.ValidString(s)
}

func FuzzWriter(f *testing.F) {
	for in := range hostile {
		f.Add([]byte(in), 1)
	}
	f.Fuzz(func(t *testing.T, in []byte, at int) {
		if at < 0 || at > len(in) {
			at = len(in)
		}
		var b bytes.Buffer
		w := NewWriter(&b)
		for _, part := range [][]byte{in[:at], in[at:]} {
			if n, err := w.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		if !printable(b.String()) {
			t.Errorf("%q: %q", in, b.String())
		}
	})
}
