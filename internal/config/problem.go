package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Problem is one thing that is wrong with a file, and what would be right.
type Problem struct {
	File         string
	Line, Column int // from 1; columns count bytes
	Text         string
}

func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Text)
}

// Problems are all that is wrong with a file, in the file's order.
type Problems []Problem

// Error is one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// report gathers problems in whatever order they are found.
type report struct {
	file     string
	problems Problems
	found    int      // with those that are not in problems any more
	tunnels  []*draft // when all are read
	rest     pos      // where the file was not looked at any more; zero: nowhere
}

// maxProblems is how many problems are said of a file. One with more is none that somebody
// wrote by hand, or one mistake is behind most of them.
const maxProblems = 100

// full reports whether there are so many problems that no more are said: at is where the
// caller stops to look for them.
func (r *report) full(at pos) bool {
	if len(r.problems) < maxProblems {
		return false
	}
	if r.rest == (pos{}) {
		r.rest = at
	}
	return true
}

// forget drops what was found.
func (r *report) forget() { r.problems, r.found, r.rest = nil, 0, pos{} }

// all are the problems in the file's order.
func (r *report) all() Problems {
	all := r.problems.Sorted()
	if r.rest == (pos{}) {
		return all
	}
	last := all[len(all)-1]
	at := pos{last.Line, last.Column}
	if cmp.Or(cmp.Compare(r.rest.line, at.line), cmp.Compare(r.rest.column, at.column)) > 0 {
		at = r.rest
	}
	return append(all, Problem{r.file, at.line, at.column, "there may be more problems: correct these first"})
}

func (r *report) add(at pos, format string, args ...any) {
	r.found++
	if r.full(at) {
		return
	}
	r.problems = append(r.problems, Problem{r.file, at.line, at.column, fmt.Sprintf(format, args...)})
}

// Sorted are the problems in the file's order. What is said twice, such as of two
// array elements that share a position, is said once.
func (p Problems) Sorted() Problems {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(p)
}

// maxShown is how many bytes of a file's text a problem repeats.
const maxShown = 80

// quote shows a text of the file on one line, cut where it is endless.
func quote(s string) string {
	if len(s) > maxShown {
		return fmt.Sprintf("%q…", s[:maxShown])
	}
	return fmt.Sprintf("%q", s)
}

// oneLine is a text that may repeat the file's own, fit for one line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// list joins what there is to choose from: `a`, `a or b`, `a, b or c`.
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// quoteAll quotes each word.
func quoteAll(words []string) []string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return quoted
}
