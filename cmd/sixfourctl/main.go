// Sixfourctl is the operator's tool: it shows what a running sixfourd does, and
// demonstrates one.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"sixfour/internal/version"
)

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1
	exitMisuse  = 2
)

// failure is an error of what was asked for; other errors are misuse.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(os.Stderr, "sixfourctl: %v\n", err)
	if errors.As(err, new(failure)) {
		return exitFailure
	}
	fmt.Fprintln(os.Stderr, "see sixfourctl --help")
	return exitMisuse
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "sixfourctl",
		Short:             "Show what sixfourd does",
		Version:           version.String(),
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	cmd.SetVersionTemplate("sixfourctl {{.Version}}\n")
	cmd.AddCommand(statusCommand(), demoCommand(), addressCommand())
	cmd.SetHelpCommand(&cobra.Command{Hidden: true})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("unknown command %q", strings.Join(args, " "))
		}
		return cmd.Help()
	}
	return cmd
}
