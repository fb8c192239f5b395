package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"sixfour/internal/api"
)

// maxPings is the most requests that the daemon sends for one command.
const maxPings = 100_000

var errNoAnswer = errors.New("no answer")

func pingCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ping TUNNEL|TUNNEL/PEER|PEER",
		Short: "Probe a peer, and measure round-trip times",
		Long: `Sends probes of the tunnel layer to a peer, until Ctrl-C or the number of --count, and prints each answer and, at the end, the
round-trip times. PEER alone names a peer that only one tunnel has. Exit status 1: no probe was answered.`,
		Example:           "  sixfourctl ping six0 -c 3",
		Args:              takes(1, 1),
		ValidArgsFunction: completePeer,
	}
	dial, asJSON := socketFlag(cmd), jsonFlag(cmd)
	var r api.PingRequest
	f := cmd.Flags()
	f.IntVarP(&r.Count, "count", "c", maxPings, "stop after this `number` of probes")
	f.DurationVarP(&r.Interval, "interval", "i", time.Second, "`time` between two probes")
	f.DurationVarP(&r.Timeout, "timeout", "W", time.Second, "`time` to wait for each answer")
	f.IntVarP(&r.Size, "size", "s", 0, "size of the outer packet in `bytes` (default: the smallest)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case r.Count < 1 || r.Count > maxPings:
			return fmt.Errorf("--count %d: give a number from 1 to %d", r.Count, maxPings)
		case r.Interval <= 0 || r.Timeout <= 0 || r.Size < 0:
			return errors.New("--interval and --timeout must be more than 0, and --size must not be negative")
		}
		c := dial()
		r.Peer = args[0]
		p := &pinger{out: output(cmd), peer: r.Peer, began: time.Now()}
		if *asJSON {
			p.json = jsonLines(cmd.OutOrStdout())
		}
		err := c.Ping(cmd.Context(), r, p.reply)
		if errors.Is(err, context.Canceled) && cmd.Context().Err() != nil {
			err = nil // Ctrl-C is the normal end
		}
		if err != nil && p.sent == 0 {
			return fail(err)
		}
		return fail(errors.Join(err, p.summary(time.Now())))
	}
	return cmd
}

// pinger prints the answers and their summary.
type pinger struct {
	out   io.Writer
	peer  string
	json  *json.Encoder // nil: text
	began time.Time

	sent, lost       int
	least, most      float64 // round-trip times in seconds
	total, ofSquares float64
}

func (p *pinger) reply(r api.PingReply) error {
	p.sent++
	if r.Lost {
		p.lost++
	} else {
		if p.sent-p.lost == 1 {
			p.least = r.RTT
		}
		p.least, p.most = min(p.least, r.RTT), max(p.most, r.RTT)
		p.total += r.RTT
		p.ofSquares += r.RTT * r.RTT
	}
	if p.json != nil {
		return p.json.Encode(r)
	}
	detail := ""
	if r.Detail != "" {
		detail = " (" + plain(r.Detail) + ")"
	}
	size := ""
	if r.Size > 0 {
		size = fmt.Sprintf("%d bytes, ", r.Size)
	}
	if r.Lost {
		_, err := fmt.Fprintf(p.out, "no answer from %s: %sseq=%d%s\n", plain(p.peer), size, r.Seq, detail)
		return err
	}
	_, err := fmt.Fprintf(p.out, "answer from %s: %sseq=%d time=%s%s\n", plain(p.peer), size, r.Seq, milliseconds(r.RTT), detail)
	return err
}

// pingSummary is the last line with --json.
type pingSummary struct {
	Sent     int     `json:"sent"`
	Answered int     `json:"answered"`
	Loss     float64 `json:"loss"` // 0 to 1
	Least    float64 `json:"rtt_min_seconds"`
	Mean     float64 `json:"rtt_avg_seconds"`
	Most     float64 `json:"rtt_max_seconds"`
	Spread   float64 `json:"rtt_mdev_seconds"` // standard deviation
}

// summary prints the summary, and returns an error if there was no answer at all.
func (p *pinger) summary(now time.Time) error {
	s := pingSummary{Sent: p.sent, Answered: p.sent - p.lost, Least: p.least, Most: p.most}
	if p.sent > 0 {
		s.Loss = float64(p.lost) / float64(p.sent)
	}
	if n := float64(s.Answered); n > 0 {
		s.Mean = p.total / n
		s.Spread = math.Sqrt(max(0, p.ofSquares/n-s.Mean*s.Mean))
	}
	var err error
	if p.json != nil {
		err = p.json.Encode(s)
	} else {
		_, err = fmt.Fprintf(p.out, "\n--- %s ---\n%d sent, %d answered, %s lost, in %s\n", plain(p.peer), s.Sent, s.Answered, percent(s.Loss), now.Sub(p.began).Round(time.Millisecond))
		if s.Answered > 0 && err == nil {
			ms := func(seconds float64) float64 { return seconds * 1000 }
			_, err = fmt.Fprintf(p.out, "rtt min/avg/max/mdev = %.3f/%.3f/%.3f/%.3f ms\n", ms(s.Least), ms(s.Mean), ms(s.Most), ms(s.Spread))
		}
	}
	if err == nil && s.Answered == 0 {
		return errNoAnswer
	}
	return err
}
