package client

import (
	"context"
	"io"
	"net/url"
	"strconv"

	"sixfour/internal/capture"
)

// Capture requests the packets of a tunnel as pcapng. The caller must close the result.
// Reading ends with io.EOF when the requested packets have been delivered.
func (c *Client) Capture(ctx context.Context, r capture.Request) (io.ReadCloser, error) {
	q := url.Values{"tunnel": {r.Tunnel}, "sides": {r.Sides.String()}}
	if r.Filter != "" {
		q.Set("filter", r.Filter)
	}
	if r.Snap != 0 {
		q.Set("snap", strconv.Itoa(r.Snap))
	}
	if r.Count != 0 {
		q.Set("count", strconv.FormatUint(r.Count, 10))
	}
	return c.Bytes(ctx, "capture", q)
}
