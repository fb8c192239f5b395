package ctl

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sixfour/internal/api"
)

func reloadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Make the daemon read its configuration again",
		Long: `Makes the daemon read its configuration again, as SIGHUP does, and prints what that changed. A file with errors, or one that
cannot be applied, changes nothing, and the errors are printed. A tunnel whose section is the same loses no packet.`,
		Args: takes(0, 0),
	}
	dial, asJSON := socketFlag(cmd), jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c := dial()
		plan, err := c.Reload(cmd.Context())
		if err != nil {
			return fail(err)
		}
		out := cmd.OutOrStdout()
		if *asJSON {
			return fail(printJSON(out, plan))
		}
		return fail(writeLines(out, colours(out), planLines(plan)))
	}
	return cmd
}

// planLines describes what a reload has done, one line for each change.
func planLines(p api.Plan) (lines [][]cell) {
	add := func(s style, what, text string) {
		lines = append(lines, []cell{{fmt.Sprintf("%-9s ", what), s}, {plain(text), none}})
	}
	for _, name := range p.Added {
		add(green, "added", name)
	}
	for _, name := range p.Removed {
		add(red, "removed", name)
	}
	for _, c := range p.Changed {
		what := "replaced"
		if c.InPlace {
			what = "changed"
		}
		add(yellow, what, c.Tunnel+": "+changes(c))
	}
	if n := len(p.Unchanged); n > 0 {
		add(none, "unchanged", firstNames(p.Unchanged))
	}
	for _, table := range p.Settings {
		add(yellow, "changed", "["+table+"]")
	}
	for _, table := range p.Restart {
		add(yellow, "later", "["+table+"] has changed: this takes effect after a restart")
	}
	return lines
}

// changes describes the changes of a tunnel.
func changes(c api.Change) string {
	var list, peers []string
	if len(c.Keys) > 0 {
		list = append(list, strings.Join(c.Keys, ", "))
	}
	for _, n := range []struct {
		n    int
		what string
	}{{c.PeersAdded, "added"}, {c.PeersRemoved, "removed"}, {c.PeersChanged, "changed"}} {
		if n.n > 0 {
			peers = append(peers, fmt.Sprintf("%d %s", n.n, n.what))
		}
	}
	if len(peers) > 0 {
		list = append(list, "peers "+strings.Join(peers, ", "))
	}
	return strings.Join(list, "; ")
}

// firstNames lists names, or only the first of many.
func firstNames(names []string) string {
	const most = 10
	if n := len(names) - most; n > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n)
	}
	return strings.Join(names, ", ")
}
