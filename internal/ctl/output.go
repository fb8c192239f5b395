package ctl

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"sixfour/internal/control/client"
	"sixfour/internal/text"
)

const defaultSocket = "/run/sixfour/control.sock"

// fail marks an error as a failure of the request, not of the command line.
func fail(err error) error {
	if err == nil {
		return nil
	}
	return failure{err}
}

// socketFlag adds --socket to a command, and returns a function that makes a client for it.
// The caller of that function must close the client.
func socketFlag(cmd *cobra.Command) func() *client.Client {
	path := cmd.Flags().String("socket", defaultSocket, "`PATH` of the daemon's control socket")
	return func() *client.Client { return client.New(*path) }
}

// jsonFlag adds --json to a command.
func jsonFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print JSON")
}

// output is where a command prints text. It removes terminal control characters: the text
// may come from a daemon or a file that others control. Lines of cells are printed with
// writeLines instead, which also removes them, but adds colours.
func output(cmd *cobra.Command) io.Writer { return text.NewWriter(cmd.OutOrStdout()) }

// errorOutput is like output, for messages on standard error.
func errorOutput(cmd *cobra.Command) io.Writer { return text.NewWriter(cmd.ErrOrStderr()) }

// printJSON prints one indented JSON value.
func printJSON(w io.Writer, v any) error {
	enc := jsonLines(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// jsonLines prints JSON values, one per line. Terminal control characters are escaped.
func jsonLines(w io.Writer) *json.Encoder { return json.NewEncoder(text.NewJSONWriter(w)) }

// plain removes control characters from one line of the daemon's text: see output.
func plain(s string) string { return text.Clean(s) }
