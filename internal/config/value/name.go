package value

import (
	"strings"
	"unicode"
)

// MaxName is IFNAMSIZ less the NUL at the end.
const MaxName = 15

// ValidName reports whether the kernel uses a name unchanged: it refuses some
// characters, and "%" makes the name a pattern.
func ValidName(name string) bool {
	return !strings.ContainsAny(name, "/:%") &&
		!strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
}
