package main

import (
	"fmt"
	"slices"
	"strings"

	"sixfour/internal/config/keys"
	"sixfour/internal/usage"
)

const referenceHead = `# Reference

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

// referencePage returns docs/reference.md: the keys of the configuration, and the exit
// statuses.
func referencePage() []byte {
	var b strings.Builder
	b.WriteString(referenceHead)
	all := keys.Reference()
	for len(all) > 0 {
		table := all[0].Table
		n := slices.IndexFunc(all, func(k keys.Key) bool { return k.Table != table })
		if n < 0 {
			n = len(all)
		}
		keyTable(&b, table, all[:n])
		all = all[n:]
	}
	b.WriteString("\n## Exit statuses\n\n| | `sixfourd` | `sixfourctl` |\n| --- | --- | --- |\n")
	for _, s := range usage.ExitStatuses {
		fmt.Fprintf(&b, "| %d | %s | %s |\n", s.Code, s.Daemon, s.Operators)
	}
	return []byte(b.String())
}

// keyTable writes the keys of one table of the configuration.
func keyTable(b *strings.Builder, table string, all []keys.Key) {
	fmt.Fprintf(b, "\n### `%s`\n\n| key | values | default | meaning |\n| --- | --- | --- | --- |\n", table)
	for _, k := range all {
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
