package ctl

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [TUNNEL|TUNNEL/PEER]",
		Short: "Show the state, traffic and drops of tunnels and peers",
		Long: `Shows all tunnels, one tunnel, or one peer. A tunnel with many peers has a line for each of them, and below it what is missing;
name a peer as TUNNEL/PEER to see its details. Drops are counted by reason (docs/drops.md).`,
		Args:              takes(0, 1),
		ValidArgsFunction: completePeer,
	}
	dial, asJSON := socketFlag(cmd), jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c := dial()
		s, err := requestStatus(cmd.Context(), c, strings.Join(args, ""))
		if err != nil {
			return fail(err)
		}
		out := cmd.OutOrStdout()
		if *asJSON {
			return fail(printJSON(out, s))
		}
		w := bufio.NewWriter(out)
		_ = writeLines(w, colours(out), report(s, time.Now())) // Flush returns the error
		return fail(w.Flush())
	}
	return cmd
}

// requestStatus requests the status of everything, of one tunnel, or of a peer as if it were the
// only one of its tunnel.
func requestStatus(ctx context.Context, c *client.Client, what string) (api.Status, error) {
	tunnel, peer, one := strings.Cut(what, "/")
	s, err := c.Status(ctx, tunnel)
	if err != nil || !one {
		return s, err
	}
	if len(s.Tunnels) != 1 {
		return s, fmt.Errorf("there is no %q: name a peer as TUNNEL/PEER", what)
	}
	t := &s.Tunnels[0]
	i := slices.IndexFunc(t.Peers, func(p api.PeerStatus) bool { return p.Peer == peer })
	if i < 0 {
		return s, fmt.Errorf("tunnel %s has no peer %q: sixfourctl status %s shows its peers", tunnel, peer, tunnel)
	}
	t.PeerStatus, t.Peers = t.Peers[i], nil
	s.Stray, s.UnknownSources, s.Gateway = api.Traffic{}, nil, nil
	return s, nil
}
