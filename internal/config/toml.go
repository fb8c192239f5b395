package config

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// withoutBOM makes spaces of the byte order mark that some editors put in front of a file,
// so that the columns stay what they are.
func withoutBOM(data []byte) []byte {
	const bom = "\uFEFF"
	if !bytes.HasPrefix(data, []byte(bom)) {
		return data
	}
	data = bytes.Clone(data)
	copy(data, strings.Repeat(" ", len(bom)))
	return data
}

// quotationMarks are those that programs for texts make of " and '.
var quotationMarks = map[rune]string{
	'“': `"`, '”': `"`, '„': `"`, '‟': `"`, '«': `"`, '»': `"`, '″': `"`, '＂': `"`,
	'‘': "'", '’': "'", '‚': "'", '‛': "'", '`': "'", '´': "'", '′': "'",
}

var (
	// numberBy is how the parser names a byte, of which a character may have more.
	numberBy = regexp.MustCompile(`U\+[0-9A-F]{4,6}( '.*')?`)
	// unquotedValue is one that lacks its quotation marks.
	unquotedValue = regexp.MustCompile(`^[A-Za-z0-9_][^\s,\]}"'#=]*`)
	// valueOf is what a line sets a key to.
	valueOf = regexp.MustCompile(`^\s*[A-Za-z0-9_."'-]+\s*=\s*(.*)`)
)

// booleans are what others write for true and false.
var booleans = map[string]string{"true": "true", "yes": "true", "on": "true", "enabled": "true", "false": "false", "no": "false", "off": "false", "disabled": "false"}

// explainTOML is what the parser says of a place in a file that is no TOML, with what
// would be right if the mistake is a frequent one.
func explainTOML(data []byte, at pos, message string) string {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return "the file is UTF-16: save it as UTF-8"
	}
	line, rest := lineAt(data, at)
	r, size := utf8.DecodeRuneInString(rest)
	switch {
	case quotationMarks[r] != "":
		return fmt.Sprintf("%c is no quotation mark of TOML: write %s", r, quotationMarks[r])
	case size > 1 && unicode.IsSpace(r):
		return fmt.Sprintf("U+%04X is a space of another kind, such as a no-break space: write a plain one", r)
	case size > 1:
		message = numberBy.ReplaceAllLiteralString(message, fmt.Sprintf("U+%04X %q", r, string(r)))
	}
	if hint := hintTOML(line, rest, message); hint != "" {
		return "not valid TOML: " + hint
	}
	return "not valid TOML: " + oneLine(message)
}

// hintTOML is what is wrong with a line, and what would be right; "": not known.
func hintTOML(line, rest, message string) string {
	value := ""
	if m := valueOf.FindStringSubmatch(line); m != nil {
		value = m[1]
	}
	unquoted := unquotedValue.FindString(value)
	switch {
	case strings.HasSuffix(message, "at start of value") && (rest == "" || rest[0] == '#'):
		return "the value is missing behind ="
	case strings.HasSuffix(message, "at start of value") && booleans[strings.ToLower(unquoted)] != "":
		return fmt.Sprintf("%s is no value: write %s", quote(unquoted), booleans[strings.ToLower(unquoted)])
	case strings.HasPrefix(message, "invalid character at start of key") && (strings.HasPrefix(rest, ";") || strings.HasPrefix(rest, "//")):
		return "a comment begins with #"
	case message == "expected '=' after key" && strings.HasPrefix(strings.TrimLeft(rest, " \t"), ":"):
		return "= stands between a key and its value, not :"
	case message == "expected '=' after key":
		return "= must stand between a key and its value"
	case strings.HasPrefix(message, "expected newline but got") && strings.HasPrefix(rest, ","):
		return "several values are an array: write them in brackets, as in [\"a\", \"b\"]; a number has no commas"
	case strings.HasPrefix(message, "expected ',' or ']'"), strings.HasPrefix(message, "expected newline but got"),
		strings.HasSuffix(message, "at start of value"), message == "strings must be quoted":
		if item := unquotedValue.FindString(strings.TrimLeft(value, "[ \t")); item != "" {
			return "strings must be quoted: write " + quote(item)
		}
	case strings.HasPrefix(message, "expected ']]'"):
		return "a header that begins with [[ ends with ]]"
	case message == "literal strings cannot have new lines":
		return "the string does not end: ' is missing"
	}
	return ""
}

// lineAt is the line of a place, and what of it is behind the place.
func lineAt(data []byte, at pos) (line, rest string) {
	lines := newLineStarts(data)
	if at.line < 1 || at.line > len(lines) {
		return "", ""
	}
	text := data[lines[at.line-1]:]
	if end := bytes.IndexByte(text, '\n'); end >= 0 {
		text = text[:end]
	}
	text = bytes.TrimSuffix(text, []byte("\r"))
	return string(text), string(text[min(max(at.column-1, 0), len(text)):])
}
