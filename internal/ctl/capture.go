package ctl

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"strings"

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
		copying := pcapng.NewCopier(out)
		err = copying.Copy(ctx, stream)
		if f, ok := out.(*os.File); ok && path != "-" {
			err = errors.Join(err, f.Close())
		}
		if errors.Is(err, unix.EPIPE) && copying.Lost == 0 {
			return nil
		}
		fmt.Fprintln(errorOutput(cmd), "sixfourctl: "+summary(copying, path))
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

// summary says how many packets were captured.
func summary(c *pcapng.Copier, path string) string {
	s := fmt.Sprintf("%d packets captured", c.Packets)
	if path != "-" {
		s += " into " + path
	}
	if c.Lost > 0 {
		s += fmt.Sprintf(", %d more lost, because the capture was read too slowly: use a filter to capture fewer", c.Lost)
	}
	return s
}
