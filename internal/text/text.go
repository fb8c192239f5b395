// Package text keeps texts of others, such as errors about a file or the answers of a
// daemon, within bounds, and free of what would do something on a terminal.
package text

import "strings"

// Cut is the beginning of s, with an ellipsis, where s has more than so many bytes. It
// cuts no character.
func Cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
