package ctl

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"sixfour/internal/control"
	"sixfour/internal/text"
)

const defaultSocket = "/run/sixfour/control.sock"

// fail makes an error one of what was asked for, and not of how it was asked.
func fail(err error) error {
	if err == nil {
		return nil
	}
	return failure{err}
}

// socketFlag gives a command --socket, and the client that it names. Whoever takes the
// client closes it.
func socketFlag(cmd *cobra.Command) func() *control.Client {
	path := cmd.Flags().String("socket", defaultSocket, "`PATH` of the daemon's control socket")
	return func() *control.Client { return control.NewClient(*path) }
}

// jsonFlag gives a command --json.
func jsonFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print JSON")
}

// output is where a command prints text, from which it removes what would do something
// on a terminal: it may come from a daemon or a file that somebody else controls. Lines
// of cells are printed by writeLines instead, which does the same and may have colours.
func output(cmd *cobra.Command) io.Writer { return text.NewWriter(cmd.OutOrStdout()) }

// errorOutput is output for messages beside the facts.
func errorOutput(cmd *cobra.Command) io.Writer { return text.NewWriter(cmd.ErrOrStderr()) }

// printJSON prints a value for programs that read it whole.
func printJSON(w io.Writer, v any) error {
	enc := jsonLines(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// jsonLines prints values one a line, with escapes for what would do something on a
// terminal.
func jsonLines(w io.Writer) *json.Encoder { return json.NewEncoder(text.NewJSONWriter(w)) }

// plain is a text of the daemon in a line: see output.
func plain(s string) string { return text.Clean(s) }
