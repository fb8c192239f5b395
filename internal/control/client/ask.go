package client

import (
	"context"
	"net/http"

	"sixfour/internal/api"
)

// Reload makes the daemon read its configuration again, and returns what changed.
func (c *Client) Reload(ctx context.Context) (api.Plan, error) {
	var p api.Plan
	return p, c.ask(ctx, "reload", nil, &p)
}

// Ping sends probes through a tunnel, and calls each with the outcome of every probe.
func (c *Client) Ping(ctx context.Context, r api.PingRequest, each func(api.PingReply) error) error {
	q := api.PingBody{Peer: r.Peer, Count: r.Count, Interval: api.Duration(r.Interval), Timeout: api.Duration(r.Timeout), Size: r.Size}
	return values(ctx, c, http.MethodPost, "ping", nil, q, each)
}

// ProbeMTU searches for the path MTU to a peer, and calls each for every size tried.
func (c *Client) ProbeMTU(ctx context.Context, peer string, each func(api.MTUProbe) error) (result api.MTUResult, err error) {
	err = values(ctx, c, http.MethodPost, "mtu", nil, api.MTUBody{Peer: peer}, func(line struct {
		api.MTUProbe
		api.MTUResult
	}) error {
		if line.PathMTU > 0 {
			result = line.MTUResult
			return nil
		}
		return each(line.MTUProbe)
	})
	return result, err
}
