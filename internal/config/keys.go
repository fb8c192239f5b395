package config

import (
	"maps"
	"slices"

	"github.com/pelletier/go-toml/v2/unstable"
)

// key is one row of what a table may hold: a name, and how its value gets into
// a T. Read reports what is wrong with the value and then leaves T as it is.
type key[T any] struct {
	name string
	read func(r *report, e entry, into T)
}

// tableState is what readTable found out about a table's known keys.
type tableState struct {
	set map[string]bool // in the file, or meant by a key that is misspelt there
	bad map[string]bool // set, but to nothing that can be used
}

// good reports whether each of the keys is set, and set well.
func (s tableState) good(names ...string) bool {
	for _, name := range names {
		if !s.set[name] || s.bad[name] {
			return false
		}
	}
	return true
}

// readTable reads a table's values in the order of the rows, so that a row may
// rely on those above it. Where is the table's header, "" for the whole file.
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

// guess reports a table's unknown keys, and what they were perhaps meant to be.
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

// kindNames are what a value is called that has the wrong type.
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
