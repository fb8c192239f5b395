package tree

import (
	"maps"
	"slices"

	"sixfour/internal/config/problem"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Key is one key of a table: its name, and how its value is stored in a T. Read reports
// an invalid value and then leaves T unchanged.
type Key[T any] struct {
	Name string
	Read func(r *problem.Report, e Entry, into T)
}

// State is what Read found about a table's known keys.
type State struct {
	Set map[string]bool // set in the file, possibly misspelt
	Bad map[string]bool // set to an invalid value
}

// Good reports whether each of the keys is set to a valid value.
func (s State) Good(names ...string) bool {
	for _, name := range names {
		if !s.Set[name] || s.Bad[name] {
			return false
		}
	}
	return true
}

// Need reports that a table with a header does not have a key.
func (s State) Need(r *problem.Report, header problem.Pos, name, set string) {
	if !s.Set[name] {
		r.Add(header, "%s is missing: set it to %s", name, set)
	}
}

// Hints are suggestions for unknown keys.
type Hints struct {
	// Synonyms are names of keys in other programs, folded, and the names here.
	Synonyms map[string]string
	// Elsewhere says to which other table a key belongs that the table with a header does
	// not have, or returns "".
	Elsewhere func(name, where string) string
}

// Read reads a table's values in the order of the rows, so that a row may depend on
// those above it. where is the table's header, or "" for the whole file.
func Read[T any](r *problem.Report, where string, t *Value, rows []Key[T], into T, hints Hints) State {
	s := State{Set: map[string]bool{}, Bad: map[string]bool{}}
	found := 0
	for _, row := range rows {
		e, ok := t.Table[row.Name]
		if !ok {
			continue
		}
		found++
		before := r.Found
		row.Read(r, e, into)
		s.Set[row.Name] = true
		s.Bad[row.Name] = r.Found > before
	}
	if found < len(t.Table) {
		s.guess(r, where, t, Names(rows), hints)
	}
	return s
}

func Names[T any](rows []Key[T]) []string {
	names := make([]string, len(rows))
	for i, row := range rows {
		names[i] = row.Name
	}
	return names
}

// guess reports a table's unknown keys, and suggests known keys for them.
func (s State) guess(r *problem.Report, where string, t *Value, known []string, hints Hints) {
	for _, name := range slices.Sorted(maps.Keys(t.Table)) {
		if slices.Contains(known, name) {
			continue
		}
		text := "unknown key " + problem.Quote(name)
		if where != "" {
			text += " in " + where
		}
		free := slices.DeleteFunc(slices.Clone(known), func(k string) bool {
			_, set := t.Table[k]
			return set
		})
		if word := Suggestion(name, free, hints.Synonyms); word != "" {
			text += ": did you mean " + problem.Quote(word) + "?"
			s.Set[word], s.Bad[word] = true, true
		} else if place := hints.Elsewhere(name, where); place != "" {
			text += ": " + place
		}
		r.Add(t.Table[name].KeyAt, "%s", text)
	}
}

// KindNames are the names of value types in messages about a wrong type.
var KindNames = map[unstable.Kind]string{
	unstable.String:        "a string",
	unstable.Bool:          "a boolean",
	unstable.Float:         "a float",
	unstable.Integer:       "an integer",
	unstable.LocalDate:     "a date",
	unstable.LocalTime:     "a time",
	unstable.LocalDateTime: "a date and time",
	unstable.DateTime:      "a date and time",
	unstable.Array:         "an array",
	unstable.InlineTable:   "a table",
}
