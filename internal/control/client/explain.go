package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"golang.org/x/sys/unix"

	"sixfour/internal/api"
	"sixfour/internal/version"
)

// ErrNoDaemon means that no daemon answers at the socket.
var ErrNoDaemon = errors.New("no sixfourd answers")

// explain turns an error of the connection into one that says what it means and what to do.
func (c *Client) explain(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%w at %s: start it, or name the socket of its [control] section with --socket", ErrNoDaemon, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be opened: run as root, or join group sixfour", c.socket)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return fmt.Errorf("%w at %s any more: it ended before its answer was complete", ErrNoDaemon, c.socket)
	}
	return fmt.Errorf("daemon at %s: %w", c.socket, err)
}

// refused returns the error that the daemon answered with.
func (c *Client) refused(resp *http.Response) error {
	var f api.Failure
	err := json.NewDecoder(io.LimitReader(resp.Body, maxError)).Decode(&f)
	if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed || err != nil || f.Error == "" {
		who := resp.Header.Get("Server")
		if who == "" {
			who = "something else, or an older sixfourd"
		}
		return fmt.Errorf("%s belongs to %s, which this sixfourctl %s does not understand (%s): restart the daemon after an update, or use the sixfourctl that came with it",
			c.socket, who, version.String(), resp.Status)
	}
	return errors.New(f.Error)
}
