package config

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/pelletier/go-toml/v2/unstable"
)

// refuse says that an entry's value is not what it must be.
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

// refuseType says that an entry's value has the wrong type.
func refuseType(r *report, e entry, want string) {
	r.add(e.at, "%s is %s: it must be %s", e.name, kindNames[e.kind], want)
}

// stringOf is the value of an entry that must be a string; want says of what
// sort.
func stringOf(r *report, e entry, want string) (string, bool) {
	if e.kind != unstable.String {
		refuseType(r, e, "a string, "+want)
		return "", false
	}
	return e.text, true
}

// wordOf is the value of an entry that must be one of a few strings.
func wordOf(r *report, e entry, words ...string) (string, bool) {
	if e.kind != unstable.String {
		return stringOf(r, e, list(quoteAll(words)))
	}
	if !slices.Contains(words, e.text) {
		refuse(r, e, list(quoteAll(words)))
		return "", false
	}
	return e.text, true
}

// boolOf is the value of an entry that must be true or false.
func boolOf(r *report, e entry) (on, ok bool) {
	if e.kind != unstable.Bool {
		refuse(r, e, "true or false")
		return false, false
	}
	return e.text == "true", true
}

// numberOf is the value of an entry that must be an integer within bounds, or
// one of a few words, which is then returned instead.
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

// parseInt reads an integer: Go knows all of TOML's notations.
func parseInt(text string) (int64, error) { return strconv.ParseInt(text, 0, 64) }
