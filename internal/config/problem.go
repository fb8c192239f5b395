package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Problem is one error in a file, with a correction.
type Problem struct {
	File         string
	Line, Column int // from 1; columns count bytes
	Text         string
}

func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Text)
}

// Problems are all errors in a file, in the order of the file.
type Problems []Problem

// Error returns one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// report collects problems in any order.
type report struct {
	file     string
	problems Problems
	found    int      // including those that were left out of problems
	tunnels  []*draft // set when all are read
	rest     pos      // position from which the file was not checked any more; zero: none

	lenient bool     // doubt does not make the file invalid
	doubts  Problems // what doubt found, if lenient
}

// maxProblems is how many problems of a file are reported. A file with more was not
// written by hand, or a single mistake causes most of them.
const maxProblems = 100

// full reports whether there are so many problems that no more are reported. The caller
// stops at the position at.
func (r *report) full(at pos) bool {
	if len(r.problems) < maxProblems {
		return false
	}
	if r.rest == (pos{}) {
		r.rest = at
	}
	return true
}

// forget drops all problems.
func (r *report) forget() { r.problems, r.found, r.rest = nil, 0, pos{} }

// all returns the problems in the order of the file.
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

// doubt reports what stops a part of the traffic and nothing else: the daemon can run the
// rest of the file. A lenient report does not refuse the file for it.
func (r *report) doubt(at pos, format string, args ...any) {
	switch {
	case !r.lenient:
		r.add(at, format, args...)
	case len(r.doubts) < maxProblems:
		r.doubts = append(r.doubts, Problem{r.file, at.line, at.column, fmt.Sprintf(format, args...)})
	}
}

// Sorted returns the problems in the order of the file, without duplicates. Duplicates
// occur, for example, if two array elements share a position.
func (p Problems) Sorted() Problems {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(p)
}

// maxShown is how many bytes of a file's text a problem repeats.
const maxShown = 80

// quote returns a text of the file in quotes on one line, shortened if it is too long.
func quote(s string) string {
	if len(s) > maxShown {
		return fmt.Sprintf("%q…", s[:maxShown])
	}
	return fmt.Sprintf("%q", s)
}

// oneLine returns a text that may contain text of the file in a form that fits on one
// line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// list joins alternatives: `a`, `a or b`, `a, b or c`.
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
