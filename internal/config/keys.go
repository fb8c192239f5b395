package config

import (
	"maps"
	"slices"

	"github.com/pelletier/go-toml/v2/unstable"
)

// key is one key of a table: its name, and how its value is stored in a T. read reports
// an invalid value and then leaves T unchanged.
type key[T any] struct {
	name string
	read func(r *report, e entry, into T)
}

// tableState is what readTable found about a table's known keys.
type tableState struct {
	set map[string]bool // set in the file, possibly misspelt
	bad map[string]bool // set to an invalid value
}

// good reports whether each of the keys is set to a valid value.
func (s tableState) good(names ...string) bool {
	for _, name := range names {
		if !s.set[name] || s.bad[name] {
			return false
		}
	}
	return true
}

// readTable reads a table's values in the order of the rows, so that a row may depend on
// those above it. where is the table's header, or "" for the whole file.
func readTable[T any](r *report, where string, t *value, rows []key[T], into T) tableState {
	s := tableState{set: map[string]bool{}, bad: map[string]bool{}}
	found := 0
	for _, row := range rows {
		e, ok := t.table[row.name]
		if !ok {
			continue
		}
		found++
		before := r.found
		row.read(r, e, into)
		s.set[row.name] = true
		s.bad[row.name] = r.found > before
	}
	if found < len(t.table) {
		s.guess(r, where, t, rowNames(rows))
	}
	return s
}

func rowNames[T any](rows []key[T]) []string {
	names := make([]string, len(rows))
	for i, row := range rows {
		names[i] = row.name
	}
	return names
}

// guess reports a table's unknown keys, and suggests known keys for them.
func (s tableState) guess(r *report, where string, t *value, known []string) {
	for _, name := range slices.Sorted(maps.Keys(t.table)) {
		if slices.Contains(known, name) {
			continue
		}
		problem := "unknown key " + quote(name)
		if where != "" {
			problem += " in " + where
		}
		free := slices.DeleteFunc(slices.Clone(known), func(k string) bool {
			_, set := t.table[k]
			return set
		})
		if word := meant(name, free, otherNames); word != "" {
			problem += ": did you mean " + quote(word) + "?"
			s.set[word], s.bad[word] = true, true
		} else if place := elsewhere(name, where); place != "" {
			problem += ": " + place
		}
		r.add(t.table[name].keyAt, "%s", problem)
	}
}

// kindNames are the names of value types in messages about a wrong type.
var kindNames = map[unstable.Kind]string{
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
