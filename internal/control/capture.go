package control

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"sixfour/internal/capture"
)

// captureParams are the query parameters of a capture.
var captureParams = []string{"tunnel", "sides", "filter", "snap", "count"}

// sides maps values of the parameter sides.
var sides = map[string]capture.Sides{"": capture.Both, "both": capture.Both, "inner": capture.Inner, "outer": capture.Outer}

// contentPcapng is the media type of captures.
const contentPcapng = "application/x-pcapng"

// capture answers with pcapng until the client disconnects.
func (s *Server) capture(w *answer, r *request) error {
	c := capture.Request{Tunnel: r.query.Get("tunnel"), Filter: r.query.Get("filter")}
	var ok bool
	if c.Sides, ok = sides[r.query.Get("sides")]; !ok {
		return refuse(http.StatusBadRequest, "sides are both, inner or outer, not %q", r.query.Get("sides"))
	}
	var err error
	if text := r.query.Get("snap"); text != "" {
		if c.Snap, err = strconv.Atoi(text); err != nil {
			return refuse(http.StatusBadRequest, "snap is a number of bytes, not %q", text)
		}
	}
	if text := r.query.Get("count"); text != "" {
		if c.Count, err = strconv.ParseUint(text, 10, 64); err != nil {
			return refuse(http.StatusBadRequest, "count is a number of packets, not %q", text)
		}
	}
	return w.bytes(r, contentPcapng, func(ctx context.Context, out *Bytes) error {
		return s.daemon.Capture(ctx, c, out)
	})
}

// Capture requests the packets of a tunnel as pcapng. The caller must close the result.
// Reading ends with io.EOF when the requested packets have been delivered.
func (c *Client) Capture(ctx context.Context, r capture.Request) (io.ReadCloser, error) {
	q := url.Values{"tunnel": {r.Tunnel}}
	for word, s := range sides {
		if s == r.Sides && word != "" {
			q.Set("sides", word)
		}
	}
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
