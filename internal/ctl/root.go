// Package ctl is the command tree of sixfourctl, with one file for each command. It is a
// separate package so that the manual can be generated from it.
package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"sixfour/internal/usage"
	"sixfour/internal/version"
)

// commands are the commands of sixfourctl, in the order of its help.
var commands = []func() *cobra.Command{
	statusCommand,
	watchCommand,
	doctorCommand,
	reloadCommand,
	pingCommand,
	mtuCommand,
	pathsCommand,
	brokerCommand,
	captureCommand,
	decodeCommand,
	demoCommand,
	addressCommand,
	importCommand,
	completionCommand,
}

// failure is an error in carrying out a command; other errors are misuse.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// Main runs sixfourctl with the arguments of the process, and returns its exit status.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd, err := Root().ExecuteContextC(ctx)
	if err == nil {
		return usage.ExitOK
	}
	out := errorOutput(cmd)
	fmt.Fprintf(out, "sixfourctl: %v\n", err)
	if errors.As(err, new(failure)) {
		return usage.ExitFailure
	}
	fmt.Fprintf(out, "see %s --help\n", cmd.CommandPath())
	return usage.ExitMisuse
}

const long = `Shows what a running sixfourd does, and changes it. It connects to the control socket of the daemon (--socket PATH, default
/run/sixfour/control.sock), which root and the group sixfour may open.`

// The help shows the commands in the order of the list. Cobra has one setting for all trees, so it
// is set once and not in Root, which several goroutines may call.
func init() { cobra.EnableCommandSorting = false }

// Root returns sixfourctl with all its commands. Each call makes a new tree. Any goroutine may call it.
func Root() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "sixfourctl",
		Short:             "Show and change what a running sixfourd does",
		Long:              long,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	showVersion := cmd.Flags().BoolP("version", "v", false, "print the version")
	for _, c := range commands {
		cmd.AddCommand(c())
	}
	cmd.SetHelpCommand(&cobra.Command{Hidden: true})
	cmd.Args = cobra.ArbitraryArgs // RunE reports unknown commands
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *showVersion {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "sixfourctl %s\n", version.String())
			return err
		}
		if len(args) == 0 {
			return cmd.Help()
		}
		if args[0] == "help" {
			asked, rest, err := cmd.Find(args[1:])
			if err == nil && (len(args) == 1 || asked != cmd) {
				return asked.Help()
			}
			args = rest
		}
		return unknownCommand(cmd, args[0])
	}
	cmd.SetFlagErrorFunc(explainFlag)
	setUsage(cmd)
	return cmd
}
