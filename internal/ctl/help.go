package ctl

import (
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// width is the width of a screen, in columns.
const width = 80

// ofRoot is the usage template of sixfourctl itself.
const ofRoot = `Usage: {{.Name}} COMMAND [ARGUMENT...]

{{range .Commands}}{{if .IsAvailableCommand}}  {{rpad .Name .NamePadding}} {{.Short}}
{{end}}{{end}}
{{.Name}} COMMAND --help says more of each; --version prints the version.
`

// fit makes the help of sixfourctl and of its commands fit the width of a screen.
func fit(root *cobra.Command) {
	usage := strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages", "Flags.FlagUsagesWrapped 80")
	root.Long = wrap(root.Long)
	root.SetUsageTemplate(ofRoot)
	for _, c := range root.Commands() {
		c.Long = wrap(c.Long)
		c.SetUsageTemplate(usage)
	}
}

// wrap fills paragraphs. Lines that begin with a space are not changed.
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
