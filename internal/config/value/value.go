// Package value reads typed values from the entries of a TOML file: words, numbers,
// durations, addresses, prefixes, hosts. It reports a wrong value with what would be right.
package value

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
)

// Refuse reports that an entry's value is invalid, and what it must be.
func Refuse(r *problem.Report, e tree.Entry, want string) {
	is := tree.KindNames[e.Kind]
	switch e.Kind {
	case tree.String:
		is = problem.Quote(e.Text)
	case tree.Integer:
		is = e.Text
		if len(is) > problem.MaxShown {
			is = is[:problem.MaxShown] + "…"
		}
	}
	r.Add(e.At, "%s is %s: it must be %s", e.Name, is, want)
}

// RefuseType reports that an entry's value has the wrong type.
func RefuseType(r *problem.Report, e tree.Entry, want string) {
	r.Add(e.At, "%s is %s: it must be %s", e.Name, tree.KindNames[e.Kind], want)
}

// String returns the value of an entry that must be a string. want says which kind of
// string.
func String(r *problem.Report, e tree.Entry, want string) (string, bool) {
	if e.Kind != tree.String {
		RefuseType(r, e, "a string, "+want)
		return "", false
	}
	return e.Text, true
}

// Word returns the value of an entry that must be one of a few strings.
func Word(r *problem.Report, e tree.Entry, words ...string) (string, bool) {
	return WordLike(r, e, nil, words...)
}

// WordLike is Word for words that have other names, folded, in other programs.
func WordLike(r *problem.Report, e tree.Entry, synonyms map[string]string, words ...string) (string, bool) {
	if e.Kind != tree.String {
		return String(r, e, problem.Alternatives(problem.QuoteAll(words)))
	}
	if !slices.Contains(words, e.Text) {
		want := problem.Alternatives(problem.QuoteAll(words))
		if word := tree.Suggestion(e.Text, words, synonyms); word != "" {
			want += ": did you mean " + problem.Quote(word) + "?"
		}
		Refuse(r, e, want)
		return "", false
	}
	return e.Text, true
}

// Bool returns the value of an entry that must be true or false.
func Bool(r *problem.Report, e tree.Entry) (on, ok bool) {
	if e.Kind != tree.Bool {
		Refuse(r, e, "true or false")
		return false, false
	}
	return e.Text == "true", true
}

// Number returns the value of an entry that must be an integer within bounds, or one
// of a few words, which is then returned instead.
func Number(r *problem.Report, e tree.Entry, least, most int64, words ...string) (n int64, word string, ok bool) {
	switch e.Kind {
	case tree.String:
		if slices.Contains(words, e.Text) {
			return 0, e.Text, true
		}
	case tree.Integer:
		n, err := ParseInt(e.Text)
		if err == nil && least <= n && n <= most {
			return n, "", true
		}
	}
	want := append([]string{fmt.Sprintf("an integer from %d to %d", least, most)}, problem.QuoteAll(words)...)
	Refuse(r, e, problem.Alternatives(want))
	return 0, "", false
}

// Duration returns the value of an entry that must be a duration in Go's format,
// within bounds, or zero if zero has a meaning.
func Duration(r *problem.Report, e tree.Entry, least, most time.Duration, zero string) (time.Duration, bool) {
	want := fmt.Sprintf(`a duration such as "25s", from %q to %q`, short(least), short(most))
	if zero != "" {
		want += fmt.Sprintf(`, or "0s": %s`, zero)
	}
	if e.Kind != tree.String {
		Refuse(r, e, want)
		return 0, false
	}
	d, err := time.ParseDuration(e.Text)
	if err != nil || (d < least || d > most) && (d != 0 || zero == "") {
		Refuse(r, e, want)
		return 0, false
	}
	return d, true
}

// short returns a duration without zero parts at its end.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// ParseInt parses an integer. Go's syntax includes all of TOML's.
func ParseInt(text string) (int64, error) { return strconv.ParseInt(text, 0, 64) }

// Word32 reads a number of 32 bits. It may be in dotted notation, as on routers.
func Word32(r *problem.Report, e tree.Entry) (ok bool, n uint32) {
	switch e.Kind {
	case tree.Integer:
		n, err := ParseInt(e.Text)
		if err == nil && 0 <= n && n <= math.MaxUint32 {
			return true, uint32(n)
		}
	case tree.String:
		a, err := netip.ParseAddr(e.Text)
		if err == nil && a.Is4() {
			b := a.As4()
			return true, binary.BigEndian.Uint32(b[:])
		}
	}
	Refuse(r, e, `a number of 32 bits, from 0 to 4294967295, or a dotted quad, such as "192.0.2.1"`)
	return false, 0
}
