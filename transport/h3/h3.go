// Package h3 reads the unidirectional streams that the peer of an HTTP/3 connection opens (RFC
// 9114 section 6.2), instead of quic-go's http3. When that reads SETTINGS, it begins to
// distribute the datagrams of the connection to its requests, in queues that take no more than
// 32: any burst of packets is longer. A connection with only one request does not need that.
package h3

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
)

// Types of streams, and those of the frame and the settings that matter here (RFC 9114
// section 7.2.4, RFC 9220 section 5, RFC 9297 section 5.1).
const (
	streamControl      = 0
	streamEncoder      = 2
	streamDecoder      = 3
	frameSettings      = 4
	settingConnect     = 8
	settingDatagram    = 0x33
	maxSettings        = 4 << 10
	errCodeUnsupported = quic.StreamErrorCode(http3.ErrCodeStreamCreationError)
)

// Settings is what the peer of an HTTP/3 connection has announced.
type Settings struct {
	received chan struct{} // closed when the following are known
	once     sync.Once     // for the first control stream

	// Connect and Datagrams are whether the peer supports extended CONNECT (RFC 9220) and
	// datagrams (RFC 9297). They are known after Wait.
	Connect, Datagrams bool
}

// Wait waits for the settings. The error says why they do not come.
func (s *Settings) Wait(ctx context.Context, q *quic.Conn) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-q.Context().Done():
		return context.Cause(q.Context())
	case <-s.received:
		return nil
	}
}

// Read reads the unidirectional streams that the peer opens, until the connection
// ends. It starts goroutines with run.
func Read(q *quic.Conn, run func(func())) *Settings {
	s := &Settings{received: make(chan struct{})}
	run(func() {
		for {
			stream, err := q.AcceptUniStream(q.Context())
			if err != nil {
				return
			}
			stream.ReleaseStreamCredit()
			run(func() {
				var e *http3.Error
				if errors.As(s.read(stream), &e) {
					q.CloseWithError(quic.ApplicationErrorCode(e.ErrorCode), e.ErrorMessage)
				}
			})
		}
	})
	return s
}

// read reads a stream to its end. If the error is an *http3.Error, it ends the connection.
func (s *Settings) read(stream *quic.ReceiveStream) error {
	r := bufio.NewReaderSize(stream, 512)
	kind, err := quicvarint.Read(r)
	if err != nil {
		return err
	}
	switch kind {
	case streamControl:
	case streamEncoder, streamDecoder: // our table is empty: what is in them has no effect
		_, err := io.Copy(io.Discard, r)
		return err
	default:
		stream.CancelRead(errCodeUnsupported)
		return nil
	}
	first := false
	s.once.Do(func() { first = true })
	if !first {
		return &http3.Error{ErrorCode: http3.ErrCodeStreamCreationError, ErrorMessage: "a second control stream"}
	}
	if err := s.parse(r); err != nil {
		return &http3.Error{ErrorCode: http3.ErrCodeMissingSettings, ErrorMessage: err.Error()}
	}
	close(s.received)
	io.Copy(io.Discard, r) // GOAWAY and the like: the peer ends the connection itself
	return &http3.Error{ErrorCode: http3.ErrCodeClosedCriticalStream, ErrorMessage: "the control stream has ended"}
}

// parse reads the SETTINGS frame.
func (s *Settings) parse(r *bufio.Reader) error {
	kind, err := quicvarint.Read(r)
	if err != nil {
		return err
	}
	length, err := quicvarint.Read(r)
	if err != nil {
		return err
	}
	if kind != frameSettings || length > maxSettings {
		return fmt.Errorf("the control stream begins with a frame of type %d and %d bytes", kind, length)
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	for len(b) > 0 {
		id, n, err := quicvarint.Parse(b)
		value, m, err2 := quicvarint.Parse(b[n:])
		if err != nil || err2 != nil {
			return errors.New("the SETTINGS frame ends within a setting")
		}
		switch b = b[n+m:]; id {
		case settingConnect:
			s.Connect = value == 1
		case settingDatagram:
			s.Datagrams = value == 1
		}
	}
	return nil
}
