package ctl

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sixfour/internal/engine"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [TUNNEL]",
		Short: "Each tunnel: state, endpoints, traffic, drops by reason",
		Args:  cobra.MaximumNArgs(1),
	}
	dial, asJSON := socketFlag(cmd), jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c := dial()
		defer c.Close()
		s, err := c.Status(cmd.Context(), strings.Join(args, ""))
		if err != nil {
			return fail(err)
		}
		if *asJSON {
			return fail(printJSON(cmd.OutOrStdout(), s))
		}
		printStatus(cmd.OutOrStdout(), s, time.Now())
		return nil
	}
	return cmd
}

func printStatus(w io.Writer, s engine.Status, now time.Time) {
	for _, t := range s.Tunnels {
		fmt.Fprintf(w, "%s  %s  %s for %v\n", t.Name, t.Mode, t.State.Phase, now.Sub(t.State.Since).Round(time.Second))
		if t.State.Detail != "" {
			fmt.Fprintf(w, "  waits for  %s\n", t.State.Detail)
		}
		switch {
		case len(t.Peers) > 0:
			fmt.Fprintf(w, "  outer      %s > %d peers, through %s\n", t.State.Local, len(t.Peers), way(t.State.IO))
		case t.State.Local != "":
			fmt.Fprintf(w, "  outer      %s > %s, path MTU %d (%s), through %s\n", t.State.Local, t.State.Remote, t.State.PathMTU, known(t.State.PathMTUBy), way(t.State.IO))
		}
		if t.State.Local6 != "" {
			fmt.Fprintf(w, "  IPv6 layer %s > %s\n", t.State.Local6, t.State.Remote6)
		}
		if t.State.TunnelMTU != 0 {
			fmt.Fprintf(w, "  interface  MTU %d\n", t.State.TunnelMTU)
		}
		printTraffic(w, "out", t.Out)
		printTraffic(w, "in", t.In)
		for _, p := range t.Peers {
			printPeer(w, p, now)
		}
		if i := t.ICMP; i != (engine.ICMP{}) {
			fmt.Fprintf(w, "  %-10s %d about our packets, %d not believed, %d sent to inner senders, %d too many to send\n", "errors", i.Heard, i.Ignored, i.Sent, i.Limited)
		}
		if t.OddECN > 0 {
			fmt.Fprintf(w, "  %-10s %d packets with marks that no sound path makes\n", "ECN", t.OddECN)
		}
		if t.IDWraps > 0 {
			fmt.Fprintf(w, "  %-10s identifications came round %d times too soon\n", "fragments", t.IDWraps)
		}
		if t.Answered > 0 {
			fmt.Fprintf(w, "  answered   %d echo requests to our end of the layer, and keepalives\n", t.Answered)
		}
	}
	if len(s.Stray.Drops) > 0 {
		fmt.Fprintf(w, "of no tunnel\n")
		printDrops(w, "in", s.Stray)
	}
}

// printPeer shows one of many peers in a line, and what of it did not pass.
func printPeer(w io.Writer, p engine.PeerStatus, now time.Time) {
	fmt.Fprintf(w, "  peer %-15s %s for %v", p.Peer, p.State.Phase, now.Sub(p.State.Since).Round(time.Second))
	if p.State.Detail != "" {
		fmt.Fprintf(w, ", waits for %s", p.State.Detail)
	} else {
		fmt.Fprintf(w, ", %s, path MTU %d", p.State.Remote, p.State.PathMTU)
	}
	fmt.Fprintf(w, "; out %d packets, in %d packets", p.Out.Packets, p.In.Packets)
	for _, dir := range []struct {
		name string
		engine.Traffic
	}{{"out", p.Out}, {"in", p.In}} {
		if len(dir.Drops) > 0 {
			fmt.Fprintf(w, "; dropped %s: %s", dir.name, dropList(dir.Traffic))
		}
	}
	fmt.Fprintln(w)
}

func printTraffic(w io.Writer, direction string, t engine.Traffic) {
	fmt.Fprintf(w, "  %-10s %d packets, %d bytes\n", direction, t.Packets, t.Bytes)
	printDrops(w, direction, t)
}

func printDrops(w io.Writer, direction string, t engine.Traffic) {
	if len(t.Drops) > 0 {
		fmt.Fprintf(w, "  %-10s %s\n", "dropped "+direction, dropList(t))
	}
}

// dropList is each reason with its number of packets.
func dropList(t engine.Traffic) string {
	var drops []string
	for _, reason := range slices.Sorted(maps.Keys(t.Drops)) {
		drops = append(drops, fmt.Sprintf("%s %d", reason, t.Drops[reason]))
	}
	return strings.Join(drops, ", ")
}

// known is from where a path MTU is known.
func known(by string) string {
	switch by {
	case "icmp":
		return "a router said so"
	case "probe":
		return "found by probes"
	}
	return "of the first hop"
}

// way is how packets leave.
func way(io string) string {
	if io == "xdp" {
		return "AF_XDP"
	}
	return "a socket"
}
