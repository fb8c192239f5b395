// Package problem collects the errors of a file with their lines and columns.
package problem

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
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

// List are all errors in a file, in the order of the file.
type List []Problem

// Error returns one line for each problem.
func (p List) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// Report collects problems in any order.
type Report struct {
	File     string
	problems List
	Found    int // including those that were left out of problems
	rest     Pos // position from which the file was not checked any more; zero: none

	// ReadSecret reads a file with a secret; nil: those files are not read.
	ReadSecret func(path string) (string, error)

	Lenient bool // Doubt does not make the file invalid
	Doubts  List // the problems from Doubt, if Lenient is set
}

// MaxProblems is how many problems of a file are reported. A file with more was not
// written by hand, or a single mistake causes most of them.
const MaxProblems = 100

// Full reports whether there are so many problems that no more are reported. The caller
// stops at the position at.
func (r *Report) Full(at Pos) bool {
	if len(r.problems) < MaxProblems {
		return false
	}
	if r.rest == (Pos{}) {
		r.rest = at
	}
	return true
}

// Forget drops all problems.
func (r *Report) Forget() { r.problems, r.Found, r.rest = nil, 0, Pos{} }

// All returns the problems in the order of the file.
func (r *Report) All() List {
	all := r.problems.Sorted()
	if r.rest == (Pos{}) {
		return all
	}
	last := all[len(all)-1]
	at := Pos{last.Line, last.Column}
	if cmp.Or(cmp.Compare(r.rest.Line, at.Line), cmp.Compare(r.rest.Column, at.Column)) > 0 {
		at = r.rest
	}
	return append(all, Problem{File: r.File, Line: at.Line, Column: at.Column, Text: "there may be more problems: correct these first"})
}

func (r *Report) Add(at Pos, format string, args ...any) {
	r.Found++
	if r.Full(at) {
		return
	}
	r.problems = append(r.problems, Problem{File: r.File, Line: at.Line, Column: at.Column, Text: fmt.Sprintf(format, args...)})
}

// Doubt reports what stops a part of the traffic and nothing else: the daemon can run the
// rest of the file. If Lenient is set, the file is valid in spite of it.
func (r *Report) Doubt(at Pos, format string, args ...any) {
	switch {
	case !r.Lenient:
		r.Add(at, format, args...)
	case len(r.Doubts) < MaxProblems:
		r.Doubts = append(r.Doubts, Problem{File: r.File, Line: at.Line, Column: at.Column, Text: fmt.Sprintf(format, args...)})
	}
}

// Sorted returns the problems in the order of the file, without duplicates. Duplicates
// occur, for example, if two array elements share a position.
func (p List) Sorted() List {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(p)
}

// MaxShown is how many bytes of a file's text a problem repeats.
const MaxShown = 80

// Quote returns a text of the file in quotes on one line, shortened if it is too long.
func Quote(s string) string {
	if len(s) > MaxShown {
		return fmt.Sprintf("%q…", s[:MaxShown])
	}
	return fmt.Sprintf("%q", s)
}

// Alternatives joins alternatives: `a`, `a or b`, `a, b or c`.
func Alternatives(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// QuoteAll quotes each word.
func QuoteAll(words []string) []string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = Quote(w)
	}
	return quoted
}
