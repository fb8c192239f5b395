package ctl

import (
	"fmt"

	"github.com/spf13/cobra"

	"sixfour/internal/api"
)

func mtuCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mtu TUNNEL|TUNNEL/PEER|PEER",
		Short: "Find the path MTU to a peer by probing",
		Long: `Sends probes of different sizes to a peer, and prints which of them were answered. At the end it prints the path MTU, and the
tunnel MTU that follows from it. It changes nothing.`,
		Args:              takes(1, 1),
		ValidArgsFunction: completePeer,
	}
	dial, asJSON := socketFlag(cmd), jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c := dial()
		out, enc := output(cmd), jsonLines(cmd.OutOrStdout())
		result, err := c.ProbeMTU(cmd.Context(), args[0], func(p api.MTUProbe) error {
			if *asJSON {
				return enc.Encode(p)
			}
			result := "no answer"
			if p.Answered {
				result = "answered"
			}
			_, err := fmt.Fprintf(out, "%5d bytes: %s\n", p.Size, result)
			return err
		})
		if err != nil {
			return fail(err)
		}
		if *asJSON {
			return fail(enc.Encode(result))
		}
		_, err = fmt.Fprintf(out, "path MTU %d (%s), tunnel MTU %d\n", result.PathMTU, known(result.By), result.TunnelMTU)
		return fail(err)
	}
	return cmd
}
