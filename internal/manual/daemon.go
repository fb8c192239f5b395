package main

import (
	"fmt"
	"strings"

	"sixfour/internal/config/keys"
	"sixfour/internal/usage"
)

// daemonPage is sixfourd(8).
func daemonPage() []byte {
	p := newPage("sixfourd", "8", "Operating sixfour")
	p.section("NAME")
	p.lines("sixfourd - " + usage.DaemonShort)
	p.section("SYNOPSIS")
	fmt.Fprintf(&p.b, "%s %s\n", strong("sixfourd"), plain(usage.DaemonSynopsis))
	p.section("DESCRIPTION")
	p.text(usage.DaemonLong)
	p.section("OPTIONS")
	for _, f := range usage.DaemonFlags {
		term := strong("-" + f.Name)
		if f.Value != "" {
			term += " " + slanted(f.Value)
		}
		p.item(term, f.Meaning)
	}
	p.section("SIGNALS")
	for _, s := range usage.DaemonSignals {
		p.item(strong(s.Name), s.Meaning)
	}
	p.section("EXIT STATUS")
	for _, s := range usage.ExitStatuses {
		p.item(strong(fmt.Sprint(s.Code)), s.Daemon)
	}
	p.section("FILES")
	p.item(slanted("/etc/sixfour.toml"), "the configuration, see sixfour.toml(5)")
	p.item(slanted("/run/sixfour/control.sock"), "the control socket, which sixfourctl(1) uses; for root and the group sixfour")
	p.section("SEE ALSO")
	p.lines("sixfourctl(1), sixfour.toml(5), and the manual in " + manualDir)
	return []byte(p.b.String())
}

// configPage is sixfour.toml(5).
func configPage() []byte {
	p := newPage("sixfour.toml", "5", "Configuring sixfour")
	p.section("NAME")
	p.lines("sixfour.toml - configuration of sixfourd")
	p.section("DESCRIPTION")
	p.text(`The file is in TOML format. Unknown keys, wrong types, impossible values and contradictions are errors: sixfourd -check
prints all of them, with line and column. Durations are written like "10s" or "1m30s". A key for the address of a remote
end can also have a DNS name. Default values are in brackets; a key without brackets has no default.`)
	table := ""
	for _, k := range keys.Reference() {
		if k.Table != table {
			table = k.Table
			p.section(plain(table))
		}
		p.item(keyTerm(k), keyMeaning(k))
	}
	p.section("EXAMPLE")
	p.text("Two servers have a private network between them. This is the file of one server; in the other server's file the local and remote addresses are exchanged.")
	p.verbatim(configExample)
	p.section("SEE ALSO")
	p.lines("sixfourd(8), sixfourctl(1), and a page for each mode in " + manualDir)
	return []byte(p.b.String())
}

// configExample is a whole file.
const configExample = `[[tunnel]]
name    = "six0"
mode    = "4in6in4"
local   = "203.0.113.10"
remote  = "203.0.113.20"
local6  = "fc00::1"
remote6 = "fc00::2"
address = ["10.0.0.1/30", "fc00::1/64"]
`

// manualDir is where packages put the manual, of which manual pages are the short form.
const manualDir = "/usr/share/doc/sixfour"

func keyTerm(k keys.Key) string {
	term := strong(k.Name) + " = " + plain(text(k.Values))
	switch {
	case k.Needed == "always":
		return term + " (required)"
	case k.Needed != "":
		return term + " (required " + plain(text(k.Needed)) + ")"
	case k.Default != "" && k.Default != "[]":
		return term + " [" + plain(k.Default) + "]"
	}
	return term
}

func keyMeaning(k keys.Key) string {
	meaning := text(k.Meaning)
	if k.Modes != "" {
		meaning += " (only in " + text(k.Modes) + ")"
	}
	return meaning
}

// text is Markdown without its marks: links become their texts.
func text(s string) string {
	for {
		before, rest, ok := strings.Cut(s, "](")
		if !ok {
			return strings.ReplaceAll(s, "`", "")
		}
		open := strings.LastIndexByte(before, '[')
		_, after, closed := strings.Cut(rest, ")")
		if open < 0 || !closed {
			return s
		}
		s = before[:open] + before[open+1:] + after
	}
}
