package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// refuse reports that an entry's value is invalid, and what it must be.
func refuse(r *report, e entry, want string) {
	is := kindNames[e.kind]
	switch e.kind {
	case unstable.String:
		is = quote(e.text)
	case unstable.Integer:
		is = e.text
		if len(is) > maxShown {
			is = is[:maxShown] + "…"
		}
	}
	r.add(e.at, "%s is %s: it must be %s", e.name, is, want)
}

// refuseType reports that an entry's value has the wrong type.
func refuseType(r *report, e entry, want string) {
	r.add(e.at, "%s is %s: it must be %s", e.name, kindNames[e.kind], want)
}

// stringOf returns the value of an entry that must be a string. want says which kind of
// string.
func stringOf(r *report, e entry, want string) (string, bool) {
	if e.kind != unstable.String {
		refuseType(r, e, "a string, "+want)
		return "", false
	}
	return e.text, true
}

// wordOf returns the value of an entry that must be one of a few strings.
func wordOf(r *report, e entry, words ...string) (string, bool) {
	if e.kind != unstable.String {
		return stringOf(r, e, list(quoteAll(words)))
	}
	if !slices.Contains(words, e.text) {
		want := list(quoteAll(words))
		if word := meant(e.text, words, otherModes); word != "" {
			want += ": did you mean " + quote(word) + "?"
		}
		refuse(r, e, want)
		return "", false
	}
	return e.text, true
}

// boolOf returns the value of an entry that must be true or false.
func boolOf(r *report, e entry) (on, ok bool) {
	if e.kind != unstable.Bool {
		refuse(r, e, "true or false")
		return false, false
	}
	return e.text == "true", true
}

// numberOf returns the value of an entry that must be an integer within bounds, or one
// of a few words, which is then returned instead.
func numberOf(r *report, e entry, least, most int64, words ...string) (n int64, word string, ok bool) {
	switch e.kind {
	case unstable.String:
		if slices.Contains(words, e.text) {
			return 0, e.text, true
		}
	case unstable.Integer:
		n, err := parseInt(e.text)
		if err == nil && least <= n && n <= most {
			return n, "", true
		}
	}
	want := append([]string{fmt.Sprintf("an integer from %d to %d", least, most)}, quoteAll(words)...)
	refuse(r, e, list(want))
	return 0, "", false
}

// durationOf returns the value of an entry that must be a duration in Go's format,
// within bounds, or zero if zero has a meaning.
func durationOf(r *report, e entry, least, most time.Duration, zero string) (time.Duration, bool) {
	want := fmt.Sprintf(`a duration such as "25s", from %q to %q`, short(least), short(most))
	if zero != "" {
		want += fmt.Sprintf(`, or "0s": %s`, zero)
	}
	if e.kind != unstable.String {
		refuse(r, e, want)
		return 0, false
	}
	d, err := time.ParseDuration(e.text)
	if err != nil || (d < least || d > most) && (d != 0 || zero == "") {
		refuse(r, e, want)
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

// parseInt parses an integer. Go's syntax includes all of TOML's.
func parseInt(text string) (int64, error) { return strconv.ParseInt(text, 0, 64) }
