package host

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sixfour/internal/config/problem"
	"sixfour/internal/configfile"
)

// Note says why lines of the input are not in the result, or only in part.
type Note struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"` // from 1; 0: none in particular
	Text   string `json:"text,omitempty"` // of the line
	Reason string `json:"reason"`
}

// Result is a configuration file, and what it does not have of the input.
type Result struct {
	Config  string   `json:"config"`
	Tunnels []string `json:"tunnels"` // names
	Notes   []Note   `json:"notes"`
	Secrets []Secret `json:"-"`
}

// Secret is a file of mode 0600 that the configuration names.
type Secret struct{ Path, Value string }

// lineOfTunnel matches how a problem refers to another tunnel, by a line of the result.
var lineOfTunnel = regexp.MustCompile(`the tunnel of line [0-9]+`)

// Result writes the tunnels that pass the check of the configuration, and comments for
// everything else.
func (h *Host) Result() Result {
	tunnels := h.tunnels()
	var left []string // texts of tunnels that do not pass
	for {
		text, begins := h.write(tunnels)
		var found problem.List
		if _, err := configfile.Parse("", []byte(text)); len(tunnels) == 0 || err == nil {
			return h.finished(text, tunnels, left)
		} else if !errors.As(err, &found) {
			panic(err) // Parse has no other errors
		}
		bad := map[int]string{} // first problem of each tunnel, by its index
		for _, p := range found {
			i, _ := slices.BinarySearch(begins, p.Line+1)
			if i--; i >= 0 && bad[i] == "" {
				bad[i] = lineOfTunnel.ReplaceAllStringFunc(p.Text, func(s string) string {
					var line int
					fmt.Sscanf(s, "the tunnel of line %d", &line)
					at, _ := slices.BinarySearch(begins, line+1)
					if at == 0 {
						return s
					}
					return "tunnel " + tunnels[at-1].link.Name
				})
			}
		}
		if h.gateway != "" && len(bad) == 0 { // [gateway] stands above all tunnels
			h.note(Note{Reason: "the default route through " + h.gateway + ": " + found[0].Text})
			h.gateway = ""
			continue
		}
		var rest []tunnel
		for i, t := range tunnels {
			if why, ok := bad[i]; ok {
				h.about(t.link, "this tunnel is a comment below, because "+why)
				left = append(left, t.text())
				if t.link.Name == h.gateway {
					h.gateway = ""
				}
			} else {
				rest = append(rest, t)
			}
		}
		if len(rest) == len(tunnels) { // a problem of no tunnel: a result without it is impossible
			h.note(Note{Reason: found[0].Text})
			rest = nil
		}
		tunnels = rest
	}
}

// write returns the configuration, and the line at which each tunnel begins.
func (h *Host) write(tunnels []tunnel) (text string, begins []int) {
	var b strings.Builder
	lines := 1
	add := func(s string) {
		b.WriteString(s)
		lines += strings.Count(s, "\n")
	}
	if h.gateway != "" {
		add("[gateway]\ndefault_route = true\n")
		if len(tunnels) > 1 {
			add("tunnel = " + quote(h.gateway) + "\n")
		}
	}
	for _, t := range tunnels {
		if b.Len() > 0 {
			add("\n")
		}
		begins = append(begins, lines)
		add(t.text())
	}
	return b.String(), begins
}

// keyOrder is the order of the first keys of a tunnel; the others follow as they were set.
var keyOrder = []string{"mode", "stack", "role", "local", "remote", "local6", "remote6"}

// text returns a tunnel in TOML.
func (t *tunnel) text() string {
	var b strings.Builder
	line := func(s setting) { fmt.Fprintf(&b, "%-7s = %s\n", s.key, s.value) }
	b.WriteString("[[tunnel]]\n")
	line(setting{"name", quote(t.link.Name)})
	for _, key := range keyOrder {
		if v := t.keys.get(key); v != "" {
			line(setting{key, v})
		}
	}
	for _, s := range t.keys {
		if !slices.Contains(keyOrder, s.key) {
			line(s)
		}
	}
	if len(t.path) > 0 {
		b.WriteString("\n[[tunnel.path]]\n")
		for _, s := range t.path {
			line(s)
		}
	}
	return b.String()
}

// maxText is how much of a line of the input a comment shows, in bytes.
const maxText = 100

// finished adds the comments.
func (h *Host) finished(text string, tunnels []tunnel, left []string) Result {
	h.sortNotes()
	var b strings.Builder
	b.WriteString(text)
	for _, t := range left {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(comment(t))
	}
	if len(h.notes) > 0 {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString("# Not taken over, or only in part:\n")
	}
	for i, n := range h.notes {
		if n.Line > 0 || n.Text != "" {
			b.WriteString(comment(n.where()))
		}
		if i+1 == len(h.notes) || h.notes[i+1].Reason != n.Reason {
			b.WriteString(comment("  " + n.Reason))
		}
	}
	r := Result{Config: b.String(), Tunnels: []string{}, Notes: append([]Note{}, h.notes...), Secrets: slices.DeleteFunc(h.secrets, func(s Secret) bool { return !strings.Contains(text, quote(s.Path)) })}
	for _, t := range tunnels {
		r.Tunnels = append(r.Tunnels, t.link.Name)
	}
	return r
}

// where returns the line of a note, with its number.
func (n Note) where() string {
	text := strings.ToValidUTF8(n.Text, "?")
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	place := fmt.Sprintf("line %d", n.Line)
	if n.File != "" && n.File != "-" {
		place = fmt.Sprintf("%s:%d", n.File, n.Line)
	}
	if n.Line == 0 {
		place = n.File
	}
	return strings.TrimPrefix(place+": "+text, ": ")
}

// comment makes a comment in TOML of a text, which may have control characters.
func comment(text string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		clean := strings.Map(func(r rune) rune {
			if r < ' ' && r != '\t' || r == 0x7f || r == '\r' {
				return ' '
			}
			return r
		}, line)
		b.WriteString(strings.TrimRight("# "+clean, " ") + "\n")
	}
	return b.String()
}
