package text

import "strings"

// Nearest returns the word that a misspelt name was probably intended to be, or "" if
// none is close enough. It ignores case.
func Nearest(name string, words []string) string {
	best, word := 3, ""
	for _, w := range words {
		limit := max(1, min(2, len(w)/3))
		if diff := len(name) - len(w); diff > limit || -diff > limit {
			continue
		}
		if d := distance(strings.ToLower(name), strings.ToLower(w)); d <= limit && d < best {
			best, word = d, w
		}
	}
	return word
}

// distance returns the number of insertions, deletions, replacements and swaps of
// adjacent characters that turn one text into the other (optimal string alignment).
func distance(a, b string) int {
	var before []int // row i-2
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
