// Package reference makes the page of the manual that lists every key, reason and
// exit status, from the code that has them.
package reference

import (
	"fmt"
	"slices"
	"strings"

	"sixfour/internal/config"
	"sixfour/internal/exit"
)

const head = `# Reference

This page is generated from the program (` + "`make docs`" + `), and a test compares the two.

- [Keys of the configuration](#keys)
- [Exit statuses](#exit-statuses)
- [Reasons why packets are dropped](drops.md)
- [Metrics](metrics.md)
- [The control socket](control.md)

## Keys

The file is in TOML format. Unknown keys, wrong types, impossible values and contradictions are errors, which are reported with line and
column. Durations are written like "10s" or "1m30s". A key for the address of a remote end can also have a DNS name.
`

// Markdown is the page.
func Markdown() string {
	var b strings.Builder
	b.WriteString(head)
	keys := config.Reference()
	for len(keys) > 0 {
		table := keys[0].Table
		n := slices.IndexFunc(keys, func(k config.Key) bool { return k.Table != table })
		if n < 0 {
			n = len(keys)
		}
		writeTable(&b, table, keys[:n])
		keys = keys[n:]
	}
	b.WriteString("\n## Exit statuses\n\n| | `sixfourd` | `sixfourctl` |\n| --- | --- | --- |\n")
	for _, s := range exit.Statuses {
		fmt.Fprintf(&b, "| %d | %s | %s |\n", s.Code, s.Daemon, s.Operators)
	}
	return b.String()
}

// writeTable writes the keys of one table of a file.
func writeTable(b *strings.Builder, table string, keys []config.Key) {
	fmt.Fprintf(b, "\n### `%s`\n\n| key | values | default | meaning |\n| --- | --- | --- | --- |\n", table)
	for _, k := range keys {
		preset := ""
		switch {
		case k.Needed != "":
			preset = "required " + k.Needed
			if k.Needed == "always" {
				preset = "required"
			}
		case k.Default != "":
			preset = "`" + k.Default + "`"
		}
		meaning := k.Meaning
		if k.Modes != "" {
			meaning += " (only in " + k.Modes + ")"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", k.Name, k.Values, preset, meaning)
	}
}
