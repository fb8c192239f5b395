package ctl

import (
	"encoding/json"
	"io"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"sixfour/internal/control"
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

// printJSON prints a value for programs that read it whole.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// plain is a text of the daemon without what would move a terminal's cursor.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}
