package client

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"

	"sixfour/internal/api"
)

// do sends a request, and returns the answer unless it is an error. It uses the messages of
// net/http without its Transport, which would add TLS to the program.
func (c *Client) do(ctx context.Context, method, what string, query url.Values, body any) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "sixfourd", Path: api.PathPrefix + what, RawQuery: query.Encode()}
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), payload)
	if err != nil {
		return nil, err
	}
	req.Close = true
	resp, err := c.send(ctx, req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, c.refused(resp)
}

// send sends a request over a new connection, which is closed with the answer's body or
// when ctx ends.
func (c *Client) send(ctx context.Context, req *http.Request) (*http.Response, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	b := &responseBody{ctx: ctx, conn: conn, stop: context.AfterFunc(ctx, func() { conn.Close() })}
	limited := &io.LimitedReader{R: conn, N: maxHead}
	failed := req.Write(conn) // a daemon that refuses a connection answers without reading
	resp, err := http.ReadResponse(bufio.NewReader(limited), req)
	if err != nil {
		b.closeConn()
		return nil, b.errorOf(cmp.Or(failed, err))
	}
	limited.N = math.MaxInt64
	b.body, resp.Body = resp.Body, b
	return resp, nil
}

// responseBody is the body of an answer, with its connection.
type responseBody struct {
	ctx  context.Context
	conn net.Conn
	stop func() bool // ends the watch over ctx
	body io.ReadCloser
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	return n, b.errorOf(err)
}

// Close closes the connection without reading the rest of the body.
func (b *responseBody) Close() error { return b.closeConn() }

func (b *responseBody) closeConn() error {
	b.stop()
	return b.conn.Close()
}

// errorOf returns the error of the context if it has ended: the connection was closed
// because of that.
func (b *responseBody) errorOf(err error) error {
	if err != nil && b.ctx.Err() != nil && err != io.EOF {
		return b.ctx.Err()
	}
	return err
}
