package pcapng

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Copier copies a capture block by block, and counts its packets.
type Copier struct {
	Packets uint64 // inner and outer counted as one
	Lost    uint64 // packets lost in the daemon

	out      *bufio.Writer
	start    time.Time
	written  []uint64 // packets of each interface
	lastID   uint64   // ID of the last packet
	complete bool     // the daemon has written the final statistics
}

// NewCopier returns a Copier that writes to a file or a pipe.
func NewCopier(to io.Writer) *Copier {
	return &Copier{out: bufio.NewWriterSize(to, 1<<16), start: time.Now()}
}

// Copy copies until the daemon or ctx ends the capture. The output is then complete, unless
// writing failed.
func (c *Copier) Copy(ctx context.Context, from io.Reader) error {
	in := bufio.NewReaderSize(from, 1<<16)
	blocks := NewBlocks(in)
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

func (c *Copier) count(b *Block) error {
	switch b.Type {
	case BlockInterface:
		c.written = append(c.written, 0)
	case BlockPacket:
		c.complete = false
		p, err := b.PacketInfo()
		if err != nil {
			return err
		}
		if p.ID != c.lastID {
			c.Packets++
			c.lastID = p.ID
		}
		if p.Interface < len(c.written) {
			c.written[p.Interface]++
		}
		c.Lost += p.Dropped
	case BlockStatistics:
		c.complete = true
		s, err := b.Statistics()
		if err != nil {
			return err
		}
		c.Lost = max(c.Lost, s.Lost)
	}
	return nil
}

// end writes the final statistics, if the daemon has not.
func (c *Copier) end() {
	if c.complete {
		return
	}
	now := time.Now()
	for i, n := range c.written {
		// An error here is repeated by the next flush.
		_, _ = c.out.Write(AppendStatistics(nil, &Statistics{Interface: i, Time: now, Start: c.start, Stop: now, Received: n, Lost: c.Lost}))
	}
}
