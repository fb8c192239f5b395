package ctl

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"sixfour/internal/doctor"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/subject"
)

func doctorCommand() *cobra.Command {
	var o subject.Options
	cmd := &cobra.Command{
		Use:   "doctor [TUNNEL[/PEER]]...",
		Short: "Check everything that a tunnel needs, and show repairs",
		Long: `Checks everything that a tunnel needs, on this host and on the path to each peer:
PASS, FAIL or SKIP, and for each FAIL the command or line that repairs it. It changes
nothing, but sends a few packets to the peers. Without names it checks all tunnels, and of each
the first ` + fmt.Sprint(subject.MaxPeers) + ` peers. Without a daemon it checks the configuration file alone.

Exit status: 0 if no check FAILs, 1 if one does, 2 wrong use.`,
		ValidArgsFunction: completePeer,
	}
	asJSON := jsonFlag(cmd)
	socket := cmd.Flags().String("socket", defaultSocket, "`PATH` of the daemon's control socket, if it is not that of the configuration")
	cmd.Flags().StringVar(&o.Config, "config", "", "`PATH` of the configuration file (default the daemon's, or /etc/sixfour.toml)")
	cmd.Flags().StringVar(&o.NATServer, "nat-server", "", "`SERVER[,SECOND]`: Teredo server to find out what NAT there is (default a tunnel's)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.Names = args
		if cmd.Flags().Changed("socket") {
			o.Socket = *socket
		}
		r, err := doctor.Run(cmd.Context(), o)
		if err != nil {
			return fail(err)
		}
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), r)
		} else {
			err = printReport(cmd.OutOrStdout(), r, colours(cmd.OutOrStdout()))
		}
		if err == nil && r.Failed > 0 {
			err = fmt.Errorf("%d of %d checks FAIL", r.Failed, len(r.Checks))
		}
		return fail(err)
	}
	return cmd
}

// verdicts maps verdicts to their styles on a terminal.
var verdicts = map[finding.Verdict]style{finding.Pass: green, finding.Fail: red, finding.Skip: yellow}

// printReport prints the results, subject by subject.
func printReport(w io.Writer, r *doctor.Report, p painter) error {
	wide := 0
	for _, c := range r.Checks {
		wide = max(wide, len(c.Check))
	}
	subject := ""
	for _, c := range r.Checks {
		if s := title(c); s != subject {
			fmt.Fprintf(w, "%s\n", plain(s))
			subject = s
		}
		fmt.Fprintf(w, "  %s  %-*s  %s\n", p.paint(verdicts[c.Verdict], string(c.Verdict)), wide, c.Check, plain(c.Finding))
		if c.Mend != "" {
			for line := range strings.SplitSeq(c.Mend, "\n") {
				fmt.Fprintf(w, "        %-*s  > %s\n", wide, "", plain(line))
			}
		}
	}
	if r.Unseen > 0 {
		fmt.Fprintf(w, "%d more peers were not checked: name them as TUNNEL/PEER\n", r.Unseen)
	}
	_, err := fmt.Fprintf(w, "%d PASS, %d FAIL, %d SKIP\n", r.Passed, r.Failed, r.Skipped)
	return err
}

// title returns the heading of a check's subject.
func title(c doctor.Result) string {
	switch c.Subject {
	case doctor.OfTunnel:
		return "tunnel " + c.Tunnel
	case doctor.OfPeer:
		return "peer " + c.Tunnel + "/" + c.Peer
	case doctor.OfBroker:
		return "the broker"
	case doctor.OfLISP:
		return "the map server"
	case doctor.OfNAT:
		return "the NAT"
	case doctor.OfGateway:
		return "the path to the internet"
	}
	return "this host"
}
