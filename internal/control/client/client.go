// Package client sends requests to the daemon at its control socket.
package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"sixfour/internal/api"
)

// Limits of what the client reads.
const (
	maxHead  = 1 << 20   // bytes of the header of an answer
	maxLine  = 1 << 20   // bytes of one value of a stream
	maxReply = 512 << 20 // bytes of any other answer
	maxError = 64 << 10  // bytes of an error
)

// replyPatience limits how long the daemon may take to answer a request that needs no work.
const replyPatience = 10 * time.Second

// Client sends requests to the daemon at a control socket. Its methods may be called
// concurrently.
type Client struct {
	socket string
	dial   func(ctx context.Context) (net.Conn, error)
}

// New returns a client for the daemon at a socket. Each request makes a connection of its
// own.
func New(socket string) *Client {
	return &Client{socket, func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{Timeout: replyPatience}
		return d.DialContext(ctx, "unix", socket)
	}}
}

// Status requests the status of the daemon at a socket.
func Status(ctx context.Context, socket string) (api.Status, error) {
	return New(socket).Status(ctx, "")
}

// Status requests the daemon's status, with all tunnels or, if tunnel is not "", with one.
func (c *Client) Status(ctx context.Context, tunnel string) (api.Status, error) {
	var s api.Status
	query := url.Values{}
	if tunnel != "" {
		query.Set("tunnel", tunnel)
	}
	return s, c.get(ctx, "status", query, &s)
}

// Version requests the versions of the daemon and of its API.
func (c *Client) Version(ctx context.Context) (api.Version, error) {
	var v api.Version
	return v, c.get(ctx, "version", nil, &v)
}

// Events calls each with some past events, and with new ones, until ctx ends, each fails or
// the daemon ends.
func (c *Client) Events(ctx context.Context, each func(api.Event) error) error {
	return values(ctx, c, http.MethodGet, "events", nil, nil, each)
}

// get sends a request that needs no work by the daemon.
func (c *Client) get(ctx context.Context, what string, query url.Values, into any) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(replyPatience, func() { cancel(errTimeout) })
	defer late.Stop()
	resp, err := c.do(ctx, http.MethodGet, what, query, nil)
	if err != nil {
		if errors.Is(context.Cause(ctx), errTimeout) {
			return fmt.Errorf("daemon at %s: %w", c.socket, errTimeout)
		}
		return err
	}
	defer resp.Body.Close()
	late.Stop()
	return c.read(resp, into)
}

var errTimeout = fmt.Errorf("no answer within %v: the daemon is stopped, or overloaded", replyPatience)

// ask sends a request that may take long.
func (c *Client) ask(ctx context.Context, what string, body, into any) error {
	if _, err := c.Version(ctx); err != nil { // detects at once a missing daemon or another program
		return err
	}
	resp, err := c.do(ctx, http.MethodPost, what, nil, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return c.read(resp, into)
}

func (c *Client) read(resp *http.Response, into any) error {
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReply)).Decode(into); err != nil {
		return c.explain(err)
	}
	return nil
}

// Lines requests a stream of values, and calls each with every value as it arrives; the
// bytes are valid until each returns. Lines returns when the daemon ends the stream, with
// the daemon's error if there is one; when each fails, with its error; or when ctx ends.
func (c *Client) Lines(ctx context.Context, method, what string, query url.Values, body any, each func([]byte) error) error {
	r, err := c.open(ctx, method, what, query, body)
	if err != nil {
		return err
	}
	defer r.Close()
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var f struct {
			Error *string `json:"error"`
		}
		if json.Unmarshal(lines.Bytes(), &f) == nil && f.Error != nil {
			return errors.New(*f.Error)
		}
		if err := each(lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return c.explain(err)
	}
	return ctx.Err()
}

// values calls Lines, and decodes each value.
func values[T any](ctx context.Context, c *Client, method, what string, query url.Values, body any, each func(T) error) error {
	return c.Lines(ctx, method, what, query, body, func(line []byte) error {
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return fmt.Errorf("daemon at %s: %w", c.socket, err)
		}
		return each(v)
	})
}

// Bytes requests a stream of bytes, which the caller must close. Reading ends with io.EOF
// if the daemon ended the stream without an error.
func (c *Client) Bytes(ctx context.Context, what string, query url.Values) (io.ReadCloser, error) {
	return c.open(ctx, http.MethodGet, what, query, nil)
}

func (c *Client) open(ctx context.Context, method, what string, query url.Values, body any) (io.ReadCloser, error) {
	if _, err := c.Version(ctx); err != nil {
		return nil, err
	}
	resp, err := c.do(ctx, method, what, query, body) //nolint:bodyclose // stream closes it
	if err != nil {
		return nil, err
	}
	return &stream{c, resp}, nil
}

// stream is an answer that may end with an error in the trailer.
type stream struct {
	c    *Client
	resp *http.Response
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.resp.Body.Read(p)
	if errors.Is(err, io.EOF) {
		if text := s.resp.Trailer.Get(api.ErrorTrailer); text != "" {
			return n, errors.New(text)
		}
		return n, err
	}
	return n, s.c.explain(err)
}

func (s *stream) Close() error { return s.resp.Body.Close() }
