package ctl

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sixfour/internal/decode"
	"sixfour/internal/text"
)

func decodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "decode [FILE]",
		Short: "Show the headers of captured packets, layer by layer",
		Long: `Reads a capture, pcapng or pcap, from FILE or from standard input. It prints the
headers of each packet, from the outermost inwards, and why it was not carried.

  sixfourctl capture six0 -c 10 | sixfourctl decode`,
		Args: takes(0, 1),
	}
	asJSON := cmd.Flags().Bool("json", false, "print JSON, one line for each packet")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		from, name := cmd.InOrStdin(), "standard input"
		if len(args) == 1 && args[0] != "-" {
			name = args[0]
			f, err := os.Open(name)
			if err != nil {
				return fail(err)
			}
			defer f.Close()
			from = f
		} else if _, tty := terminal(from); tty {
			return errors.New("standard input is a terminal, not a capture: name a file, or pipe a capture into this command")
		}
		signal.Ignore(unix.SIGPIPE)
		in := bufio.NewReaderSize(from, 1<<16)
		clean := output(cmd)
		if *asJSON {
			clean = text.NewJSONWriter(cmd.OutOrStdout())
		}
		out := bufio.NewWriterSize(clean, 1<<16)
		_, err := decode.File(&flushing{in, out}, out, *asJSON)
		ferr := out.Flush()
		switch {
		case errors.Is(err, unix.EPIPE) || errors.Is(ferr, unix.EPIPE) || cmd.Context().Err() != nil:
			return nil
		case errors.As(err, new(decode.Failed)):
			return fail(err)
		case err != nil:
			return fail(fmt.Errorf("%s: %w", name, err))
		}
		return fail(ferr)
	}
	return cmd
}

// flushing is a reader that flushes the output before it waits for more input.
type flushing struct {
	in  *bufio.Reader
	out *bufio.Writer
}

func (f *flushing) Read(p []byte) (int, error) {
	if f.in.Buffered() == 0 {
		if err := f.out.Flush(); err != nil {
			return 0, err
		}
	}
	return f.in.Read(p)
}
