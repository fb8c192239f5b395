package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// value is one TOML value and its position.
type value struct {
	kind  unstable.Kind // every kind of table is an InlineTable
	at    pos
	text  string           // strings: the content; other scalars: as written
	items []*value         // arrays
	table map[string]entry // tables
}

// entry is a key of a table and its value.
type entry struct {
	name  string
	keyAt pos
	*value
}

func newTable(at pos) *value {
	return &value{kind: unstable.InlineTable, at: at, table: map[string]entry{}}
}

// parseTree returns the file as a tree. If the file is not valid TOML, it reports the
// errors and returns nil, because the meaning of the rest is then unknown.
func parseTree(r *report, data []byte) *value {
	data = slices.Clip(withoutBOM(data)) // the parser finds offsets by capacity
	b := newBuilder(r, data)
	root, broken := b.build()
	if b.excess != "" {
		r.forget()
		r.add(b.excessAt, "%s here: no configuration is like that: name the right file with -config", b.excess)
		return nil
	}
	err := toml.Unmarshal(data, new(map[string]any))
	if err == nil {
		return root
	}

	// Unmarshal checks all rules of TOML, but stops at the first violation. The builder
	// continues after the most frequent one, a key that is set twice.
	at, message := pos{1, 1}, err.Error()
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		at.line, at.column = decode.Position()
		message = strings.TrimPrefix(message, "toml: ")
	}
	if len(b.repeats) == 0 || b.repeats[0] != at {
		r.forget()
		if early, name := b.early(message); early != (pos{}) {
			r.add(early, "[[%s.%s]] stands before the [[%[1]s]] that it belongs to: put it below that", name[0], name[1])
			return nil
		}
		r.add(at, "%s", explainTOML(data, at, message))
		return nil
	}
	if broken != nil {
		return nil
	}
	return root
}

// early returns the position of a table [[a.b]] before the first [[a]]. The parser
// reports this error at another position.
func (b *builder) early(message string) (at pos, name [2]string) {
	if !strings.HasSuffix(message, "already exists as a table, but should be an array table") {
		return pos{}, name
	}
	return b.first, b.firstName
}

// builder builds the tree of a file, in which every value has its position.
type builder struct {
	report     *report
	parser     unstable.Parser
	data       []byte
	lines      lineStarts
	expression pos   // of the expression that is being read
	repeats    []pos // of expressions that set a key again
	values     int   // so far
	nesting    int   // of the value that is being read
	first      pos   // of the first [[a.b]] for which there was no [[a]]
	firstName  [2]string
	excess     string // the limit that the file exceeds; "": none
	excessAt   pos
}

// maxKeys is how many keys a table may have, because the time that Unmarshal takes grows
// with the square of it. Arrays may have any number of tables.
const maxKeys = 1000

const (
	// maxValues is how many values a file may have; a peer has about five.
	maxValues = 3 << 20
	// maxNesting is how deeply tables and arrays may be nested. The configuration needs
	// only a few levels.
	maxNesting = 16
)

func newBuilder(r *report, data []byte) *builder {
	b := &builder{report: r, data: data, lines: newLineStarts(data)}
	b.parser.Reset(data)
	return b
}

// build reads the whole file. It relies on the checks of Unmarshal: if the file breaks a
// rule other than that of repeated keys, the tree has no meaning.
func (b *builder) build() (*value, error) {
	root := newTable(pos{1, 1})
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
		at := b.lines.at(int(b.parser.Range(broken.Highlight).Offset))
		b.report.add(at, "%s", explainTOML(b.data, at, broken.Message))
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
func (b *builder) at(n *unstable.Node) pos {
	return b.lines.at(int(n.Raw.Offset))
}

// descend follows a dotted key through tables, and through the last table of each array
// of tables. It creates missing tables.
func (b *builder) descend(t *value, parts []*unstable.Node) *value {
	for _, part := range parts {
		name := string(part.Data)
		e, ok := t.table[name]
		if !ok {
			e = entry{name, b.at(part), newTable(b.at(part))}
			b.set(t, e)
		}
		t = e.value
		if t.kind == unstable.Array && len(t.items) > 0 {
			t = t.items[len(t.items)-1]
		}
		if t.kind != unstable.InlineTable {
			return newTable(b.at(part)) // a conflict, which Unmarshal reports
		}
	}
	return t
}

// appendTable creates the table of an [[a.b]] header.
func (b *builder) appendTable(root *value, parts []*unstable.Node) *value {
	last := parts[len(parts)-1]
	if outer := string(parts[0].Data); len(parts) == 2 && b.first == (pos{}) {
		if _, there := root.table[outer]; !there {
			b.first, b.firstName = b.at(parts[0]), [2]string{outer, string(last.Data)}
		}
	}
	parent := b.descend(root, parts[:len(parts)-1])
	name := string(last.Data)
	t := newTable(b.at(last))
	e, ok := parent.table[name]
	if !ok {
		e = entry{name, b.at(last), &value{kind: unstable.Array, at: b.at(last)}}
		b.set(parent, e)
	}
	if e.kind == unstable.Array {
		e.items = append(e.items, t)
	}
	return t
}

// assign sets a key of a table. If a key is repeated, the first one counts.
func (b *builder) assign(t *value, keyValue *unstable.Node) {
	parts := keyParts(keyValue)
	last := parts[len(parts)-1]
	t = b.descend(t, parts[:len(parts)-1])
	name := string(last.Data)
	if first, ok := t.table[name]; ok {
		b.repeats = append(b.repeats, b.expression)
		b.report.add(b.at(last), "key %s is already set in line %d: keep one of the two", quote(name), first.keyAt.line)
		return
	}
	start := int(last.Raw.Offset + last.Raw.Length)
	for c := b.data[start]; c == ' ' || c == '\t' || c == '='; c = b.data[start] {
		start++
	}
	b.set(t, entry{name, b.at(last), b.value(keyValue.Value(), b.lines.at(start))})
}

func (b *builder) set(t *value, e entry) {
	if len(t.table) == maxKeys {
		b.refuse(e.keyAt, "a table has more than %d keys", maxKeys)
	}
	t.table[e.name] = e
}

// count counts a value.
func (b *builder) count(at pos) {
	if b.values++; b.values > maxValues {
		b.refuse(at, "the file has more than %d values", maxValues)
	}
}

// refuse stops reading a file that exceeds a limit.
func (b *builder) refuse(at pos, format string, args ...any) {
	if b.excess == "" {
		b.excess, b.excessAt = fmt.Sprintf(format, args...), at
	}
}

// value returns the value of a node at a position.
func (b *builder) value(n *unstable.Node, at pos) *value {
	v := &value{kind: n.Kind, at: at}
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
			v.items = append(v.items, b.value(item, itemAt))
		}
	case unstable.InlineTable:
		v.table = map[string]entry{}
		for it := n.Children(); it.Next() && b.excess == ""; {
			b.assign(v, it.Node())
		}
	default:
		v.text = string(n.Data)
	}
	return v
}
