package ctl

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"sixfour/internal/demo"
)

func demoCommand() *cobra.Command {
	var asJSON, ladder, broker bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Try a tunnel between two network namespaces, and measure it",
		Long: `Makes two network namespaces with a daemon each, sends traffic through their tunnel, and prints measurements. It needs
only root, and removes everything at the end.

With --ladder, the tunnel has three paths: protocol 41, UDP (fou) and HTTPS. A provider between the namespaces drops
protocol 41, then all UDP, too, and then nothing any more, while packets are sent. It draws which path carried them.

With --broker, there are a tunnel broker and five clients behind a NAT, each with another protocol. Each gets its tunnel,
and pings a host behind the broker.`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			program, err := findDaemon()
			if err != nil {
				return failure{err}
			}
			may, status, err := demo.Prepare()
			if err != nil {
				return failure{fmt.Errorf("demo: %w", err)}
			}
			if !may {
				os.Exit(status)
			}
			var w io.Writer = os.Stdout
			if asJSON {
				w = os.Stderr // the explanations must not mix with the JSON
			}
			run := func() (any, error) { return demo.Run(cmd.Context(), w, program) }
			if ladder {
				run = func() (any, error) { return demo.RunLadder(cmd.Context(), w, program) }
			}
			if broker {
				run = func() (any, error) { return demo.RunBroker(cmd.Context(), w, program) }
			}
			res, err := run()
			if err != nil {
				return failure{fmt.Errorf("demo: %w", err)}
			}
			if asJSON {
				return fail(printJSON(os.Stdout, res))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&ladder, "ladder", false, "show a tunnel with several paths, and filters on some")
	cmd.Flags().BoolVar(&broker, "broker", false, "show a tunnel broker, and a client of each protocol behind a NAT")
	cmd.MarkFlagsMutuallyExclusive("ladder", "broker")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the measurements as JSON, and the report to standard error")
	return cmd
}

// findDaemon looks for sixfourd where it is built or installed: next to this program, in the
// sbin directory next to this program's directory, or in the PATH.
func findDaemon() (string, error) {
	self, err := os.Executable()
	if err == nil {
		dir := filepath.Dir(self)
		for _, path := range []string{filepath.Join(dir, "sixfourd"), filepath.Join(dir, "..", "sbin", "sixfourd")} {
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
		}
	}
	path, err := exec.LookPath("sixfourd")
	if err != nil {
		return "", fmt.Errorf("find sixfourd: %w: build it (make build), or copy it into the directory of sixfourctl", err)
	}
	return path, nil
}
