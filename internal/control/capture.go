package control

import (
	"context"
	"net/http"
	"strconv"

	"sixfour/internal/capture"
)

// captureParams are the query parameters of a capture.
var captureParams = []string{"tunnel", "sides", "filter", "snap", "count"}

// contentPcapng is the media type of captures.
const contentPcapng = "application/x-pcapng"

// capture answers with pcapng until the client disconnects.
func (s *Server) capture(w *answer, r *request) error {
	c := capture.Request{Tunnel: r.query.Get("tunnel"), Filter: r.query.Get("filter")}
	var ok bool
	if c.Sides, ok = capture.SidesNamed(r.query.Get("sides")); !ok {
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
