package ctl

import (
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// width is that of a screen.
const width = 80

// fit makes the help of a command and those below it fit a screen's width.
func fit(cmd *cobra.Command) {
	cmd.SetUsageTemplate(strings.ReplaceAll(cmd.UsageTemplate(), "Flags.FlagUsages", "Flags.FlagUsagesWrapped 80"))
	cmd.Long = wrap(cmd.Long)
	for _, c := range cmd.Commands() {
		c.Long = wrap(c.Long)
	}
}

// wrap breaks paragraphs anew. Lines that begin with a space stay as they are.
func wrap(s string) string {
	var b strings.Builder
	column := 0
	for line := range strings.SplitSeq(s, "\n") {
		if line == "" || strings.HasPrefix(line, " ") {
			if column > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(line + "\n")
			column = 0
			continue
		}
		for word := range strings.FieldsSeq(line) {
			n := utf8.RuneCountInString(word)
			switch {
			case column > 0 && column+1+n > width:
				b.WriteByte('\n')
				column = 0
			case column > 0:
				b.WriteByte(' ')
				column++
			}
			b.WriteString(word)
			column += n
		}
	}
	return strings.TrimRight(b.String(), "\n")
}
