package ctl

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sixfour/internal/control/client"
)

// shells are the supported shells.
var shells = []string{"bash", "zsh", "fish"}

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion " + strings.Join(shells, "|"),
		Short: "Print the completion script of a shell",
		Long: `Prints the script with which a shell completes the commands of sixfourctl, their flags, and the names of tunnels and peers.
The script asks the running daemon for these names. The packages have installed it already.`,
		Example: `  . <(sixfourctl completion bash)
  sixfourctl completion zsh > "${fpath[1]}/_sixfourctl"
  sixfourctl completion fish > ~/.config/fish/completions/sixfourctl.fish`,
		Args:      takes(1, 1),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			return completion(cmd.Root(), cmd.OutOrStdout(), args[0])
		},
	}
}

// Completion writes the completion script for bash, zsh or fish.
func Completion(w io.Writer, shell string) error { return completion(Root(), w, shell) }

func completion(root *cobra.Command, w io.Writer, shell string) error {
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(w, true)
	case "zsh":
		return root.GenZshCompletion(w)
	case "fish":
		return root.GenFishCompletion(w, true)
	}
	return fmt.Errorf("there is no completion for %q: choose %s", shell, strings.Join(shells, ", "))
}

// completionTimeout limits how long completion waits for the daemon.
const completionTimeout = 2 * time.Second

// completeTunnel completes the only argument of a command with tunnel names.
func completeTunnel(cmd *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return complete(cmd, args, begin, false)
}

// completePeer completes the only argument with tunnel names and TUNNEL/PEER.
func completePeer(cmd *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return complete(cmd, args, begin, true)
}

func complete(cmd *cobra.Command, args []string, begin string, peers bool) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	socket, err := cmd.Flags().GetString("socket")
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	s, err := client.Status(ctx, socket)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // the command itself reports the error
	}
	var names []cobra.Completion
	add := func(name, what string) {
		if strings.HasPrefix(name, begin) && name == plain(name) { // other names could change the command line
			names = append(names, cobra.CompletionWithDesc(name, plain(what)))
		}
	}
	for _, t := range s.Tunnels {
		add(t.Name, fmt.Sprintf("%s, %s", t.Mode, t.State.Phase))
		for _, p := range t.Peers {
			if peers {
				add(t.Name+"/"+p.Peer, string(p.State.Phase))
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
