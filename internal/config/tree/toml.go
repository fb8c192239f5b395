package tree

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"sixfour/internal/config/problem"
	"sixfour/internal/text"
)

// withoutBOM replaces the byte order mark that some editors put at the start of a file
// by spaces, so that columns do not change.
func withoutBOM(data []byte) []byte {
	const bom = "\uFEFF"
	if !bytes.HasPrefix(data, []byte(bom)) {
		return data
	}
	data = bytes.Clone(data)
	copy(data, strings.Repeat(" ", len(bom)))
	return data
}

// quotationMarks are the characters that word processors use for " and '.
var quotationMarks = map[rune]string{
	'“': `"`, '”': `"`, '„': `"`, '‟': `"`, '«': `"`, '»': `"`, '″': `"`, '＂': `"`,
	'‘': "'", '’': "'", '‚': "'", '‛': "'", '`': "'", '´': "'", '′': "'",
}

var (
	// numberBy matches the parser's name of a byte. A character may have several bytes.
	numberBy = regexp.MustCompile(`U\+[0-9A-F]{4,6}( '.*')?`)
	// unquotedValue matches a value without its quotation marks.
	unquotedValue = regexp.MustCompile(`^[A-Za-z0-9_][^\s,\]}"'#=]*`)
	// valueOf matches the value to which a line sets a key.
	valueOf = regexp.MustCompile(`^\s*[A-Za-z0-9_."'-]+\s*=\s*(.*)`)
)

// booleans are the words of other formats for true and false.
var booleans = map[string]string{"true": "true", "yes": "true", "on": "true", "enabled": "true", "false": "false", "no": "false", "off": "false", "disabled": "false"}

// explainTOML returns the parser's message about a position in a file that is not valid
// TOML, with a correction if the mistake is a frequent one.
func explainTOML(data []byte, at problem.Pos, message string) string {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return "the file is UTF-16: save it as UTF-8"
	}
	line, rest := lineAt(data, at)
	r, size := utf8.DecodeRuneInString(rest)
	switch {
	case quotationMarks[r] != "":
		return fmt.Sprintf("%c is not a quotation mark in TOML: write %s", r, quotationMarks[r])
	case size > 1 && unicode.IsSpace(r):
		return fmt.Sprintf("U+%04X is a special space, such as a no-break space: write a plain one", r)
	case size > 1:
		message = numberBy.ReplaceAllLiteralString(message, fmt.Sprintf("U+%04X %q", r, string(r)))
	}
	if hint := hintTOML(line, rest, message); hint != "" {
		return "not valid TOML: " + hint
	}
	return "not valid TOML: " + text.Clean(message)
}

// hintTOML says what is wrong with a line, and how to correct it. It returns "" if it
// does not know.
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
		return fmt.Sprintf("%s is no value: write %s", problem.Quote(unquoted), booleans[strings.ToLower(unquoted)])
	case strings.HasPrefix(message, "invalid character at start of key") && (strings.HasPrefix(rest, ";") || strings.HasPrefix(rest, "//")):
		return "a comment begins with #"
	case message == "expected '=' after key" && strings.HasPrefix(strings.TrimLeft(rest, " \t"), ":"):
		return "a key and its value are separated by =, not by :"
	case message == "expected '=' after key":
		return "= must stand between a key and its value"
	case strings.HasPrefix(message, "expected newline but got") && strings.HasPrefix(rest, ","):
		return "several values are an array: write them in brackets, as in [\"a\", \"b\"]; a number has no commas"
	case strings.HasPrefix(message, "expected ',' or ']'"), strings.HasPrefix(message, "expected newline but got"),
		strings.HasSuffix(message, "at start of value"), message == "strings must be quoted":
		if item := unquotedValue.FindString(strings.TrimLeft(value, "[ \t")); item != "" {
			return "strings must be quoted: write " + problem.Quote(item)
		}
	case strings.HasPrefix(message, "expected ']]'"):
		return "a header that begins with [[ ends with ]]"
	case message == "literal strings cannot have new lines":
		return "the string does not end: ' is missing"
	}
	return ""
}

// lineAt returns the line of a position, and the part of it from the position on.
func lineAt(data []byte, at problem.Pos) (line, rest string) {
	lines := problem.NewLineStarts(data)
	if at.Line < 1 || at.Line > len(lines) {
		return "", ""
	}
	text := data[lines[at.Line-1]:]
	if end := bytes.IndexByte(text, '\n'); end >= 0 {
		text = text[:end]
	}
	text = bytes.TrimSuffix(text, []byte("\r"))
	return string(text), string(text[min(max(at.Column-1, 0), len(text)):])
}
