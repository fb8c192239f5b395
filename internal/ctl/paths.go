package ctl

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
)

func pathsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "paths [TUNNEL|TUNNEL/PEER|PEER]",
		Short: "Show every path to the peers, and why packets use it or not",
		Long: `Shows the paths to each peer, in the order of the configuration: the share of the flows that use a path, its encapsulation, its
ends with their UDP or TCP ports, its state, round-trip time, loss of the last 20 probes and path MTU. The line below a path says
since when packets use it or do not, and why.`,
		Args:              takes(0, 1),
		ValidArgsFunction: completePeer,
	}
	dial, asJSON := socketFlag(cmd), jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		all, err := requestPaths(cmd.Context(), dial(), strings.Join(args, ""))
		if err != nil {
			return fail(err)
		}
		out := cmd.OutOrStdout()
		if *asJSON {
			return fail(printJSON(out, all))
		}
		w := bufio.NewWriter(out)
		_ = writeLines(w, colours(out), pathsReport(all, time.Now())) // Flush returns the error
		return fail(w.Flush())
	}
	return cmd
}

// peerPath is one path to a peer, with its place.
type peerPath struct {
	Tunnel string `json:"tunnel"`
	Peer   string `json:"peer,omitempty"`
	Path   int    `json:"path"` // from 1
	api.PathStatus
}

// requestPaths requests the paths of everything, of one tunnel, or of a peer, named
// TUNNEL/PEER or by its own name if only one tunnel has it.
func requestPaths(ctx context.Context, c *client.Client, what string) ([]peerPath, error) {
	s, err := c.Status(ctx, "")
	if err != nil {
		return nil, err
	}
	paths, same := []peerPath{}, []string{}
	var names []string
	for i := range s.Tunnels {
		t := &s.Tunnels[i]
		names = append(names, t.Name)
		peers := t.Peers
		if len(peers) == 0 {
			peers = []api.PeerStatus{t.PeerStatus}
		}
		for j := range peers {
			p := &peers[j]
			name := t.Name + "/" + p.Peer
			if p.Peer == "" {
				name = t.Name
			}
			switch what {
			case "", t.Name, name:
				paths = append(paths, pathsOf(t.Name, p)...)
			case p.Peer:
				paths = append(paths, pathsOf(t.Name, p)...)
				same = append(same, name)
			}
		}
	}
	switch {
	case len(same) > 1:
		return nil, fmt.Errorf("%q is the name of %d peers: choose %s", what, len(same), strings.Join(same[:min(len(same), 10)], ", "))
	case len(paths) == 0 && what != "":
		return nil, fmt.Errorf("there is no tunnel or peer %q: choose %s, or TUNNEL/PEER", what, strings.Join(names, ", "))
	}
	return paths, nil
}

// pathsOf returns the paths to a peer. The only one of a peer is made of the peer's own status.
func pathsOf(tunnel string, p *api.PeerStatus) (all []peerPath) {
	for i, one := range p.Paths {
		all = append(all, peerPath{tunnel, p.Peer, i + 1, one})
	}
	if all != nil {
		return all
	}
	only := api.PathStatus{Why: "the only path", WhySince: p.State.Since, State: p.State, In: p.In, Out: p.Out, Liveness: p.Liveness, LastError: p.LastError, LastDown: p.LastDown}
	if p.State.Phase.Carries() {
		only.Used, only.Share = true, 1
	} else {
		only.Why = "it cannot send"
	}
	return []peerPath{{tunnel, p.Peer, 1, only}}
}

// pathsReport formats paths as a table.
func pathsReport(all []peerPath, now time.Time) [][]cell {
	t := &table{
		heading: []string{"TUNNEL", "PATH", "SHARE", "ENCAP", "LOCAL", "REMOTE", "STATE", "FOR", "RTT", "LOSS", "PATH MTU", "OUT", "IN"},
		numbers: []bool{false, true, true, false, false, false, false, true, true, true, true, true, true},
	}
	for _, p := range all {
		name := p.Tunnel
		if p.Peer != "" {
			name += "/" + p.Peer
		}
		share := percent(p.Share)
		if !p.Used {
			share = "-"
		}
		encap := p.State.Encap
		if encap == "" {
			encap = "none"
		}
		rtt, loss, mtu := quality(api.PeerStatus{State: p.State, Liveness: p.Liveness})
		local, remote := ends(&p.State)
		t.rows = append(t.rows, row{
			cells: []cell{
				{plain(name), none}, {strconv.Itoa(p.Path), none}, {share, none}, {plain(encap), none}, {plain(local), none}, {plain(remote), none},
				phase(p.State), {formatDuration(now.Sub(p.State.Since)), none}, {rtt, none}, {loss, none}, {mtu, none},
				{scaled(float64(p.Out.Packets), ""), none}, {scaled(float64(p.In.Packets), ""), none},
			},
			under: plain(p.reason(now)),
		})
	}
	return t.lines(0)
}

// reason returns since when packets use the path or do not, and why.
func (p *peerPath) reason(now time.Time) string {
	use := "used"
	if !p.Used {
		use = "not used"
	}
	if !p.WhySince.IsZero() {
		use += " for " + formatDuration(now.Sub(p.WhySince))
	}
	why := p.Why
	if why == "used" {
		why = ""
	}
	if d := p.State.Detail; d != "" && !strings.Contains(why, d) { // a reason that is no failure, such as a path that is only probably up
		if why != "" {
			why += "; "
		}
		why += phaseReason(&p.State) + d
	}
	if why != "" {
		use += ": " + why
	}
	if p.Liveness.Marks == api.MarksRemoved {
		use += "; ECN " + marksRemoved
	}
	return use
}

// marksRemoved says that congestion marks do not arrive.
const marksRemoved = "congestion marks do not reach the peer (sixfourctl doctor)"

// phaseReason introduces the detail of a state.
func phaseReason(s *api.State) string {
	if s.Phase == api.Waiting {
		return "it waits for "
	}
	return string(s.Phase) + " because "
}

// ends returns the outer addresses of a state, with the ports if it has any.
func ends(s *api.State) (local, remote string) {
	return end(s.Local, s.LocalPort), end(s.Remote, s.Port)
}

func end(address string, port uint16) string {
	if port == 0 || address == "" {
		return address
	}
	return net.JoinHostPort(address, strconv.Itoa(int(port)))
}
