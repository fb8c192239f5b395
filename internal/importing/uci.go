package importing

import (
	"regexp"
	"strings"
)

var sectionOfUCI = regexp.MustCompile(`(?m)^[ \t]*config[ \t]+['"]?(interface|route6?|rule6?|device|globals|switch)['"]?([ \t]|\r?$)`)

func isUCI(data []byte) bool { return sectionOfUCI.Match(data) }

// uciSection is a section of a configuration of OpenWrt.
type uciSection struct {
	kind, name string
	line       int
	resume     func() // makes its file the current one
	options    []option
}

func (s *uciSection) get(key string) string {
	for i := len(s.options) - 1; i >= 0; i-- { // the last value holds
		if s.options[i].key == key {
			return s.options[i].value
		}
	}
	return ""
}

// all returns the items of a list, and the words of an option.
func (s *uciSection) all(key string) (values []option) {
	for _, o := range s.options {
		if o.key == key {
			for word := range strings.FieldsSeq(o.value) {
				values = append(values, option{key, word, o.line})
			}
		}
	}
	return values
}

// uciWords splits a line into words: parts of a word may be quoted, and "\" quotes one
// character.
func uciWords(line string) (words []string, ok bool) {
	var b strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && quote != '\'' && i+1 < len(line):
			i++
			b.WriteByte(line[i])
			in = true
		case quote != 0:
			b.WriteByte(c)
		case c == '"' || c == '\'':
			quote, in = c, true
		case c == '#' && !in:
			return words, true
		case c == ' ' || c == '\t' || c == '\r':
			if in {
				words = append(words, b.String())
				b.Reset()
			}
			in = false
		default:
			b.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, b.String())
	}
	return words, quote == 0
}

// readUCI reads /etc/config/network of OpenWrt.
func readUCI(r *reader, f File) error {
	var now *uciSection
	for i := range r.Lines() {
		words, ok := uciWords(r.Lines()[i])
		switch {
		case !ok:
			r.Skip(i+1, "a quote is not closed")
		case len(words) == 0:
		case words[0] == "config" && (len(words) == 2 || len(words) == 3):
			now = r.addSection(words[1], strings.Join(words[2:], ""), i+1)
		case (words[0] == "option" || words[0] == "list") && len(words) == 3 && now != nil:
			now.options = append(now.options, option{words[1], words[2], i + 1})
		case words[0] == "package":
		default:
			r.Skip(i+1, "it is no line of uci")
		}
	}
	return nil
}

func (r *reader) addSection(kind, name string, line int) *uciSection {
	s := &uciSection{kind: kind, name: name, line: line, resume: r.Resume()}
	r.uci = append(r.uci, s)
	return s
}

// readUCICommand reads the arguments of the program uci.
func (r *reader) readUCICommand(args []string, line int) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		args = args[1:]
	}
	if len(args) < 2 || args[0] != "set" && args[0] != "add_list" {
		if len(args) > 0 && (args[0] == "commit" || args[0] == "delete") {
			return
		}
		r.Skip(line, reasonOther)
		return
	}
	path, value, ok := strings.Cut(args[1], "=")
	parts := strings.Split(path, ".")
	if !ok || parts[0] != "network" || len(parts) < 2 || len(parts) > 3 {
		r.Skip(line, reasonOther)
		return
	}
	if len(parts) == 2 {
		r.addSection(value, parts[1], line)
		return
	}
	if words, ok := uciWords(value); ok && len(words) > 0 {
		value = strings.Join(words, " ")
	}
	for i := len(r.uci) - 1; i >= 0; i-- {
		if s := r.uci[i]; s.name == parts[1] {
			s.options = append(s.options, option{parts[2], value, line})
			return
		}
	}
	r.Skip(line, "there is no section "+parts[1])
}
