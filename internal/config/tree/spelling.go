package tree

import (
	"slices"
	"strings"

	"sixfour/internal/text"
)

// Fold returns a name without differences in spelling style.
func Fold(name string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "", ".", "").Replace(strings.ToLower(name))
}

// Suggestion returns the word that a name was probably intended to be, or "".
func Suggestion(name string, words []string, others map[string]string) string {
	f := Fold(name)
	for _, w := range words {
		if Fold(w) == f {
			return w
		}
	}
	if w := others[f]; slices.Contains(words, w) {
		return w
	}
	return text.Nearest(name, words)
}
