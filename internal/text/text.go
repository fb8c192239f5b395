// Package text limits the length of texts from other programs, such as errors about a
// file or answers of a daemon, and removes characters that have an effect on a terminal.
package text

import "strings"

// Cut returns s, or its beginning and an ellipsis if s has more than most bytes. It does
// not split characters.
func Cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
