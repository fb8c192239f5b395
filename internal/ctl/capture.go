package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sixfour/internal/capture"
	"sixfour/internal/pcapng"
	"sixfour/internal/trusted"
)

func captureCommand() *cobra.Command {
	var r capture.Request
	var path string
	var inner, outer bool
	cmd := &cobra.Command{
		Use:   "capture TUNNEL [FILTER]",
		Short: "Capture the packets of a tunnel, and why some are dropped",
		Long: `Writes the packets of a tunnel as pcapng, until Ctrl-C: each packet as it is
carried (inner) and as it is on the wire (outer), both with the same packet
identifier. A comment says why a packet was not carried.

  sixfourctl capture six0 | wireshark -k -i -
  sixfourctl capture six0 | tcpdump -nr -
  sixfourctl capture six0 -w six0.pcapng --inner tcp port 443

FILTER has the syntax of tcpdump's filters (pcap-filter(7)), and "path 2", one of
several paths. A packet is written if it matches its inner or its outer form.`,
		Args:              takes(1, math.MaxInt),
		ValidArgsFunction: completeTunnel,
	}
	dial := socketFlag(cmd)
	cmd.Flags().StringVarP(&path, "write", "w", "-", "write to `FILE` and replace it; -: standard output")
	cmd.Flags().BoolVar(&inner, "inner", false, "only inner packets, which are carried")
	cmd.Flags().BoolVar(&outer, "outer", false, "only outer packets, which are on the wire")
	cmd.Flags().Uint64VarP(&r.Count, "count", "c", 0, "stop after `N` packets, inner and outer counted once")
	cmd.Flags().IntVar(&r.Snap, "snaplen", 0, "keep the first `BYTES` of each packet; 0: all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.Tunnel, r.Filter = args[0], strings.Join(args[1:], " ")
		switch {
		case inner && outer:
			return errors.New("--inner and --outer exclude each other: give one of them, or none for both sides")
		case inner:
			r.Sides = capture.Inner
		case outer:
			r.Sides = capture.Outer
		}
		if _, tty := terminal(cmd.OutOrStdout()); tty && path == "-" {
			return errors.New("a capture cannot be shown on a terminal: pipe it into a packet analyser (sixfourctl capture " + r.Tunnel + " | tcpdump -nr -), or write it to a file (-w FILE)")
		}
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		// If the reader has stopped, a second Ctrl-C ends the program at once.
		defer context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt, unix.SIGTERM) })()
		c := dial()
		// Start the capture first: an invalid request must not overwrite an existing file.
		stream, err := c.Capture(ctx, r)
		if err != nil {
			return fail(err)
		}
		defer stream.Close()
		out := cmd.OutOrStdout()
		if path != "-" {
			f, err := trusted.Create(path)
			if err != nil {
				return fail(err)
			}
			out = f
		} else if f, ok := out.(*os.File); ok {
			// A closed pipe ends the capture, and must not kill the program.
			signal.Ignore(unix.SIGPIPE)
			defer watchReader(f, cancel)()
		}
		copying := &copier{out: bufio.NewWriterSize(out, 1<<16), start: time.Now()}
		err = copying.copy(ctx, stream)
		if f, ok := out.(*os.File); ok && path != "-" {
			err = errors.Join(err, f.Close())
		}
		if errors.Is(err, unix.EPIPE) && copying.lost == 0 {
			return nil
		}
		fmt.Fprintln(errorOutput(cmd), "sixfourctl: "+copying.summary(path))
		return fail(err)
	}
	return cmd
}

// watchReader calls gone when the reader of a pipe has closed it. Writing alone would show
// that only with the next packet. The caller must call stop.
func watchReader(f *os.File, gone func()) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	fd := int32(f.Fd())
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
			}
			const milliseconds = 200
			fds := []unix.PollFd{{Fd: fd}}
			if n, err := unix.Poll(fds, milliseconds); err == nil && n > 0 && fds[0].Revents&unix.POLLERR != 0 {
				gone()
				return
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// copier copies a capture block by block, and counts its packets.
type copier struct {
	out   *bufio.Writer
	start time.Time

	packets  uint64 // inner and outer counted as one
	written  []uint64
	lost     uint64 // packets lost in the daemon
	lastID   uint64 // ID of the last packet
	complete bool   // the daemon has written the final statistics
}

// copy copies until the daemon or ctx ends the capture. The output is then complete, unless
// writing failed.
func (c *copier) copy(ctx context.Context, from io.Reader) error {
	in := bufio.NewReaderSize(from, 1<<16)
	blocks := pcapng.NewBlocks(in)
	for {
		if in.Buffered() == 0 { // show packets as they arrive
			if err := c.out.Flush(); err != nil {
				return err
			}
		}
		b, err := blocks.Next()
		switch {
		case errors.Is(err, io.EOF):
			return c.out.Flush()
		case err != nil && ctx.Err() != nil: // stopped by the user
			c.end()
			return c.out.Flush()
		case err != nil:
			c.end()
			return errors.Join(fmt.Errorf("the capture has ended: %w", err), c.out.Flush())
		}
		if err := c.count(b); err != nil {
			return err
		}
		if _, err := c.out.Write(b.Raw); err != nil {
			return err
		}
	}
}

func (c *copier) count(b *pcapng.Block) error {
	switch b.Type {
	case pcapng.BlockInterface:
		c.written = append(c.written, 0)
	case pcapng.BlockPacket:
		c.complete = false
		p, err := b.PacketInfo()
		if err != nil {
			return err
		}
		if p.ID != c.lastID {
			c.packets++
			c.lastID = p.ID
		}
		if p.Interface < len(c.written) {
			c.written[p.Interface]++
		}
		c.lost += p.Dropped
	case pcapng.BlockStatistics:
		c.complete = true
		s, err := b.Statistics()
		if err != nil {
			return err
		}
		c.lost = max(c.lost, s.Lost)
	}
	return nil
}

// end writes the final statistics, if the daemon has not.
func (c *copier) end() {
	if c.complete {
		return
	}
	now := time.Now()
	for i, n := range c.written {
		// An error here is repeated by the next flush.
		_, _ = c.out.Write(pcapng.AppendStatistics(nil, &pcapng.Statistics{Interface: i, Time: now, Start: c.start, Stop: now, Received: n, Lost: c.lost}))
	}
}

func (c *copier) summary(path string) string {
	s := fmt.Sprintf("%d packets captured", c.packets)
	if path != "-" {
		s += " into " + path
	}
	if c.lost > 0 {
		s += fmt.Sprintf(", %d more lost, because the capture was read too slowly: use a filter to capture fewer", c.lost)
	}
	return s
}
