package client

import (
	"context"
	"net/http"

	"sixfour/internal/api"
)

// Broker sends a request about accounts and leases, and calls each with every value of the
// answer, as JSON; the bytes are valid until each returns.
func (c *Client) Broker(ctx context.Context, q api.BrokerRequest, each func([]byte) error) error {
	return c.Lines(ctx, http.MethodPost, "broker", nil, q, each)
}
