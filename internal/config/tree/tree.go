// Package tree reads a file in TOML into a tree of values with their positions, and the
// known keys of each table.
package tree

import (
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"

	"sixfour/internal/config/problem"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Kind is the type of a value.
type Kind = unstable.Kind

// The types that a configuration has.
const (
	String  = unstable.String
	Bool    = unstable.Bool
	Integer = unstable.Integer
	Array   = unstable.Array
	Table   = unstable.InlineTable // every kind of table
)

// Value is one TOML value and its position.
type Value struct {
	Kind  Kind
	At    problem.Pos
	Text  string           // strings: the content; other scalars: as written
	Items []*Value         // arrays
	Table map[string]Entry // tables
}

// Entry is a key of a table and its value.
type Entry struct {
	Name  string
	KeyAt problem.Pos
	*Value
}

func newTable(at problem.Pos) *Value {
	return &Value{Kind: unstable.InlineTable, At: at, Table: map[string]Entry{}}
}

// Parse returns the file as a tree. If the file is not valid TOML, it reports the
// errors and returns nil, because the meaning of the rest is then unknown.
func Parse(r *problem.Report, data []byte) *Value {
	data = slices.Clip(withoutBOM(data)) // the parser finds offsets by capacity
	b := newBuilder(r, data)
	root, broken := b.build()
	if b.excess != "" {
		r.Forget()
		r.Add(b.excessAt, "%s here, so that it cannot be a configuration: name the right file with -config", b.excess)
		return nil
	}
	err := toml.Unmarshal(data, new(map[string]any))
	if err == nil {
		return root
	}

	// Unmarshal checks all rules of TOML, but stops at the first violation. The builder
	// continues after the most frequent one, a key that is set twice.
	at, message := problem.Pos{Line: 1, Column: 1}, err.Error()
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		at.Line, at.Column = decode.Position()
		message = strings.TrimPrefix(message, "toml: ")
	}
	if len(b.repeats) == 0 || b.repeats[0] != at {
		r.Forget()
		if early, name := b.early(message); early != (problem.Pos{}) {
			r.Add(early, "[[%s.%s]] stands before the [[%[1]s]] that it belongs to: put it below that", name[0], name[1])
			return nil
		}
		r.Add(at, "%s", explainTOML(data, at, message))
		return nil
	}
	if broken != nil {
		return nil
	}
	return root
}

// early returns the position of a table [[a.b]] before the first [[a]]. The parser
// reports this error at another position.
func (b *builder) early(message string) (at problem.Pos, name [2]string) {
	if !strings.HasSuffix(message, "already exists as a table, but should be an array table") {
		return problem.Pos{}, name
	}
	return b.first, b.firstName
}

// builder builds the tree of a file, in which every value has its position.
type builder struct {
	report     *problem.Report
	parser     unstable.Parser
	data       []byte
	lines      problem.LineStarts
	expression problem.Pos   // of the expression that is being read
	repeats    []problem.Pos // of expressions that set a key again
	values     int           // so far
	nesting    int           // of the value that is being read
	first      problem.Pos   // of the first [[a.b]] for which there was no [[a]]
	firstName  [2]string
	excess     string // the limit that the file exceeds; "": none
	excessAt   problem.Pos
}

// maxKeys is how many keys a table may have, because the time that Unmarshal takes grows
// with the square of it. Arrays may have any number of tables.
const maxKeys = 1000

const (
	// MaxValues is how many values a file may have; a peer has about five.
	MaxValues = 3 << 20
	// maxNesting is how deeply tables and arrays may be nested. The configuration needs
	// only a few levels.
	maxNesting = 16
)

func newBuilder(r *problem.Report, data []byte) *builder {
	b := &builder{report: r, data: data, lines: problem.NewLineStarts(data)}
	b.parser.Reset(data)
	return b
}

// build reads the whole file. It relies on the checks of Unmarshal: if the file breaks a
// rule other than that of repeated keys, the tree has no meaning.
func (b *builder) build() (*Value, error) {
	root := newTable(problem.Pos{Line: 1, Column: 1})
	current := root
	for b.excess == "" && b.parser.NextExpression() {
		e := b.parser.Expression()
		parts := keyParts(e)
		b.expression = b.at(parts[0])
		if e.Kind != unstable.KeyValue {
			b.count(b.expression)
		}
		if len(parts) > maxNesting {
			b.refuse(b.expression, "a key has more than %d parts", maxNesting)
			break
		}
		switch e.Kind {
		case unstable.KeyValue:
			b.assign(current, e)
		case unstable.Table:
			current = b.descend(root, parts)
		case unstable.ArrayTable:
			current = b.appendTable(root, parts)
		}
	}
	err := b.parser.Error()
	var broken *unstable.ParserError
	if errors.As(err, &broken) {
		at := b.lines.At(int(b.parser.Range(broken.Highlight).Offset))
		b.report.Add(at, "%s", explainTOML(b.data, at, broken.Message))
	}
	return root, err
}

func keyParts(e *unstable.Node) []*unstable.Node {
	var parts []*unstable.Node
	for it := e.Key(); it.Next(); {
		parts = append(parts, it.Node())
	}
	return parts
}

// at returns the position of a node. Arrays do not have one.
func (b *builder) at(n *unstable.Node) problem.Pos {
	return b.lines.At(int(n.Raw.Offset))
}

// descend follows a dotted key through tables, and through the last table of each array
// of tables. It creates missing tables.
func (b *builder) descend(t *Value, parts []*unstable.Node) *Value {
	for _, part := range parts {
		name := string(part.Data)
		e, ok := t.Table[name]
		if !ok {
			e = Entry{name, b.at(part), newTable(b.at(part))}
			b.set(t, e)
		}
		t = e.Value
		if t.Kind == unstable.Array && len(t.Items) > 0 {
			t = t.Items[len(t.Items)-1]
		}
		if t.Kind != unstable.InlineTable {
			return newTable(b.at(part)) // a conflict, which Unmarshal reports
		}
	}
	return t
}

// appendTable creates the table of an [[a.b]] header.
func (b *builder) appendTable(root *Value, parts []*unstable.Node) *Value {
	last := parts[len(parts)-1]
	if outer := string(parts[0].Data); len(parts) == 2 && b.first == (problem.Pos{}) {
		if _, there := root.Table[outer]; !there {
			b.first, b.firstName = b.at(parts[0]), [2]string{outer, string(last.Data)}
		}
	}
	parent := b.descend(root, parts[:len(parts)-1])
	name := string(last.Data)
	t := newTable(b.at(last))
	e, ok := parent.Table[name]
	if !ok {
		e = Entry{name, b.at(last), &Value{Kind: unstable.Array, At: b.at(last)}}
		b.set(parent, e)
	}
	if e.Kind == unstable.Array {
		e.Items = append(e.Items, t)
	}
	return t
}

// assign sets a key of a table. If a key is repeated, the first one counts.
func (b *builder) assign(t *Value, keyValue *unstable.Node) {
	parts := keyParts(keyValue)
	last := parts[len(parts)-1]
	t = b.descend(t, parts[:len(parts)-1])
	name := string(last.Data)
	if first, ok := t.Table[name]; ok {
		b.repeats = append(b.repeats, b.expression)
		b.report.Add(b.at(last), "key %s is already set in line %d: keep one of the two", problem.Quote(name), first.KeyAt.Line)
		return
	}
	start := int(last.Raw.Offset + last.Raw.Length)
	for c := b.data[start]; c == ' ' || c == '\t' || c == '='; c = b.data[start] {
		start++
	}
	b.set(t, Entry{name, b.at(last), b.value(keyValue.Value(), b.lines.At(start))})
}

func (b *builder) set(t *Value, e Entry) {
	if len(t.Table) == maxKeys {
		b.refuse(e.KeyAt, "a table has more than %d keys", maxKeys)
	}
	t.Table[e.Name] = e
}

// count counts a value.
func (b *builder) count(at problem.Pos) {
	if b.values++; b.values > MaxValues {
		b.refuse(at, "the file has more than %d values", MaxValues)
	}
}

// refuse stops reading a file that exceeds a limit.
func (b *builder) refuse(at problem.Pos, format string, args ...any) {
	if b.excess == "" {
		b.excess, b.excessAt = fmt.Sprintf(format, args...), at
	}
}

// value returns the value of a node at a position.
func (b *builder) value(n *unstable.Node, at problem.Pos) *Value {
	v := &Value{Kind: n.Kind, At: at}
	b.count(at)
	if b.nesting++; b.nesting > maxNesting {
		b.refuse(at, "arrays and tables are nested more than %d levels deep", maxNesting)
	}
	defer func() { b.nesting-- }()
	if b.excess != "" {
		return v
	}
	switch n.Kind {
	case unstable.Array:
		for it := n.Children(); it.Next() && b.excess == ""; {
			item := it.Node()
			itemAt := at
			if item.Kind != unstable.Array {
				itemAt = b.at(item)
			}
			v.Items = append(v.Items, b.value(item, itemAt))
		}
	case unstable.InlineTable:
		v.Table = map[string]Entry{}
		for it := n.Children(); it.Next() && b.excess == ""; {
			b.assign(v, it.Node())
		}
	default:
		v.Text = string(n.Data)
	}
	return v
}

// Sum returns a hash of the value without its position.
func (v *Value) Sum() uint64 {
	var h maphash.Hash
	h.SetSeed(sumSeed)
	v.write(&h)
	return h.Sum64()
}

var sumSeed = maphash.MakeSeed()

func (v *Value) write(h *maphash.Hash) {
	maphash.WriteComparable(h, v.Kind)
	maphash.WriteComparable(h, v.Text)
	maphash.WriteComparable(h, len(v.Items)+len(v.Table))
	for _, item := range v.Items {
		item.write(h)
	}
	for _, name := range slices.Sorted(maps.Keys(v.Table)) {
		maphash.WriteComparable(h, name)
		v.Table[name].write(h)
	}
}
