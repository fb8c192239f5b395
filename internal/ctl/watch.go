package ctl

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sixfour/internal/api"
)

func watchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch [TUNNEL]",
		Short: "Show state, traffic and events, updated every second",
		Long: `Shows the tunnels with their rates, and below them the latest events, updated every second, until q or Ctrl-C. If the output is
not a terminal, and with --json, it prints only events, one per line, beginning with the last hundred. If the daemon restarts, it
waits until the daemon runs again.`,
		Args:              takes(0, 1),
		ValidArgsFunction: completeTunnel,
	}
	dial, asJSON := socketFlag(cmd), jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c := dial()
		tunnel := strings.Join(args, "")
		if _, err := c.Status(cmd.Context(), tunnel); err != nil { // report an error before following
			return fail(err)
		}
		out := cmd.OutOrStdout()
		tty, live := terminal(out)
		if live && !*asJSON {
			return fail(watchScreen(cmd.Context(), c, tunnel, tty, colours(out)))
		}
		messages, lines, enc := errorOutput(cmd), output(cmd), jsonLines(out)
		f := &follower{client: c, tunnel: tunnel, notify: func(what string) { fmt.Fprintf(messages, "sixfourctl: %s\n", what) }}
		return fail(f.run(cmd.Context(), func(ev api.Event) error {
			if *asJSON {
				return enc.Encode(ev)
			}
			_, err := io.WriteString(lines, eventLine(ev, time.RFC3339)+"\n")
			return err
		}))
	}
	return cmd
}

// eventLine formats an event.
func eventLine(ev api.Event, layout string) string {
	who := ev.Tunnel
	if ev.Peer != "" {
		who += "/" + ev.Peer
	}
	return plain(strings.Join(strings.Fields(fmt.Sprintf("%s %s %s: %s", ev.At.Local().Format(layout), who, ev.Kind, ev.Text)), " "))
}
